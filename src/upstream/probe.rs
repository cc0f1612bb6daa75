//! Can an upstream be reached? Asked by /ready, answered from what dials, checks and probes have found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::dial::Dialer;
use super::health::Health;
use super::target::Target;
use super::vital::{Depth, Trouble, Vital};

/// At most one probe in this time; a real dial counts as one.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How long one question waits for the probe that it began.
const PATIENCE: Duration = Duration::from_millis(400);

/// Whether streams have somewhere to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An upstream was reached, or has not failed for long enough to say otherwise.
    Reachable,
    /// None has been reached yet.
    Unknown,
    /// None has been reachable for longer than `ready.fail_after`.
    Unreachable {
        /// For how long.
        since: Duration,
        /// The label of the last failure.
        kind: &'static str,
    },
}

/// The word on one target.
fn verdict(vital: &Vital, now: Instant, fail_after: Duration) -> Verdict {
    match vital.failing() {
        None if vital.reached().is_some() => Verdict::Reachable,
        None => Verdict::Unknown,
        Some((since, kind)) => {
            let since = now.saturating_duration_since(since);
            let grace = vital.reached().is_some() && since < fail_after;
            if grace { Verdict::Reachable } else { Verdict::Unreachable { since, kind } }
        }
    }
}

/// One reachable upstream is enough; else the one that failed last speaks.
fn sum(vitals: &[Vital], now: Instant, fail_after: Duration) -> Verdict {
    let verdicts = vitals.iter().map(|vital| verdict(vital, now, fail_after));
    verdicts.min_by_key(Verdict::rank).unwrap_or(Verdict::Unknown)
}

/// Whose turn it is to be probed.
#[derive(Debug)]
struct Probes {
    /// When each was last probed.
    probed: Vec<Option<Instant>>,
    probing: bool,
}

impl Probes {
    /// Whether to probe at `now`, and if so whom: the one that was not probed for the longest time. The caller then does.
    fn begin(&mut self, vitals: &[Vital], now: Instant) -> Option<usize> {
        let fresh = |then: Option<Instant>| then.is_some_and(|then| now.saturating_duration_since(then) < PROBE_EVERY);
        let known = |vital: &Vital| vital.failing().is_none() && fresh(vital.reached());
        if self.probing || self.probed.iter().any(|probed| fresh(*probed)) || vitals.iter().any(known) {
            return None;
        }
        let (turn, probed) = self.probed.iter_mut().enumerate().min_by_key(|(_, probed)| **probed)?;
        *probed = Some(now);
        self.probing = true;
        Some(turn)
    }
}

impl Verdict {
    fn rank(&self) -> (u8, Duration) {
        match self {
            Self::Reachable => (0, Duration::ZERO),
            Self::Unknown => (1, Duration::ZERO),
            Self::Unreachable { since, .. } => (2, *since),
        }
    }
}

/// The shared answer. Cheap to clone.
#[derive(Clone)]
pub struct Reachability {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    health: Health,
    targets: Vec<Arc<Target>>,
    fail_after: Duration,
    /// None: checks find out, and nobody probes.
    probes: Option<Mutex<Probes>>,
    /// Counts finished probes.
    finished: watch::Sender<u64>,
}

impl Shared {
    fn begin_probe(&self) -> Option<usize> {
        locked(self.probes.as_ref()?).begin(&self.health.vitals(), Instant::now())
    }

    fn probing(&self) -> bool {
        self.probes.as_ref().is_some_and(|probes| locked(probes).probing)
    }
}

fn locked(probes: &Mutex<Probes>) -> MutexGuard<'_, Probes> {
    probes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reachability {
    /// What `health` knows of `targets`. `fail_after`: how long no upstream must have been reachable to say so; `probes`: whether to
    /// find out where nobody else does.
    pub fn new(dialer: Dialer, health: Health, targets: Vec<Arc<Target>>, fail_after: Duration, probes: bool) -> Self {
        let (finished, _) = watch::channel(0);
        let probes = probes.then(|| Mutex::new(Probes { probed: vec![None; targets.len()], probing: false }));
        Self { shared: Arc::new(Shared { dialer, health, targets, fail_after, probes, finished }) }
    }

    /// What is known, without a probe.
    pub fn known(&self) -> Verdict {
        sum(&self.shared.health.vitals(), Instant::now(), self.shared.fail_after)
    }

    /// What is known, after a probe if none was made in the last [`PROBE_EVERY`]. Waits at most some 400 ms for it; a
    /// probe that takes longer goes on by itself, and the next question finds its result.
    pub async fn check(&self) -> Verdict {
        let mut finished = self.shared.finished.subscribe();
        if let Some(turn) = self.shared.begin_probe() {
            tokio::spawn(probe(self.shared.clone(), turn));
        }
        if self.shared.probing() {
            timeout(PATIENCE, finished.changed()).await.ok();
        }
        self.known()
    }
}

/// Ends the probe however it ends.
struct Probing(Arc<Shared>);

impl Drop for Probing {
    fn drop(&mut self) {
        if let Some(probes) = &self.0.probes {
            locked(probes).probing = false;
        }
        self.0.finished.send_modify(|count| *count = count.wrapping_add(1));
    }
}

async fn probe(shared: Arc<Shared>, turn: usize) {
    let probing = Probing(shared);
    let shared = &probing.0;
    let Some(target) = shared.targets.get(turn) else {
        return;
    };
    let result = shared.dialer.connect_unqueued(target).await;
    shared.health.dialled(target.id, result.map(|_| Depth::Connection).map_err(|error| Trouble::new(error.kind(), error)));
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
