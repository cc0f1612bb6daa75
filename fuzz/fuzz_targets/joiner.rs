//! See `tests/fuzz/bodies/joiner.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::joiner::run(data));
