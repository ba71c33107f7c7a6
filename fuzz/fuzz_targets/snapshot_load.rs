//! Snapshot files, and every question that can be asked of one.

#![no_main]

use canreach_fuzz::json;
use canreach_fuzz::random::Random;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| canreach_fuzz::snapshot_load(bytes));

// Every other change keeps the file JSON; the rest is libFuzzer's own.
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(u64::from(seed));
    if random.below(2) == 0
        && let Some(changed) = json::mutate(&data[..size], &mut random)
        && changed.len() <= max_size
    {
        data[..changed.len()].copy_from_slice(&changed);
        return changed.len();
    }
    libfuzzer_sys::fuzzer_mutate(data, size, max_size)
});
