//! Structures of matches and targets of xtables.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| canreach_fuzz::xt_match(bytes));
