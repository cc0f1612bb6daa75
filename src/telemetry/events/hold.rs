//! Happenings of a publisher whose upstream goes away, and of one that another takes the place of.

use std::time::Duration;

use super::Event;
use super::session::millis;
use crate::telemetry::labels::LOST;
use crate::telemetry::{SessionCell, Telemetry};

/// A publisher's upstream went away; its client is kept.
#[derive(Debug)]
pub struct PublisherHeld<'a> {
    /// The session and what is known of it.
    pub cell: &'a SessionCell,
    /// Label of the target.
    pub target: &'a str,
    /// How it went, without secrets.
    pub error: &'a str,
}

impl Event for PublisherHeld<'_> {
    fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.upstream_errors.with_label_values(&[LOST]).inc();
        metrics.publish_holds.inc();
        if telemetry.may_log("publisher_held", LOST, None) {
            let facts = self.cell.facts();
            tracing::warn!(
                event = "publisher_held",
                session = self.cell.id.0,
                client = %self.cell.client(),
                app = facts.app,
                stream = facts.stream,
                fingerprint = facts.fingerprint,
                upstream = self.target,
                error = self.error,
                "the upstream went away while it relayed; the publisher is kept, and another upstream is looked for"
            );
        }
    }
}

/// The stream of a publisher that was held passes again.
#[derive(Debug)]
pub struct PublisherResumed<'a> {
    /// The session and what is known of it.
    pub cell: &'a SessionCell,
    /// Label of the target.
    pub target: &'a str,
    /// From the old upstream's end until the new one took the stream.
    pub gap: Duration,
    /// Bytes that were held and go to it.
    pub held: usize,
    /// Groups of pictures that were dropped for want of room.
    pub dropped: u64,
}

impl Event for PublisherResumed<'_> {
    fn emit(self, telemetry: &Telemetry) {
        over(telemetry, "resumed", self.gap, self.dropped);
        if telemetry.may_log("publisher_resumed", "resumed", None) {
            let facts = self.cell.facts();
            tracing::info!(
                event = "publisher_resumed",
                session = self.cell.id.0,
                client = %self.cell.client(),
                app = facts.app,
                stream = facts.stream,
                fingerprint = facts.fingerprint,
                upstream = self.target,
                gap_ms = millis(self.gap),
                held_bytes = self.held,
                dropped_groups = self.dropped,
                "the stream passes again"
            );
        }
    }
}

/// A publisher was held in vain, or ended meanwhile.
#[derive(Debug)]
pub struct HoldOver<'a> {
    /// The session and what is known of it.
    pub cell: &'a SessionCell,
    /// One of [`labels::HOLDS`](crate::telemetry::labels::HOLDS).
    pub result: &'static str,
    /// How long it was held.
    pub after: Duration,
    /// Groups of pictures that were dropped for want of room.
    pub dropped: u64,
}

impl Event for HoldOver<'_> {
    fn emit(self, telemetry: &Telemetry) {
        over(telemetry, self.result, self.after, self.dropped);
        // The closing line says how a session ended that its client ended.
        if self.result != "ended" && telemetry.may_log("publish_hold_over", self.result, None) {
            tracing::warn!(
                event = "publish_hold_over",
                session = self.cell.id.0,
                client = %self.cell.client(),
                result = self.result,
                after_ms = millis(self.after),
                dropped_groups = self.dropped,
                "no upstream took the stream: the publisher is told, and closed"
            );
        }
    }
}

fn over(telemetry: &Telemetry, result: &'static str, after: Duration, dropped: u64) {
    let metrics = telemetry.metrics();
    metrics.publish_holds_over.with_label_values(&[result]).inc();
    metrics.publish_hold_duration.observe(after.as_secs_f64());
    metrics.publish_hold_dropped_groups.inc_by(dropped);
}

/// A client publishes a stream that another connection had until now.
#[derive(Debug)]
pub struct TakenOver<'a> {
    /// The new session and what is known of it.
    pub cell: &'a SessionCell,
}

impl Event for TakenOver<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().takeovers.inc();
        if telemetry.may_log("stream_taken_over", "taken_over", Some(self.cell.client().ip())) {
            let facts = self.cell.facts();
            tracing::info!(
                event = "stream_taken_over",
                session = self.cell.id.0,
                client = %self.cell.client(),
                app = facts.app,
                stream = facts.stream,
                fingerprint = facts.fingerprint,
                token = facts.token_name,
                "the stream is taken over from an earlier connection, which is ended"
            );
        }
    }
}
