//! How does a relay empty without hurting anybody?
//!
//! Readiness says no at once; clients are accepted for `drain.delay` more, since load balancers notice late; then the doors close, and
//! sessions are told to go one by one over `drain.spread`. Whoever is left `shutdown_timeout` after the doors were closed is cut.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::relay::Relay;
use crate::admission::supervisor::{self, Kick, Manner};
use crate::listener;
use crate::telemetry::{SessionCell, SessionId, Side, collector, events};

/// How often it is looked whether everybody has left.
const LOOK: Duration = Duration::from_millis(20);
/// How long sessions that were told to end may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(8);
/// How long a publisher's next key frame is waited for: encoders send one every 2 to 10 s.
const KEY_FRAME: Duration = Duration::from_secs(10);
/// The label of a session that went in its turn.
const DRAINED: &str = "drained";
/// The label of one that was cut.
const CUT: &str = "shutdown";

/// Why the relay empties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It was told to end.
    Told,
    /// Another process accepts in its place: nobody has to notice first.
    Replaced,
    /// Nobody comes in any more, whatever it does.
    Failed,
}

impl Relay {
    /// Lets nobody in any more, tells sessions to go, cuts those that are left.
    pub async fn drain(&self, why: Leaving) {
        let config = self.outfit.load().config.clone();
        self.readiness.drain();
        let (delay, patience) = (config.drain.delay, config.timeouts.shutdown);
        let (telemetry, active) = (&self.staff.telemetry, self.active().await);
        telemetry.emit(events::DrainStarted { active, delay, timeout: patience });
        if why == Leaving::Told {
            sleep(delay).await;
        }
        let _ = self.listener.send(listener::Stop).await;
        let _ = self.staff.supervisor.send(supervisor::Drain).await;
        let deadline = Instant::now() + patience;
        let drained = || telemetry.metrics().ended(Side::Relay, DRAINED);
        let before = drained();
        let cells = self.sessions().await;
        let mut told = Told { all: cells.len(), asked: HashSet::new() };
        let all_told = async {
            // Streams that run have no part in a failure: they may end by themselves.
            if why != Leaving::Failed {
                self.tell_to_go(&cells, &mut told, config.drain.spread, deadline).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = all_told => {}
            _ = timeout_at(deadline, self.emptied()) => {}
        }
        let left = self.sessions().await;
        let cut = self.staff.supervisor.send(supervisor::KickAll { reason: CUT }).await.unwrap_or(0);
        let _ = timeout(GOODBYE, self.emptied()).await;
        // The last bytes, and what the log's throttle still keeps back.
        let _ = self.actors.collector.send(collector::Tick).await;
        let closed = usize::try_from(drained().saturating_sub(before)).unwrap_or(usize::MAX);
        let still_there = left.iter().filter(|cell| told.asked.contains(&cell.id)).count();
        let reconnected = told.asked.len().saturating_sub(still_there);
        let ended = told.all.saturating_sub(closed + reconnected + cut);
        telemetry.emit(events::DrainFinished { ended, reconnected, closed, cut });
    }

    /// Tells everybody in the order of admission, evenly over `spread`, and not beyond `deadline`.
    async fn tell_to_go(&self, cells: &[Arc<SessionCell>], told: &mut Told, spread: Duration, deadline: Instant) {
        let began = Instant::now();
        let turn = |at: usize| began + spread.mul_f64(at as f64 / cells.len().max(1) as f64);
        let mut next = 0;
        while next < cells.len() && turn(next) < deadline {
            sleep_until(turn(next)).await;
            // Whose turn is near goes along: with thousands, a timer for each would be all that the relay does.
            let soon = Instant::now() + LOOK;
            let end = (next + 1..cells.len()).find(|&at| turn(at) > soon).unwrap_or(cells.len());
            self.tell_these(&cells[next..end], told, deadline).await;
            next = end;
        }
    }

    async fn tell_these(&self, cells: &[Arc<SessionCell>], told: &mut Told, deadline: Instant) {
        let (asked, closed): (Vec<_>, Vec<_>) = cells.iter().partition(|cell| cell.facts().reconnects);
        let ids = |cells: Vec<&Arc<SessionCell>>| cells.iter().map(|cell| cell.id).collect::<HashSet<SessionId>>();
        let (asked, closed) = (ids(asked), ids(closed));
        let within = KEY_FRAME.min(deadline.saturating_duration_since(Instant::now()));
        told.asked.extend(&asked);
        for (sessions, manner) in [(asked, Manner::Reconnect), (closed, Manner::AtKeyFrame(within))] {
            if !sessions.is_empty() {
                let kick = Kick { reason: DRAINED, manner };
                let _ = self.staff.supervisor.send(supervisor::KickSome { sessions, kick }).await;
            }
        }
    }

    async fn sessions(&self) -> Vec<Arc<SessionCell>> {
        self.staff.supervisor.send(supervisor::Snapshot).await.map(|standing| standing.sessions).unwrap_or_default()
    }

    async fn emptied(&self) {
        while self.active().await > 0 {
            sleep(LOOK).await;
        }
    }
}

/// Who was told.
struct Told {
    /// Sessions there were when the doors closed.
    all: usize,
    /// Those of them that were asked to connect anew.
    asked: HashSet<SessionId>,
}
