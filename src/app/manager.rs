//! What does the service manager hear? (sd_notify(3); without one, nobody hears anything.)

use std::future::pending;
use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Relay;
use crate::telemetry::{Telemetry, events};

/// Clients are let in.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// The relay is ending; streams may go on for a while.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

/// Feeds the watchdog, for ever, and only while every thread of the relay answers: one worker that is stuck has its streams stuck,
/// which a restart cures and nothing else shows.
pub(super) async fn feed(relay: &Relay, telemetry: &Telemetry) {
    let Some(limit) = watchdog_enabled() else { return pending().await };
    feed_every(limit / 2, relay, telemetry).await;
}

async fn feed_every(half: Duration, relay: &Relay, telemetry: &Telemetry) {
    let mut beat = interval(half.max(Duration::from_millis(1)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        match timeout(half, relay.threads_answer()).await {
            Ok(true) => tell(NotifyState::Watchdog),
            Ok(false) | Err(_) => telemetry.emit(events::WatchdogUnfed { patience: half }),
        }
    }
}

fn tell(state: NotifyState<'_>) {
    // Nobody to tell is no fault, and one who cannot hear will find out by himself.
    let _ = notify(&[state]);
}
