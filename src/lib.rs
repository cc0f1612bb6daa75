//! `relay`: the front door for live video.

pub mod admission;
pub mod app;
pub mod config;
pub mod http;
pub mod listener;
pub mod origin;
pub mod protocol;
pub mod session;
pub mod telemetry;
pub mod upstream;
