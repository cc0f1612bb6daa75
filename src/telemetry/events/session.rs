//! Happenings of one client's session.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Event;
use crate::telemetry::labels::{AUTH, HARD_CAP, MAX_PER_IP, MAX_TOTAL, RATE_LIMIT};
use crate::telemetry::{Metrics, SessionCell, SessionId, Side, Status, Telemetry};

/// A socket was closed at accept, before there was a session. Also counts its connection as rejected.
#[derive(Debug)]
pub struct SocketRefused {
    /// Its address.
    pub client: SocketAddr,
    /// The label.
    pub reason: &'static str,
}

impl Event for SocketRefused {
    fn emit(self, telemetry: &Telemetry) {
        count_refusal(telemetry.metrics(), self.reason);
        telemetry.metrics().connections.with_label_values(&[Status::Rejected.as_str()]).inc();
        if telemetry.may_log("socket_refused", self.reason, Some(self.client.ip())) {
            tracing::warn!(event = "socket_refused", client = %self.client, reason = self.reason, "a connection was closed at once");
        }
    }
}

/// A client is not let in. Its connection is counted when the session ends.
#[derive(Debug)]
pub struct SessionRefused<'a> {
    /// The session.
    pub session: SessionId,
    /// The client's address.
    pub client: SocketAddr,
    /// The label.
    pub reason: &'static str,
    /// What the client is told; holds no secret.
    pub text: &'a str,
}

impl Event for SessionRefused<'_> {
    fn emit(self, telemetry: &Telemetry) {
        count_refusal(telemetry.metrics(), self.reason);
        if telemetry.may_log("session_refused", self.reason, Some(self.client.ip())) {
            tracing::warn!(
                event = "session_refused",
                session = self.session.0,
                client = %self.client,
                reason = self.reason,
                "{}", self.text
            );
        }
    }
}

/// A client's token is missing or wrong. Emit this in place of [`SessionRefused`]. Nothing of the client's names may be in
/// it: what was no token a moment ago may be one with a typing error.
#[derive(Debug)]
pub struct AuthFailed<'a> {
    /// The session.
    pub session: SessionId,
    /// The client's address.
    pub client: SocketAddr,
    /// "publish" or "play".
    pub action: &'static str,
    /// What the client is told; holds no secret.
    pub text: &'a str,
}

impl Event for AuthFailed<'_> {
    fn emit(self, telemetry: &Telemetry) {
        count_refusal(telemetry.metrics(), AUTH);
        if telemetry.may_log("auth_failed", AUTH, Some(self.client.ip())) {
            tracing::warn!(
                event = "auth_failed",
                session = self.session.0,
                client = %self.client,
                action = self.action,
                reason = AUTH,
                "{}", self.text
            );
        }
    }
}

fn count_refusal(metrics: &Metrics, reason: &'static str) {
    metrics.rejections.with_label_values(&[reason]).inc();
    match reason {
        RATE_LIMIT => metrics.rate_limit_rejections.inc(),
        MAX_TOTAL | MAX_PER_IP | HARD_CAP => metrics.connection_limit_rejections.inc(),
        AUTH => metrics.auth_failures.inc(),
        _ => {}
    }
}

/// One address has taken all the places that an address may take.
#[derive(Debug)]
pub struct AddressFilled {
    /// The session that took the last, or found none left.
    pub session: SessionId,
    /// Its address.
    pub client: SocketAddr,
}

impl Event for AddressFilled {
    fn emit(self, telemetry: &Telemetry) {
        if telemetry.may_log("address_filled", MAX_PER_IP, Some(self.client.ip())) {
            tracing::warn!(
                event = "address_filled",
                session = self.session.0,
                client = %self.client,
                "one address has filled connection_limit.max_per_ip; behind a load balancer all clients have its address, unless it \
                 sends PROXY headers and security.trusted_proxies names it"
            );
        }
    }
}

/// Bytes begin to pass.
#[derive(Debug)]
pub struct SessionRelaying<'a> {
    /// The session and what is known of it.
    pub cell: &'a SessionCell,
    /// From accept until now.
    pub setup: Duration,
}

impl Event for SessionRelaying<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().session_setup_duration.observe(self.setup.as_secs_f64());
        let (cell, facts) = (self.cell, self.cell.facts());
        tracing::info!(
            event = "session_relaying",
            session = cell.id.0,
            client = %cell.client(),
            proxy = cell.proxy().map(tracing::field::display),
            protocol = facts.protocol,
            action = facts.action,
            app = facts.app,
            stream = facts.stream,
            fingerprint = facts.fingerprint,
            token = facts.token_name,
            upstream = facts.upstream,
            upstream_addr = facts.upstream_addr.map(tracing::field::display),
            setup_ms = millis(self.setup),
            "the stream passes"
        );
    }
}

/// A session has ended. Emitted exactly once for each, whatever came before.
#[derive(Debug)]
pub struct SessionEnded<'a> {
    /// The session and what is known of it.
    pub cell: &'a SessionCell,
    /// Who ended it.
    pub side: Side,
    /// Why: one word of a bounded set.
    pub reason: &'static str,
    /// How it counts.
    pub status: Status,
    /// Whether bytes had begun to pass.
    pub relayed: bool,
    /// More words, without secrets.
    pub detail: Option<&'a str>,
    /// The time now.
    pub now: Instant,
}

impl Event for SessionEnded<'_> {
    fn emit(self, telemetry: &Telemetry) {
        self.count(telemetry.metrics());
        let client = self.cell.client().ip();
        // The closing line of a session that relayed is always written.
        let failed = || self.status == Status::Error && telemetry.may_log("session_ended", self.reason, Some(client));
        if self.relayed || failed() { self.log_whole() } else { self.log_short() }
    }
}

impl SessionEnded<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.sessions_ended.with_label_values(&[self.side.as_str(), self.reason]).inc();
        match self.status {
            Status::Empty => metrics.empty_connections.inc(),
            Status::Success | Status::Error | Status::Rejected => {
                metrics.connections.with_label_values(&[self.status.as_str()]).inc();
            }
        }
        if matches!(self.status, Status::Success | Status::Error) {
            metrics.connection_duration.observe(self.duration().as_secs_f64());
        }
    }

    fn duration(&self) -> Duration {
        self.now.saturating_duration_since(self.cell.started)
    }

    fn log_whole(&self) {
        let (cell, facts) = (self.cell, self.cell.facts());
        tracing::info!(
            event = "session_ended",
            session = cell.id.0,
            client = %cell.client(),
            proxy = cell.proxy().map(tracing::field::display),
            side = self.side.as_str(),
            reason = self.reason,
            status = self.status.as_str(),
            detail = self.detail,
            duration_ms = millis(self.duration()),
            bytes_upstream = cell.to_upstream.bytes.get(),
            bytes_downstream = cell.to_client.bytes.get(),
            messages_upstream = cell.to_upstream.messages.get(),
            messages_downstream = cell.to_client.messages.get(),
            action = facts.action,
            app = facts.app,
            stream = facts.stream,
            fingerprint = facts.fingerprint,
            token = facts.token_name,
            upstream = facts.upstream,
            upstream_addr = facts.upstream_addr.map(tracing::field::display),
            "the session has ended"
        );
    }

    /// The refusal has been told already, and an empty connection says nothing.
    fn log_short(&self) {
        tracing::debug!(
            event = "session_ended",
            session = self.cell.id.0,
            client = %self.cell.client(),
            side = self.side.as_str(),
            reason = self.reason,
            status = self.status.as_str(),
            detail = self.detail,
            duration_ms = millis(self.duration()),
            "the session has ended"
        );
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
