//! Snapshot files, and whether both ways to answer a question agree.

#![no_main]

use canreach_fuzz::json;
use canreach_fuzz::random::Random;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| canreach_fuzz::two_answers(bytes));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    json::mutate_in_place(data, size, max_size, &mut Random::new(u64::from(seed)))
        .unwrap_or_else(|| libfuzzer_sys::fuzzer_mutate(data, size, max_size))
});
