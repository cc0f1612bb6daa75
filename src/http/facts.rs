//! What the server asks others for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use actix::Recipient;

use super::Readiness;
use crate::admission::{rate_limiter, supervisor};
use crate::telemetry::{Telemetry, collector};
use crate::tls;
use crate::upstream::{UpstreamView, breaker};

/// Everybody who is asked. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    /// For the metrics, and the fingerprints of names.
    pub telemetry: Telemetry,
    /// Supervisor.
    pub supervisor: Recipient<supervisor::Snapshot>,
    /// RateLimiter.
    pub rate_limiter: Recipient<rate_limiter::Snapshot>,
    /// UpstreamBreaker.
    pub breaker: Recipient<breaker::Snapshot>,
    /// MetricsCollector.
    pub collector: Recipient<collector::Snapshot>,
    /// Answers /ready.
    pub readiness: Readiness,
    /// Tells of the listener; must not block.
    pub listener: Arc<dyn Fn() -> ListenerFacts + Send + Sync>,
    /// Tells of the buffers; must not block.
    pub buffers: Arc<dyn Fn() -> BufferFacts + Send + Sync>,
    /// The configured upstreams, in their order; must not block.
    pub upstreams: Arc<dyn Fn() -> Vec<UpstreamView> + Send + Sync>,
    /// The configuration that runs, and the last attempt to change it; must not block.
    pub config: Arc<dyn Fn() -> ConfigFacts + Send + Sync>,
    /// When the process began.
    pub started: Instant,
    /// The same on the wall clock.
    pub started_at: SystemTime,
}

/// The listener.
#[derive(Debug, Clone, Default)]
pub struct ListenerFacts {
    /// Bound addresses, each with what must be spoken there: "off", "only" or "optional".
    pub doors: Vec<(SocketAddr, &'static str)>,
    /// The certificate, where TLS is spoken.
    pub tls: Option<Arc<tls::Standing>>,
    /// Whether it accepts.
    pub accepting: bool,
    /// Accepted sockets that are open, those that are being refused included.
    pub open_sockets: u64,
    /// The most there may be.
    pub hard_cap: u64,
}

/// The configuration.
#[derive(Debug, Clone)]
pub struct ConfigFacts {
    /// The file, or "the environment".
    pub source: String,
    /// Keyed digest of what runs; the key is that of the fingerprints.
    pub hash: String,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// The last attempt to load another one.
    pub last_reload: Option<LastReload>,
}

/// How an attempt to load another configuration ended.
#[derive(Debug, Clone)]
pub struct LastReload {
    /// When.
    pub at: SystemTime,
    /// What asked for it.
    pub by: &'static str,
    /// One of [`labels::CONFIG_RELOADS`](crate::telemetry::labels::CONFIG_RELOADS).
    pub result: &'static str,
    /// What was wrong with it, without secrets.
    pub error: Option<String>,
}

/// The pools of buffers, of all workers together.
#[derive(Debug, Clone, Copy, Default)]
pub struct BufferFacts {
    /// Bytes of one buffer.
    pub size_bytes: usize,
    /// Buffers lent now.
    pub lent: usize,
    /// Bytes lent beyond which messages are no longer held.
    pub max_total_bytes: usize,
    /// Messages that were passed on unheld because of that.
    pub unheld: u64,
}
