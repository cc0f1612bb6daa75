//! See `tests/fuzz/bodies/handshake.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::handshake::run(data));
