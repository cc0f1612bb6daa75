//! See `tests/fuzz/bodies/amf0.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::amf0::run(data));
