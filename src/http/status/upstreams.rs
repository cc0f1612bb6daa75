//! The upstreams in `/status`.

use serde::Serialize;

use super::page::seconds;
use crate::upstream::UpstreamView;
use crate::upstream::vital::VitalView;

/// One upstream.
#[derive(Debug, Serialize)]
pub(super) struct Upstream {
    target: String,
    name: Option<String>,
    weight: u32,
    backup: bool,
    sessions: u32,
    max_connections: Option<u32>,
    tls: &'static str,
    health: Health,
}

#[derive(Debug, Serialize)]
struct Health {
    state: &'static str,
    since_seconds: f64,
    last_error: Option<LastError>,
    checks: Checks,
}

#[derive(Debug, Serialize)]
struct LastError {
    kind: &'static str,
    error: String,
    seconds_ago: f64,
}

#[derive(Debug, Serialize)]
struct Checks {
    passed: u64,
    failed: u64,
    last_seconds_ago: Option<f64>,
}

impl From<UpstreamView> for Upstream {
    fn from(view: UpstreamView) -> Self {
        let UpstreamView { target, name, weight, backup, sessions, max_connections, tls, health } = view;
        Self { target, name, weight, backup, sessions, max_connections, tls, health: health.into() }
    }
}

impl From<VitalView> for Health {
    fn from(view: VitalView) -> Self {
        let (passed, failed) = view.checks;
        Self {
            state: view.state,
            since_seconds: seconds(view.since),
            last_error: view.last_error.map(|(trouble, ago)| LastError {
                kind: trouble.kind,
                error: trouble.text,
                seconds_ago: seconds(ago),
            }),
            checks: Checks { passed, failed, last_seconds_ago: view.checked.map(seconds) },
        }
    }
}
