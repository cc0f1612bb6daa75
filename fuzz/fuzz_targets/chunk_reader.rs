//! See `tests/fuzz/bodies/chunk_reader.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz::bodies::chunk_reader::run(data));
