//! See `tests/fuzz/bodies/sniff.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::sniff::run(data));
