//! Happenings of the service as a whole.

use std::net::SocketAddr;
use std::time::Duration;

use super::Event;
use crate::telemetry::{SessionId, Telemetry};

/// The process begins.
#[derive(Debug)]
pub struct Started {
    /// Threads that run sessions.
    pub workers: usize,
}

impl Event for Started {
    fn emit(self, _: &Telemetry) {
        tracing::info!(event = "started", version = env!("CARGO_PKG_VERSION"), workers = self.workers, "relay starts");
    }
}

/// Clients can connect to an address.
#[derive(Debug)]
pub struct Listening {
    /// The bound address.
    pub address: SocketAddr,
    /// What must be spoken there: "off", "only" or "optional".
    pub tls: &'static str,
}

impl Event for Listening {
    fn emit(self, _: &Telemetry) {
        tracing::info!(event = "listening", address = %self.address, tls = self.tls, "clients can connect");
    }
}

/// /status, /metrics and their siblings answer.
#[derive(Debug)]
pub struct HttpListening {
    /// The bound address.
    pub address: SocketAddr,
    /// Whether every network may ask for everything.
    pub open: bool,
}

impl Event for HttpListening {
    fn emit(self, _: &Telemetry) {
        let hint = self.open.then_some("/status and /metrics answer everyone; http_allowed_networks limits them");
        tracing::info!(event = "http_listening", address = %self.address, hint, "HTTP answers");
    }
}

/// The kernel gave no socket.
#[derive(Debug)]
pub struct AcceptFailed<'a> {
    /// What it said.
    pub error: &'a std::io::Error,
}

impl Event for AcceptFailed<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().accept_errors.inc();
        if telemetry.may_log("accept_failed", "accept", None) {
            tracing::warn!(event = "accept_failed", error = %self.error, "a client could not be accepted");
        }
    }
}

/// A panic was caught; what it belonged to has ended or begun anew.
#[derive(Debug)]
pub struct Panicked {
    /// One of [`labels::PLACES`](crate::telemetry::labels::PLACES).
    pub place: &'static str,
    /// The session, where it was one's.
    pub session: Option<SessionId>,
}

impl Event for Panicked {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().panics.with_label_values(&[self.place]).inc();
        if telemetry.may_log("panic", self.place, None) {
            let session = self.session.map(|id| id.0);
            tracing::error!(event = "panic", place = self.place, session, "a panic was caught in {}", self.place);
        }
    }
}

/// A thread of the relay has not answered in time, and the service manager is not told that all is well.
#[derive(Debug)]
pub struct WatchdogUnfed {
    /// The time that it had.
    pub patience: Duration,
}

impl Event for WatchdogUnfed {
    fn emit(self, _: &Telemetry) {
        tracing::error!(
            event = "watchdog_unfed",
            patience_seconds = self.patience.as_secs_f64(),
            "a thread does not answer: the service manager will restart the relay"
        );
    }
}

/// The relay ends: readiness says no, and sessions will be told to go.
#[derive(Debug)]
pub struct DrainStarted {
    /// Sessions that run.
    pub active: usize,
    /// How long clients are still accepted.
    pub delay: Duration,
    /// What sessions get from then on.
    pub timeout: Duration,
}

impl Event for DrainStarted {
    fn emit(self, telemetry: &Telemetry) {
        let Self { active, delay, timeout } = self;
        telemetry.metrics().draining.set(1);
        tracing::info!(
            event = "drain_started",
            active,
            delay_seconds = delay.as_secs_f64(),
            timeout_seconds = timeout.as_secs_f64(),
            "shutting down: {active} sessions will be told to go"
        );
    }
}

/// All sessions have ended.
#[derive(Debug)]
pub struct DrainFinished {
    /// Those that ended by themselves.
    pub ended: usize,
    /// Those that went when they were asked to connect anew.
    pub reconnected: usize,
    /// Those that were closed in their turn.
    pub closed: usize,
    /// Those that were cut when the time was over.
    pub cut: usize,
}

impl Event for DrainFinished {
    fn emit(self, _: &Telemetry) {
        let Self { ended, reconnected, closed, cut } = self;
        tracing::info!(
            event = "drain_finished",
            ended,
            reconnected,
            closed,
            cut,
            "{ended} sessions ended by themselves, {reconnected} when asked to connect anew, {closed} were closed in turn, {cut} were cut"
        );
    }
}

/// The process ends.
#[derive(Debug)]
pub struct Stopped {
    /// Its exit code.
    pub code: i32,
}

impl Event for Stopped {
    fn emit(self, _: &Telemetry) {
        tracing::info!(event = "stopped", code = self.code, "relay ends");
    }
}

/// The configuration is valid, and yet probably not what was meant.
#[derive(Debug)]
pub struct ConfigWarning<'a> {
    /// Path in the file, or variable.
    pub path: &'a str,
    /// What to look at.
    pub text: &'a str,
}

impl Event for ConfigWarning<'_> {
    fn emit(self, _: &Telemetry) {
        tracing::warn!(event = "config_warning", path = self.path, "{}", self.text);
    }
}
