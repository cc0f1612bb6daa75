//! What happened, how often?
//!
//! Every happening is a struct in [`events`]; [`Telemetry::emit`] writes its log line and moves its metrics, so that the two
//! can never tell different stories. What recurs for every packet is no event: it is counted in a [`SessionCell`] and in
//! [`WorkerTraffic`], from where /status and the [`MetricsCollector`] read it.

mod cell;
pub mod collector;
mod ending;
pub mod events;
pub mod labels;
pub mod logging;
mod mask;
mod output;
mod process;
mod rates;
mod registry;
mod sampled;
mod throttle;
mod worker;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use crate::config::Log;

pub use cell::{Claim, Count, Facts, SessionCell, SessionId, State, Traffic};
pub use collector::MetricsCollector;
pub use ending::{Side, Status};
pub use events::Event;
pub use mask::{Masker, Shown};
pub use registry::{Metrics, OpenConnection, SessionAtUpstream, Waits};
pub use sampled::BufferUse;
pub use worker::{KEY_FRAME_LATE, SILENT, Seen, Streams, Total, WorkerTraffic};

use throttle::Throttle;

/// The one place where the relay says what happens. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    metrics: Metrics,
    masker: RwLock<Masker>,
    throttle: Mutex<Throttle>,
}

impl Telemetry {
    /// Metrics from zero, and names shown as `log` asks. Where lines go is decided by [`logging::init`].
    pub fn new(log: &Log) -> Self {
        Self::with(Masker::new(log))
    }

    /// For tests: metrics of its own, masked names. Nothing is written unless the test has set a subscriber.
    pub fn silent() -> Self {
        Self::with(Masker::random())
    }

    fn with(masker: Masker) -> Self {
        Self { shared: Arc::new(Shared { metrics: Metrics::new(), masker: RwLock::new(masker), throttle: Mutex::default() }) }
    }

    /// Logs and counts what happened.
    pub fn emit(&self, event: impl Event) {
        event.emit(self);
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// App, stream and fingerprint of a stream as logs and /status may show them. Ask after authentication, when the token
    /// is out of the name.
    pub fn shown(&self, app: &[u8], stream: &[u8]) -> Shown {
        self.masker().shown(app, stream)
    }

    /// A joined name, `app/stream`, as logs may show it.
    pub fn mask(&self, name: &[u8]) -> String {
        self.masker().mask(name)
    }

    /// The fingerprint of a joined name, `app/stream`.
    pub fn fingerprint(&self, name: &[u8]) -> String {
        self.masker().fingerprint(name)
    }

    /// The keyed digest of a configuration, 16 hex digits: the same for the same bytes for as long as fingerprints are.
    pub fn digest(&self, bytes: &[u8]) -> String {
        self.masker().digest(bytes, 8)
    }

    /// From now on names are shown as `log` asks; those that were shown before stay as they are.
    pub fn show_names(&self, log: &Log) {
        let changed = self.masker().changed(log);
        *self.shared.masker.write().unwrap_or_else(PoisonError::into_inner) = changed;
    }

    fn masker(&self) -> RwLockReadGuard<'_, Masker> {
        self.shared.masker.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the throttle kept back, where its second is over. Called each second by the [`MetricsCollector`], and once
    /// before the end.
    pub fn flush(&self, now: Instant) {
        let summaries = self.throttle(|throttle| throttle.flush(now));
        summaries.iter().for_each(events::suppressed);
    }

    /// Whether a line about `what` for `reason` may be written now. One that may not is counted, and told in a summary.
    fn may_log(&self, what: &'static str, reason: &'static str, client: Option<IpAddr>) -> bool {
        let now = Instant::now();
        let (may, summary) = self.throttle(|throttle| throttle.pass(what, reason, client, now));
        summary.iter().for_each(events::suppressed);
        may
    }

    fn throttle<T>(&self, act: impl FnOnce(&mut Throttle) -> T) -> T {
        act(&mut self.shared.throttle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
