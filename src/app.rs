//! Who knows whom?

use anyhow::bail;
use ipnetwork::IpNetwork;

use crate::config::{Config, ListenAddr, Loaded};

/// Runs the relay until it is told to stop. Warnings of the configuration are logged first.
pub fn run(loaded: Loaded) -> anyhow::Result<()> {
    let Config { listen, .. } = loaded.config;
    bail!("cannot relay at {listen} yet")
}

/// Runs the demonstration: an origin, the relay in front of it, and a stream through both.
pub fn demo(listen: ListenAddr, _http: Option<ListenAddr>) -> anyhow::Result<()> {
    bail!("cannot run the demonstration at {listen} yet")
}

/// The fingerprint that stands for the stream `name` ("app/stream") in logs and /status under this configuration.
pub fn fingerprint(_config: &Config, _name: &str) -> anyhow::Result<String> {
    bail!("cannot compute fingerprints yet")
}

/// Whether `url` can be an upstream: its grammar, and for a literal address the guard.
pub fn judge_upstream(url: &str, _allowed: &[IpNetwork]) -> Result<(), String> {
    if url.starts_with("rtmp://") { Ok(()) } else { Err("expected \"rtmp://host[:port][/app]\"".into()) }
}
