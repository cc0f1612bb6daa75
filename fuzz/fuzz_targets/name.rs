//! See `tests/fuzz/bodies/name.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::name::run(data));
