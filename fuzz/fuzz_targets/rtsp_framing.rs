//! See `tests/fuzz/bodies/rtsp_framing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::rtsp_framing::run(data));
