//! See `tests/fuzz/bodies/proxy.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::proxy::run(data));
