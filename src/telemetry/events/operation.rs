//! What operators do to a relay that runs: new configurations, orders, a new binary.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use super::Event;
use crate::telemetry::{Metrics, Telemetry};

/// The configuration that the relay starts with was loaded.
#[derive(Debug)]
pub struct ConfigLoaded<'a> {
    /// The file, or "the environment".
    pub source: &'a str,
    /// Its digest.
    pub hash: &'a str,
}

impl Event for ConfigLoaded<'_> {
    fn emit(self, telemetry: &Telemetry) {
        succeeded(telemetry.metrics());
        tracing::info!(event = "config_loaded", source = self.source, hash = self.hash, "the configuration is loaded");
    }
}

fn succeeded(metrics: &Metrics) {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics.config_loaded.set(now.as_secs_f64());
    metrics.config_successful.set(1);
}

/// One key of a new configuration differs.
#[derive(Debug)]
pub struct ConfigChanged<'a> {
    /// The key.
    pub path: &'a str,
    /// "live", "new_sessions" or "needs_restart".
    pub effect: &'static str,
    /// From what to what, without secrets.
    pub text: &'a str,
}

impl Event for ConfigChanged<'_> {
    fn emit(self, _: &Telemetry) {
        let Self { path, effect, text } = self;
        if effect == "needs_restart" {
            tracing::warn!(event = "config_changed", path, effect, "{path}: {text}; this needs a restart and is left as it was");
        } else {
            tracing::info!(event = "config_changed", path, effect, "{path}: {text}");
        }
    }
}

/// A new configuration runs, or the file says what ran already.
#[derive(Debug)]
pub struct ConfigReloaded<'a> {
    /// What asked for it: "signal", "watch" or "admin".
    pub by: &'static str,
    /// "applied" or "unchanged".
    pub result: &'static str,
    /// Keys that changed.
    pub changed: usize,
    /// Keys that would have needed a restart, and were left.
    pub left: usize,
    /// Sessions whose token is there no more, and that were told to end.
    pub revoked: usize,
    /// The new digest.
    pub hash: &'a str,
}

impl Event for ConfigReloaded<'_> {
    fn emit(self, telemetry: &Telemetry) {
        let Self { by, result, changed, left, revoked, hash } = self;
        telemetry.metrics().config_reloads.with_label_values(&[result]).inc();
        succeeded(telemetry.metrics());
        tracing::info!(event = "config_reloaded", by, result, changed, left, revoked, hash, "the configuration was read again");
    }
}

/// A new configuration is not used; everything stays as it was.
#[derive(Debug)]
pub struct ConfigRejected<'a> {
    /// As in [`ConfigReloaded`].
    pub by: &'static str,
    /// "invalid" or "refused".
    pub result: &'static str,
    /// Everything that is wrong, without secrets.
    pub error: &'a str,
}

impl Event for ConfigRejected<'_> {
    fn emit(self, telemetry: &Telemetry) {
        let Self { by, result, error } = self;
        telemetry.metrics().config_reloads.with_label_values(&[result]).inc();
        telemetry.metrics().config_successful.set(0);
        tracing::error!(event = "config_rejected", by, result, error, "the new configuration is not used: nothing has changed");
    }
}

/// /admin answers.
#[derive(Debug)]
pub struct AdminListening {
    /// The bound address.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether a token is asked for.
    pub token: bool,
}

impl Event for AdminListening {
    fn emit(self, _: &Telemetry) {
        let Self { address, tls, token } = self;
        tracing::info!(event = "admin_listening", %address, tls, token, "/admin answers");
    }
}

/// Somebody asked for something to be done.
#[derive(Debug)]
pub struct AdminAction<'a> {
    /// Who: the address.
    pub client: Option<SocketAddr>,
    /// Who: "token", or "loopback" where none is asked for.
    pub credential: &'static str,
    /// What: one of [`labels::ADMIN_ACTIONS`](crate::telemetry::labels::ADMIN_ACTIONS).
    pub action: &'static str,
    /// To what: a session's number, a target's number or name.
    pub object: Option<&'a str>,
    /// How it was answered, as a status code; `None` for whoever was gone before.
    pub status: Option<u16>,
}

impl Event for AdminAction<'_> {
    fn emit(self, telemetry: &Telemetry) {
        let Self { client, credential, action, object, status } = self;
        let result = match status {
            Some(200..=299) => "done",
            Some(300..=499) => "refused",
            Some(_) => "failed",
            None => "left",
        };
        telemetry.metrics().admin_actions.with_label_values(&[action, result]).inc();
        let client = client.map(tracing::field::display);
        tracing::warn!(
            event = "admin_action",
            client,
            credential,
            action,
            object,
            status,
            result,
            "an operator asked for something"
        );
    }
}

/// Somebody asked who may not.
#[derive(Debug)]
pub struct AdminRefused {
    /// The address.
    pub client: Option<SocketAddr>,
    /// Why, as one word.
    pub reason: &'static str,
}

impl Event for AdminRefused {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().admin_refusals.with_label_values(&[self.reason]).inc();
        if telemetry.may_log("admin_refused", self.reason, self.client.map(|client| client.ip())) {
            let client = self.client.map(tracing::field::display);
            tracing::warn!(event = "admin_refused", client, reason = self.reason, "a request to /admin was refused");
        }
    }
}

/// A new process is started, to take the listening sockets.
#[derive(Debug)]
pub struct UpgradeStarted {
    /// Its number.
    pub pid: u32,
    /// What it gets to become ready.
    pub timeout: Duration,
}

impl Event for UpgradeStarted {
    fn emit(self, _: &Telemetry) {
        let timeout_seconds = self.timeout.as_secs_f64();
        tracing::info!(event = "upgrade_started", pid = self.pid, timeout_seconds, "a new process gets the listening sockets");
    }
}

/// The new process serves; this one drains.
#[derive(Debug)]
pub struct UpgradeReady {
    /// Its number.
    pub pid: u32,
}

impl Event for UpgradeReady {
    fn emit(self, _: &Telemetry) {
        tracing::info!(event = "upgrade_ready", pid = self.pid, "the new process serves: this one drains");
    }
}

/// The new process is none; this one goes on.
#[derive(Debug)]
pub struct UpgradeFailed<'a> {
    /// Why.
    pub error: &'a str,
}

impl Event for UpgradeFailed<'_> {
    fn emit(self, _: &Telemetry) {
        tracing::error!(event = "upgrade_failed", error = self.error, "no new process took over: this one goes on");
    }
}
