//! Is there a connection already? Spare ones to each target: connected, private where the URL asks for it, and past the RTMP handshake.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::ArbiterHandle;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Means;
use super::breaker::{Breaker, CircuitPermit};
use super::check;
use super::dial::{Connected, Dialer};
use super::drained::Drained;
use super::health::Health;
use super::load::Loads;
use super::select::Fitness;
use super::spares::Spares;
use super::target::{Family, Target, TargetId};
use super::vital::{Depth, Trouble};
use crate::config::Pool as Settings;
use crate::telemetry::{Telemetry, events};

/// How often one looks whether spares are lacking, too old or gone, where nobody has taken one.
const LOOK: Duration = Duration::from_secs(1);
/// When one looks again after none could be had; each time in vain doubles it, up to [`LOOK`].
const AGAIN: Duration = Duration::from_millis(20);
/// How far chance moves that, as a part of it: those who lost the same origin shall not come back to it together.
const JITTER: f64 = 0.25;
/// Spares that are being made for one target at the same time.
const AT_ONCE: usize = 4;

/// The spare connections to all targets. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    /// Targets that have spares.
    shelves: HashMap<TargetId, Shelf>,
    telemetry: Telemetry,
    /// Nobody makes spares any more.
    over: CancellationToken,
}

/// The spares of one target.
struct Shelf {
    /// Its label.
    label: String,
    spares: Mutex<Spares<Connected>>,
    wanted: Notify,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
}

/// What /status shows of the spares of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolView {
    /// Spares there are.
    pub idle: usize,
    /// Dials that found one.
    pub hits: u64,
    /// Dials that found none.
    pub misses: u64,
    /// Spares that had ended, or had something to say, before anybody had used them.
    pub stale: u64,
}

impl Pool {
    /// Empty, for targets each with its settings; none: it has no spares. Counts of `before` go on, its spares stay there.
    pub fn new<'a>(
        targets: impl IntoIterator<Item = (&'a Arc<Target>, Option<Settings>)>,
        telemetry: Telemetry,
        before: Option<&Self>,
    ) -> Self {
        let counted = |id| before.and_then(|before| before.shared.shelves.get(&id)).map(|shelf| Arc::clone(&shelf.counts));
        let shelf = |(target, settings): (&Arc<Target>, Option<Settings>)| {
            let (label, spares) = (target.label.clone(), Mutex::new(Spares::new(settings?)));
            let shelf = Shelf { label, spares, wanted: Notify::new(), counts: counted(target.id).unwrap_or_default() };
            Some((target.id, shelf))
        };
        let shelves = targets.into_iter().filter_map(shelf).collect();
        Self { shared: Arc::new(Shared { shelves, telemetry, over: CancellationToken::new() }) }
    }

    /// A spare connection to `target` that is there and has nothing to say, for the runtime of this thread.
    pub fn take(&self, target: TargetId) -> Option<Connected> {
        let shelf = self.shared.shelves.get(&target)?;
        shelf.spares().want(Instant::now());
        let spare = loop {
            let spare = shelf.spares().take(Instant::now());
            let Some(mut spare) = spare else { break None };
            // Sockets belong to the runtime of the thread that opened them, and would wake that one.
            if spare.stream.rehome().is_ok() && spare.stream.is_quiet() {
                break Some(spare);
            }
            self.stale(shelf);
        };
        let (count, result) = if spare.is_some() { (&shelf.counts.hits, "hit") } else { (&shelf.counts.misses, "miss") };
        count.fetch_add(1, Relaxed);
        self.shared.telemetry.metrics().pool_asked(result);
        shelf.wanted.notify_one();
        spare
    }

    /// A spare connection that was taken ended before the upstream had said anything on it.
    pub fn was_stale(&self, target: TargetId) {
        self.shared.shelves.get(&target).into_iter().for_each(|shelf| self.stale(shelf));
    }

    /// What there is of `target`; none where it has no spares.
    pub fn view(&self, target: TargetId) -> Option<PoolView> {
        let shelf = self.shared.shelves.get(&target)?;
        let of = |count: &AtomicU64| count.load(Relaxed);
        let Counts { hits, misses, stale } = &*shelf.counts;
        Some(PoolView { idle: shelf.spares().idle(), hits: of(hits), misses: of(misses), stale: of(stale) })
    }

    /// Makes spares on `arbiter` until what it returns is dropped, or [`Self::close`].
    #[must_use = "nobody makes spares without it"]
    pub fn fill(&self, targets: &[Arc<Target>], means: &Means, arbiter: &ArbiterHandle) -> DropGuard {
        for target in targets.iter().filter(|target| self.shared.shelves.contains_key(&target.id)) {
            let (pool, over) = (self.clone(), self.shared.over.clone());
            let Means { dialer, breaker, health, loads, drained, .. } = means.clone();
            let means = Filling { target: Arc::clone(target), dialer, breaker, health, loads, drained };
            arbiter.spawn(async move {
                let _: Option<()> = over.run_until_cancelled(pool.keep(&means)).await;
                pool.shared.shelves.get(&means.target.id).into_iter().for_each(|shelf| drop(shelf.spares().clear()));
            });
        }
        self.shared.over.clone().drop_guard()
    }

    /// Closes all spares; nobody makes any more.
    pub fn close(&self) {
        self.shared.over.cancel();
    }

    async fn keep(&self, means: &Filling) {
        let Some(shelf) = self.shared.shelves.get(&means.target.id) else { return };
        let mut again = AGAIN;
        loop {
            self.tidy(shelf, means);
            let pause;
            (pause, again) = if self.make(shelf, means).await { (LOOK, AGAIN) } else { (again, LOOK.min(again * 2)) };
            // A spare that is wanted at once, or a look for what has grown old.
            let chance: f64 = rand::random();
            let _ = timeout(pause.mul_f64(1.0 + JITTER * (2.0 * chance - 1.0)), shelf.wanted.notified()).await;
        }
    }

    /// Throws away what nobody should get.
    fn tidy(&self, shelf: &Shelf, means: &Filling) {
        let old = shelf.spares().expire(Instant::now(), means.room());
        let gone = shelf.spares().sift(|spare| spare.stream.is_quiet());
        old.iter().for_each(|_| self.tell(shelf, "expired", None));
        gone.iter().for_each(|_| self.stale(shelf));
    }

    /// Makes what is lacking; false: one could not be had.
    async fn make(&self, shelf: &Shelf, means: &Filling) -> bool {
        loop {
            let lacking = shelf.spares().lacking(Instant::now(), means.room()).min(AT_ONCE);
            if lacking == 0 {
                return true;
            }
            let made = join_all((0..lacking).map(|_| means.make())).await;
            let (mut all, mut counted) = (true, None);
            for made in made {
                match made {
                    Made::Spare(spare) => {
                        shelf.spares().put(Instant::now(), *spare, rand::random());
                        self.tell(shelf, "made", None);
                        continue;
                    }
                    Made::Failed { trouble, permit } => {
                        self.tell(shelf, "failed", Some(&trouble));
                        counted = counted.or(permit);
                    }
                    Made::NotNow => {}
                }
                all = false;
            }
            // What failed together failed once: nobody but us wanted them at the same time.
            counted.into_iter().for_each(CircuitPermit::failure);
            if !all {
                return false;
            }
        }
    }

    fn stale(&self, shelf: &Shelf) {
        shelf.counts.stale.fetch_add(1, Relaxed);
        self.shared.telemetry.metrics().pool_asked("stale");
        self.tell(shelf, "stale", None);
    }

    fn tell(&self, shelf: &Shelf, what: &'static str, trouble: Option<&Trouble>) {
        let trouble = trouble.map(|trouble| (trouble.kind, trouble.text.as_str()));
        self.shared.telemetry.emit(events::UpstreamSpare { target: &shelf.label, what, trouble });
    }
}

impl Shelf {
    fn spares(&self) -> MutexGuard<'_, Spares<Connected>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What making a spare needs.
struct Filling {
    target: Arc<Target>,
    dialer: Dialer,
    breaker: Breaker,
    health: Health,
    loads: Loads,
    drained: Drained,
}

/// What came of making one.
enum Made {
    Spare(Box<Connected>),
    Failed {
        trouble: Trouble,
        /// Where the breaker counts that.
        permit: Option<CircuitPermit>,
    },
    /// The target is not well, or its circuit is anything but closed.
    NotNow,
}

/// Why one could not be made.
struct Failure {
    trouble: Trouble,
    /// The breaker counts it.
    counts: bool,
    /// It says something of the target.
    is_theirs: bool,
}

impl Filling {
    /// How many spares there may be, so that with the sessions there they are no more than the target takes. None where an operator
    /// empties it.
    fn room(&self) -> usize {
        let id = self.target.id;
        if self.drained.holds(id) { 0 } else { self.loads.room(id) }
    }

    /// Whether there is a handshake before anybody wants something. RTSP has none.
    fn speaks(&self) -> bool {
        self.target.family() == Family::Rtmp
    }

    async fn make(&self) -> Made {
        let id = self.target.id;
        if self.health.fitness(id, Instant::now()) != Fitness::Healthy {
            return Made::NotNow;
        }
        let Some(permit) = self.breaker.pass(id) else { return Made::NotNow };
        match self.dial().await {
            Ok(spare) => {
                let depth = if self.speaks() { Depth::Speech } else { Depth::Connection };
                self.health.dialled(id, Ok(depth));
                Made::Spare(Box::new(spare))
            }
            Err(Failure { trouble, counts, is_theirs }) => {
                if is_theirs {
                    self.health.dialled(id, Err(trouble.clone()));
                }
                Made::Failed { trouble, permit: Some(permit).filter(|_| counts) }
            }
        }
    }

    /// A connection past its handshake.
    async fn dial(&self) -> Result<Connected, Failure> {
        let dialled = self.dialer.connect_unqueued(&self.target).await;
        let mut spare = dialled.map_err(|error| {
            let (counts, may_retry) = (error.counts(), error.may_retry());
            Failure { trouble: Trouble::new(error.kind(), &error), counts, is_theirs: counts || !may_retry }
        })?;
        let mut said = Vec::new();
        if self.speaks() {
            let patience = self.dialer.dial_timeout().saturating_sub(spare.spent());
            let shaken = timeout(patience, check::shake(&mut spare.stream)).await;
            let late = || Trouble::new("handshake_timeout", "no answer to the RTMP handshake within dial_timeout");
            said =
                shaken.unwrap_or_else(|_| Err(late())).map_err(|trouble| Failure { trouble, counts: true, is_theirs: true })?;
        }
        // What it took is no part of anybody's dial.
        Ok(Connected { took: Duration::ZERO, tls_took: None, spare: Some(said), ..spare })
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
