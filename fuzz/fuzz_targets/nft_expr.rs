//! Expressions of nftables, as the kernel lists them in a rule.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| canreach_fuzz::nft_expr(bytes));
