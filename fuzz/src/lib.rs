//! The bodies of the fuzz targets, which are the tests' own.

#[allow(dead_code, reason = "the tests read and write more than the bodies do")]
#[path = "../../tests/it/amf.rs"]
mod amf;
#[path = "../../tests/fuzz/bodies/all.rs"]
pub mod bodies;
#[allow(dead_code, reason = "the tests read and write more than the bodies do")]
#[path = "../../tests/it/parser.rs"]
mod parser;
