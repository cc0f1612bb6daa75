//! See `tests/fuzz/bodies/config.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::config::run(data));
