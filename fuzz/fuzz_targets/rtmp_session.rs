//! See `tests/fuzz/bodies/rtmp_session.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::rtmp_session::run(data));
