//! The bodies of the fuzz targets: each takes any bytes and asserts what must hold of them. `tests/fuzz` runs them over the committed
//! corpus and what proptest makes of it, `fuzz/` has libFuzzer drive the very same functions.
//!
//! Control bytes stand in front ([`cuts`]): how the rest is cut, and which variant is tried. The rest is what a peer sends.

pub mod amf0;
pub mod chunk_reader;
pub mod config;
mod cuts;
pub mod handshake;
pub mod joiner;
pub mod name;
pub mod proxy;
pub mod rtmp_session;
pub mod rtsp_framing;
pub mod rtsp_session;
mod senders;
pub mod sniff;
mod strict;

/// A target: its name, its body, and how many control bytes it reads.
pub type Target = (&'static str, fn(&[u8]), usize);

/// All of them.
pub const ALL: [Target; 11] = [
    ("sniff", sniff::run, 0),
    ("proxy", proxy::run, 0),
    ("handshake", handshake::run, handshake::CONTROL),
    ("chunk_reader", chunk_reader::run, chunk_reader::CONTROL),
    ("joiner", joiner::run, joiner::CONTROL),
    ("amf0", amf0::run, 0),
    ("rtmp_session", rtmp_session::run, rtmp_session::CONTROL),
    ("rtsp_framing", rtsp_framing::run, rtsp_framing::CONTROL),
    ("rtsp_session", rtsp_session::run, rtsp_session::CONTROL),
    ("name", name::run, name::CONTROL),
    ("config", config::run, 0),
];
