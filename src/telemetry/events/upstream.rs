//! Happenings on the way to an upstream, and with it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::Event;
use super::session::millis;
use crate::telemetry::labels::{CLOSED, LOGIN, LOST, REFUSED, circuit_value};
use crate::telemetry::{SessionId, Telemetry};

/// A dial, or the handshake behind it, failed.
pub struct UpstreamDialFailed<'a> {
    /// The session it was for; none: a probe.
    pub session: Option<SessionId>,
    /// Label of the target.
    pub target: &'a str,
    /// One of [`labels::ERROR_TYPES`](crate::telemetry::labels::ERROR_TYPES).
    pub kind: &'static str,
    /// What went wrong, without secrets.
    pub error: &'a dyn Display,
    /// Which dial it was, from 1.
    pub attempt: u32,
}

impl Event for UpstreamDialFailed<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().upstream_errors.with_label_values(&[self.kind]).inc();
        if telemetry.may_log("upstream_dial_failed", self.kind, None) {
            tracing::warn!(
                event = "upstream_dial_failed",
                session = self.session.map(|id| id.0),
                upstream = self.target,
                kind = self.kind,
                error = %self.error,
                attempt = self.attempt,
                "the upstream could not be reached"
            );
        }
    }
}

/// A TCP connection to an upstream stands.
#[derive(Debug)]
pub struct UpstreamConnected<'a> {
    /// The session it is for; none: a probe.
    pub session: Option<SessionId>,
    /// Label of the target.
    pub target: &'a str,
    /// The address reached.
    pub address: SocketAddr,
    /// Look-up and connect.
    pub latency: Duration,
    /// The TLS handshake behind it, where there was one.
    pub tls: Option<Duration>,
    /// It was there already: no time was spent.
    pub spare: bool,
}

impl Event for UpstreamConnected<'_> {
    fn emit(self, telemetry: &Telemetry) {
        if !self.spare {
            telemetry.metrics().upstream_connect_duration.observe(self.latency.as_secs_f64());
        }
        self.tls.into_iter().for_each(|tls| telemetry.metrics().upstream_secured(tls));
        tracing::debug!(
            event = "upstream_connected",
            session = self.session.map(|id| id.0),
            upstream = self.target,
            upstream_addr = %self.address,
            latency_ms = millis(self.latency),
            tls_ms = self.tls.map(millis),
            spare = self.spare,
            "connected to the upstream"
        );
    }
}

/// What became of a spare connection that nobody has used yet.
#[derive(Debug)]
pub struct UpstreamSpare<'a> {
    /// Label of the target.
    pub target: &'a str,
    /// `made`, `failed` to be made, `stale` or `expired`.
    pub what: &'static str,
    /// Why it could not be made: a kind, and words without secrets.
    pub trouble: Option<(&'static str, &'a str)>,
}

impl Event for UpstreamSpare<'_> {
    fn emit(self, _: &Telemetry) {
        let (kind, error) = self.trouble.unzip();
        tracing::debug!(event = "upstream_spare", upstream = self.target, what = self.what, kind, error, "a spare connection");
    }
}

/// An upstream went away while it relayed.
pub struct UpstreamLost<'a> {
    /// The session.
    pub session: SessionId,
    /// Label of the target.
    pub target: &'a str,
    /// What went wrong, without secrets.
    pub error: &'a dyn Display,
}

impl Event for UpstreamLost<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().upstream_errors.with_label_values(&[LOST]).inc();
        if telemetry.may_log("upstream_lost", LOST, None) {
            tracing::warn!(
                event = "upstream_lost",
                session = self.session.0,
                upstream = self.target,
                error = %self.error,
                "the upstream went away while it relayed"
            );
        }
    }
}

/// Another dial follows after a wait.
#[derive(Debug)]
pub struct UpstreamRetry<'a> {
    /// The session.
    pub session: SessionId,
    /// Label of the target, where it is known already.
    pub target: Option<&'a str>,
    /// Which dial it will be, from 2.
    pub attempt: u32,
    /// The wait.
    pub delay: Duration,
}

impl Event for UpstreamRetry<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().upstream_retries.inc();
        if telemetry.may_log("upstream_retry", "retry", None) {
            tracing::info!(
                event = "upstream_retry",
                session = self.session.0,
                upstream = self.target,
                attempt = self.attempt,
                delay_ms = millis(self.delay),
                "the upstream will be dialled again"
            );
        }
    }
}

/// A circuit went from one state to another.
#[derive(Debug)]
pub struct UpstreamCircuit<'a> {
    /// Label of the target; one of those of [`Metrics::set_targets`](crate::telemetry::Metrics::set_targets).
    pub target: &'a str,
    /// Where it was: "closed", "open" or "half_open".
    pub from: &'static str,
    /// Where it is.
    pub to: &'static str,
    /// Failures in a row that led here.
    pub failures: u32,
}

impl Event for UpstreamCircuit<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().circuit_state.with_label_values(&[self.target]).set(circuit_value(self.to));
        let Self { target, from, to, failures } = self;
        if to == "open" {
            tracing::warn!(
                event = "upstream_circuit",
                upstream = target,
                from,
                to,
                failures,
                "the upstream's circuit is open: dials are refused"
            );
        } else {
            tracing::info!(event = "upstream_circuit", upstream = target, from, to, failures, "the upstream's circuit is {to}");
        }
    }
}

/// An upstream became well or unwell, by dials or checks: who chooses heeds it from now on.
#[derive(Debug)]
pub struct UpstreamHealth<'a> {
    /// Label of the target; one of those of [`Metrics::set_targets`](crate::telemetry::Metrics::set_targets).
    pub target: &'a str,
    /// What it is now.
    pub healthy: bool,
    /// Where it is unwell: one of [`labels::ERROR_TYPES`](crate::telemetry::labels::ERROR_TYPES).
    pub kind: Option<&'static str>,
    /// What went wrong, without secrets.
    pub error: Option<&'a str>,
}

impl Event for UpstreamHealth<'_> {
    fn emit(self, telemetry: &Telemetry) {
        let Self { target, healthy, kind, error } = self;
        telemetry.metrics().upstream_healthy.with_label_values(&[target]).set(i64::from(healthy));
        if healthy {
            tracing::info!(event = "upstream_health", upstream = target, healthy, "the upstream is well again");
        } else {
            tracing::warn!(
                event = "upstream_health",
                upstream = target,
                healthy,
                kind,
                error,
                "the upstream is not well: it is tried after the others"
            );
        }
    }
}

/// An upstream refused a publish or play by command, or by closing behind the handshake. It is well: no breaker counts this.
#[derive(Debug)]
pub struct UpstreamRefused<'a> {
    /// The session.
    pub session: SessionId,
    /// Label of the target.
    pub target: &'a str,
    /// Its code, a short word, or empty where it only closed. Its description may hold its stream key and is not shown.
    pub code: &'a str,
}

impl Event for UpstreamRefused<'_> {
    fn emit(self, telemetry: &Telemetry) {
        let kind = if self.code.is_empty() { CLOSED } else { REFUSED };
        telemetry.metrics().upstream_errors.with_label_values(&[kind]).inc();
        if telemetry.may_log("upstream_refused", kind, None) {
            tracing::warn!(
                event = "upstream_refused",
                session = self.session.0,
                upstream = self.target,
                kind,
                code = self.code,
                "the upstream refused the stream"
            );
        }
    }
}

/// An upstream asked who we are, and did not let us in. It is well: no breaker counts this.
pub struct UpstreamLoginFailed<'a> {
    /// The session.
    pub session: SessionId,
    /// Label of the target.
    pub target: &'a str,
    /// Why, without a word of either side.
    pub error: &'a dyn Display,
}

impl Event for UpstreamLoginFailed<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().upstream_errors.with_label_values(&[LOGIN]).inc();
        if telemetry.may_log("upstream_login_failed", LOGIN, None) {
            tracing::warn!(
                event = "upstream_login_failed",
                session = self.session.0,
                upstream = self.target,
                error = %self.error,
                "the upstream does not let the relay in"
            );
        }
    }
}
