//! The happenings: one struct each, which writes its log line and moves its metrics.
//!
//! In a log line `event` is the struct's name in small letters; a session's lines all carry `session`. Lines that a flood can
//! cause are throttled by reason: ten a second, then one that counts. The closing line of a session that relayed never is.

mod certificate;
mod hold;
mod operation;
mod service;
mod session;
mod upstream;

use super::Telemetry;
use super::throttle::Summary;

pub use certificate::{CertificateExpiring, CertificateLoaded, CertificateRefused};
pub use hold::{HoldOver, PublisherHeld, PublisherResumed, TakenOver};
pub use operation::{
    AdminAction, AdminListening, AdminRefused, ConfigChanged, ConfigLoaded, ConfigRejected, ConfigReloaded, UpgradeFailed,
    UpgradeReady, UpgradeStarted,
};
pub use service::{
    AcceptFailed, ConfigWarning, DrainFinished, DrainStarted, HttpListening, Listening, Panicked, Started, Stopped, WatchdogUnfed,
};
pub use session::{AddressFilled, AuthFailed, SessionEnded, SessionRefused, SessionRelaying, SocketRefused};
pub use upstream::{
    UpstreamCircuit, UpstreamConnected, UpstreamDialFailed, UpstreamHealth, UpstreamLoginFailed, UpstreamLost, UpstreamRefused,
    UpstreamRetry, UpstreamSpare,
};

/// Something that happened.
pub trait Event {
    /// Logs and counts it; called by [`Telemetry::emit`].
    fn emit(self, telemetry: &Telemetry);
}

/// What the throttle kept back.
pub(super) fn suppressed(summary: &Summary) {
    let top: Vec<String> = summary.top.iter().map(|(client, count)| format!("{client} ({count})")).collect();
    tracing::warn!(
        event = "lines_suppressed",
        about = summary.what,
        reason = summary.reason,
        count = summary.count,
        top = (!top.is_empty()).then(|| top.join(", ")),
        "{} more lines like this in the last second",
        summary.count
    );
}

#[cfg(test)]
#[path = "events/tests.rs"]
mod tests;
