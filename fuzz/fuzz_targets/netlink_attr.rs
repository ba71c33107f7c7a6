//! Messages and attributes of the kernel, and every decoder that reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| canreach_fuzz::netlink_attr(bytes));
