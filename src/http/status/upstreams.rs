//! The upstreams in `/status`.

use serde::Serialize;

use super::page::seconds;
use crate::upstream::vital::VitalView;
use crate::upstream::{PoolView, UpstreamView};

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
    drained: bool,
    health: Health,
    pool: Option<Pool>,
}

#[derive(Debug, Serialize)]
struct Pool {
    idle: usize,
    hits: u64,
    misses: u64,
    stale: u64,
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
        let UpstreamView { target, name, weight, backup, sessions, max_connections, tls, drained, health, pool, .. } = view;
        let pool = pool.map(Pool::from);
        Self { target, name, weight, backup, sessions, max_connections, tls, drained, health: health.into(), pool }
    }
}

impl From<PoolView> for Pool {
    fn from(PoolView { idle, hits, misses, stale }: PoolView) -> Self {
        Self { idle, hits, misses, stale }
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
