//! The RTMP wire (Adobe RTMP 1.0, Enhanced RTMP v2): handshake, chunks, AMF0, commands, and what a relay needs beyond them.

pub mod adobe;
pub mod amf0;
pub mod chunk;
pub mod client;
pub mod command;
pub mod handshake;
pub mod held;
pub mod joiner;
pub mod keep;
pub mod media;
pub mod replay;
pub mod server;
pub mod tracker;
