//! See `tests/fuzz/bodies/rtsp_session.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::rtsp_session::run(data));
