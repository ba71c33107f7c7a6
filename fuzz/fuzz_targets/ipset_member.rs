//! Sets of ipset, as the kernel dumps them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| canreach_fuzz::ipset_member(bytes));
