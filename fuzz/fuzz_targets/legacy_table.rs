//! Tables of iptables-legacy: layout and rules.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| canreach_fuzz::legacy_table(bytes));
