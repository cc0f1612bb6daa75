//! `relay`: the front door for live video.

pub mod protocol;
pub mod telemetry;
pub mod upstream;
