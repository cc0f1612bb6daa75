//! What does this byte mean? Pure: no socket, no clock, no chance.

pub mod name;
pub mod proxy;
pub mod rtmp;
pub mod rtsp;
pub mod sniff;
