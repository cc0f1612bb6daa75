//! Can an upstream be reached? Asked by /ready, answered from what dials and probes have found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::dial::Dialer;
use super::target::{Target, TargetId};

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

/// What is known of one upstream.
#[derive(Debug, Clone, Default)]
struct Known {
    /// When it was last reached.
    reached: Option<Instant>,
    /// The first failure since then, and the last one's kind.
    failing: Option<(Instant, &'static str)>,
    /// When it was last probed.
    probed: Option<Instant>,
}

impl Known {
    fn learn(&mut self, now: Instant, result: Result<(), &'static str>) {
        match result {
            Ok(()) => {
                self.reached = Some(now);
                self.failing = None;
            }
            Err(kind) => self.failing = Some((self.failing.map_or(now, |(since, _)| since), kind)),
        }
    }

    fn verdict(&self, now: Instant, fail_after: Duration) -> Verdict {
        match self.failing {
            None if self.reached.is_some() => Verdict::Reachable,
            None => Verdict::Unknown,
            Some((since, kind)) => {
                let since = now.saturating_duration_since(since);
                let grace = self.reached.is_some() && since < fail_after;
                if grace { Verdict::Reachable } else { Verdict::Unreachable { since, kind } }
            }
        }
    }
}

/// What is known of the upstreams together.
#[derive(Debug, Default)]
struct Knowledge {
    targets: Vec<Known>,
    probing: bool,
}

impl Knowledge {
    /// Whether to probe at `now`, and if so whom: the one that was not probed for the longest time. The caller then does.
    fn begin_probe(&mut self, now: Instant) -> Option<usize> {
        let fresh = |then: Option<Instant>| then.is_some_and(|then| now.saturating_duration_since(then) < PROBE_EVERY);
        let idle = |known: &Known| !(fresh(known.probed) || known.failing.is_none() && fresh(known.reached));
        if self.probing || !self.targets.iter().all(idle) {
            return None;
        }
        let (turn, known) = self.targets.iter_mut().enumerate().min_by_key(|(_, known)| known.probed)?;
        known.probed = Some(now);
        self.probing = true;
        Some(turn)
    }

    /// One reachable upstream is enough; else the one that failed last speaks.
    fn verdict(&self, now: Instant, fail_after: Duration) -> Verdict {
        let verdicts = self.targets.iter().map(|known| known.verdict(now, fail_after));
        verdicts.min_by_key(Verdict::rank).unwrap_or(Verdict::Unknown)
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
    targets: Vec<Arc<Target>>,
    fail_after: Duration,
    knowledge: Mutex<Knowledge>,
    /// Counts finished probes.
    finished: watch::Sender<u64>,
}

impl Shared {
    fn learn(&self, at: usize, result: Result<(), &'static str>) {
        if let Some(known) = self.knowledge().targets.get_mut(at) {
            known.learn(Instant::now(), result);
        }
    }

    fn knowledge(&self) -> MutexGuard<'_, Knowledge> {
        self.knowledge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reachability {
    /// Nothing is known yet. `fail_after`: how long no upstream must have been reachable to say so.
    pub fn new(dialer: Dialer, targets: Vec<Arc<Target>>, fail_after: Duration) -> Self {
        let (finished, _) = watch::channel(0);
        let knowledge = Mutex::new(Knowledge { targets: vec![Known::default(); targets.len()], probing: false });
        Self { shared: Arc::new(Shared { dialer, targets, fail_after, knowledge, finished }) }
    }

    /// The same for the targets of another configuration; what is known of those that stay is kept.
    #[must_use]
    pub fn changed(&self, dialer: Dialer, targets: Vec<Arc<Target>>, fail_after: Duration) -> Self {
        let new = Self::new(dialer, targets, fail_after);
        for (at, target) in new.shared.targets.iter().enumerate() {
            let known = self.shared.targets.iter().position(|old| old.id == target.id);
            let known = known.and_then(|at| self.shared.knowledge().targets.get(at).cloned());
            if let (Some(known), Some(new)) = (known, new.shared.knowledge().targets.get_mut(at)) {
                *new = known;
            }
        }
        new
    }

    /// A real dial ended: a success is as good as a probe. Tell of a failure only where it says something about the
    /// upstream.
    pub fn dialled(&self, target: TargetId, result: Result<(), &'static str>) {
        if let Some(at) = self.shared.targets.iter().position(|known| known.id == target) {
            self.shared.learn(at, result);
        }
    }

    /// What is known, without a probe.
    pub fn known(&self) -> Verdict {
        self.shared.knowledge().verdict(Instant::now(), self.shared.fail_after)
    }

    /// What is known, after a probe if none was made in the last [`PROBE_EVERY`]. Waits at most some 400 ms for it; a
    /// probe that takes longer goes on by itself, and the next question finds its result.
    pub async fn check(&self) -> Verdict {
        let mut finished = self.shared.finished.subscribe();
        let turn = self.shared.knowledge().begin_probe(Instant::now());
        if let Some(turn) = turn {
            tokio::spawn(probe(self.shared.clone(), turn));
        }
        if self.shared.knowledge().probing {
            timeout(PATIENCE, finished.changed()).await.ok();
        }
        self.known()
    }
}

/// Ends the probe however it ends.
struct Probing(Arc<Shared>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.knowledge().probing = false;
        self.0.finished.send_modify(|count| *count = count.wrapping_add(1));
    }
}

async fn probe(shared: Arc<Shared>, turn: usize) {
    let probing = Probing(shared);
    let shared = &probing.0;
    let Some(target) = shared.targets.get(turn) else {
        return;
    };
    let result = shared.dialer.connect(target).await.map(|_| ()).map_err(|error| error.kind());
    shared.learn(turn, result);
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
