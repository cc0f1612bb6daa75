//! How a session tells what happens to it.

use std::time::{Duration, Instant};

use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use crate::admission::Granted;
use crate::protocol::name::{Action, Identity};
use crate::telemetry::{Facts, events};
use crate::upstream::{Connected, Step, Target};

pub(super) fn refused(place: &Place, reason: &'static str, text: &str) {
    let (session, client) = (place.cell.id, place.cell.client());
    place.shared.telemetry.emit(events::SessionRefused { session, client, reason, text });
}

pub(super) fn address_filled(place: &Place) {
    place.shared.telemetry.emit(events::AddressFilled { session: place.cell.id, client: place.cell.client() });
}

pub(super) fn unauthorised(place: &Place, action: Action, text: &str) {
    let (session, client) = (place.cell.id, place.cell.client());
    place.shared.telemetry.emit(events::AuthFailed { session, client, action: action.as_str(), text });
}

/// A login that failed, before it is known what for.
pub(super) fn login_failed(place: &Place, text: &str) {
    let (session, client) = (place.cell.id, place.cell.client());
    place.shared.telemetry.emit(events::AuthFailed { session, client, action: "connect", text });
}

/// What is known once the client is: names as the log may show them.
pub(super) fn identify(place: &Place, facts: &mut Facts, action: Action, identity: &Identity, granted: &Granted) {
    let shown = place.shared.telemetry.shown(&identity.app, &identity.stream);
    facts.action = Some(action.as_str());
    facts.app = Some(shown.app);
    facts.stream = Some(shown.stream);
    facts.fingerprint = Some(shown.fingerprint);
    facts.token_name = granted.token_name.as_ref().map(ToString::to_string);
    facts.token = granted.token.map(|token| token.0);
}

/// Tells each step of a search for an upstream.
pub(super) fn steps(place: &Place) -> impl FnMut(Step<'_>) {
    let mut made = 0;
    move |step| match step {
        Step::Failed { target, error, attempt } => dial_failed(place, target, error.kind(), error, attempt),
        Step::Waiting(delay) if made > 0 => {
            let (session, attempt) = (place.cell.id, made + 1);
            place.shared.telemetry.emit(events::UpstreamRetry { session, target: None, attempt, delay });
        }
        // Said once by the circuit itself, not by each session that meets it.
        Step::Dialing { attempt, .. } => made = attempt,
        Step::NotNow(_) | Step::Waiting(_) => {}
    }
}

pub(super) fn dial_failed(place: &Place, target: &Target, kind: &'static str, error: &dyn std::fmt::Display, attempt: u32) {
    let event = events::UpstreamDialFailed { session: Some(place.cell.id), target: &target.label, kind, error, attempt };
    place.shared.telemetry.emit(event);
}

pub(super) fn connected(place: &Place, target: &Target, connected: &Connected) {
    let (session, address) = (Some(place.cell.id), connected.addr);
    let (latency, tls) = (connected.took, connected.tls_took);
    place.shared.telemetry.emit(events::UpstreamConnected {
        session,
        target: &target.label,
        address,
        latency,
        tls,
        spare: connected.spare.is_some(),
    });
}

pub(super) fn upstream_refused(place: &Place, target: &Target, code: &str) {
    place.shared.telemetry.emit(events::UpstreamRefused { session: place.cell.id, target: &target.label, code });
}

pub(super) fn upstream_login_failed(place: &Place, target: &Target, error: &dyn std::fmt::Display) {
    place.shared.telemetry.emit(events::UpstreamLoginFailed { session: place.cell.id, target: &target.label, error });
}

pub(super) fn relaying(place: &Place) {
    place.shared.telemetry.emit(events::SessionRelaying { cell: &place.cell, setup: place.cell.started.elapsed() });
}

pub(super) fn held(place: &Place, target: &Target, error: &str) {
    place.shared.telemetry.emit(events::PublisherHeld { cell: &place.cell, target: &target.label, error });
}

pub(super) fn resumed(place: &Place, target: &Target, gap: Duration, held: usize, dropped: u64) {
    let event = events::PublisherResumed { cell: &place.cell, target: &target.label, gap, held, dropped };
    place.shared.telemetry.emit(event);
}

pub(super) fn hold_over(place: &Place, result: &'static str, after: Duration, dropped: u64) {
    place.shared.telemetry.emit(events::HoldOver { cell: &place.cell, result, after, dropped });
}

pub(super) fn taking_over(place: &Place) {
    place.shared.telemetry.emit(events::TakenOver { cell: &place.cell });
}

pub(super) fn panicked(place: &Place) {
    place.shared.telemetry.emit(events::Panicked { place: "session", session: Some(place.cell.id) });
}

/// The one closing line, and the one count in connections_total.
pub(super) fn ended(place: &Place, outcome: &Outcome, now: Instant) {
    let cell = &place.cell;
    if outcome.relayed && !outcome.held && outcome.side == Side::Upstream && outcome.status == Status::Error {
        let target = cell.facts().upstream.unwrap_or_default();
        let error = outcome.detail.as_deref().unwrap_or("it closed the connection while a client was publishing");
        place.shared.telemetry.emit(events::UpstreamLost { session: cell.id, target: &target, error: &error });
    }
    place.shared.telemetry.emit(events::SessionEnded {
        cell,
        side: outcome.side,
        reason: outcome.reason,
        status: outcome.status,
        relayed: outcome.relayed,
        detail: outcome.detail.as_deref(),
        now,
    });
}
