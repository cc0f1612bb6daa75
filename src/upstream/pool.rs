//! Is there a connection already? Spare ones to each target: connected, private where the URL asks for it, and past the RTMP handshake.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::ArbiterHandle;
use socket2::SockRef;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::breaker::Breaker;
use super::check;
use super::dial::{Connected, Dialer};
use super::health::Health;
use super::select::Fitness;
use super::spares::Spares;
use super::target::{Family, Target, TargetId};
use super::vital::{Depth, Trouble};
use crate::config::Pool as Settings;
use crate::telemetry::Telemetry;
use crate::tls::Stream;

/// How often one looks whether spares are lacking or too old, where nobody has taken one.
const LOOK: Duration = Duration::from_secs(1);

/// The spare connections to all targets. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    /// None where the pool is off.
    settings: Option<Settings>,
    shelves: HashMap<TargetId, Shelf>,
    telemetry: Telemetry,
}

/// The spares of one target.
struct Shelf {
    spares: Mutex<Spares<Connected>>,
    wanted: Notify,
    counts: Counts,
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
    /// Spares that had ended, or had something to say, when they were wanted.
    pub stale: u64,
}

impl Pool {
    /// Empty. `settings` none: off.
    pub fn new(settings: Option<Settings>, targets: &[Arc<Target>], telemetry: Telemetry) -> Self {
        let shelf =
            |settings| Shelf { spares: Mutex::new(Spares::new(settings)), wanted: Notify::new(), counts: Counts::default() };
        let shelves = settings.into_iter().flat_map(|settings| targets.iter().map(move |target| (target.id, shelf(settings))));
        Self { shared: Arc::new(Shared { settings, shelves: shelves.collect(), telemetry }) }
    }

    /// A spare connection to `target` that is there and has nothing to say, for the runtime of this thread.
    pub fn take(&self, target: TargetId) -> Option<Connected> {
        let shelf = self.shared.shelves.get(&target)?;
        loop {
            let (spare, old) = shelf.spares().take(Instant::now());
            drop(old);
            let Some(mut spare) = spare else {
                self.count(&shelf.counts.misses, "miss");
                shelf.wanted.notify_one();
                return None;
            };
            // Sockets belong to the runtime of the thread that opened them, and would wake that one.
            if is_quiet(&spare.stream) && spare.stream.rehome().is_ok() {
                self.count(&shelf.counts.hits, "hit");
                shelf.wanted.notify_one();
                return Some(spare);
            }
            self.count(&shelf.counts.stale, "stale");
        }
    }

    /// A spare connection that was taken ended before the upstream had said anything on it.
    pub fn was_stale(&self, target: TargetId) {
        if let Some(shelf) = self.shared.shelves.get(&target) {
            self.count(&shelf.counts.stale, "stale");
        }
    }

    /// What there is of `target`; none where the pool is off.
    pub fn view(&self, target: TargetId) -> Option<PoolView> {
        let shelf = self.shared.shelves.get(&target)?;
        let of = |count: &AtomicU64| count.load(Relaxed);
        let Counts { hits, misses, stale } = &shelf.counts;
        Some(PoolView { idle: shelf.spares().idle(), hits: of(hits), misses: of(misses), stale: of(stale) })
    }

    /// Makes spares on `arbiter`, one at a time for each target, until what it returns is dropped; then those that are left are closed.
    /// None where the pool is off.
    #[must_use = "nobody makes spares without it"]
    pub fn fill(
        &self,
        targets: &[Arc<Target>],
        dialer: &Dialer,
        breaker: &Breaker,
        health: &Health,
        arbiter: &ArbiterHandle,
    ) -> Option<DropGuard> {
        self.shared.settings?;
        let over = CancellationToken::new();
        for target in targets {
            let (pool, over) = (self.clone(), over.clone());
            let means =
                Filling { target: Arc::clone(target), dialer: dialer.clone(), breaker: breaker.clone(), health: health.clone() };
            arbiter.spawn(async move {
                let _: Option<()> = over.run_until_cancelled(pool.keep(&means)).await;
                if let Some(shelf) = pool.shared.shelves.get(&means.target.id) {
                    drop(shelf.spares().clear());
                }
            });
        }
        Some(over.drop_guard())
    }

    async fn keep(&self, means: &Filling) {
        let Some(shelf) = self.shared.shelves.get(&means.target.id) else { return };
        loop {
            drop(shelf.spares().expire(Instant::now()));
            while shelf.spares().lacks(Instant::now()) {
                let Some(spare) = means.make().await else { break };
                shelf.spares().put(Instant::now(), spare);
            }
            // A spare that is wanted at once, or a look for what has grown old.
            let _ = timeout(LOOK, shelf.wanted.notified()).await;
        }
    }

    fn count(&self, count: &AtomicU64, result: &'static str) {
        count.fetch_add(1, Relaxed);
        self.shared.telemetry.metrics().pool_asked(result);
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
}

impl Filling {
    /// Another spare; none where the target is not well, or its circuit is anything but closed, or it cannot be had.
    async fn make(&self) -> Option<Connected> {
        let id = self.target.id;
        if self.health.fitness(id, Instant::now()) != Fitness::Healthy {
            return None;
        }
        let permit = self.breaker.pass(id)?;
        match self.dial().await {
            Ok(spare) => {
                self.health.dialled(id, Ok(Depth::Speech));
                Some(spare)
            }
            Err((trouble, counts)) => {
                self.health.dialled(id, Err(trouble));
                if counts {
                    permit.failure();
                }
                None
            }
        }
    }

    /// A connection past its handshake, or why not, and whether the breaker counts that.
    async fn dial(&self) -> Result<Connected, (Trouble, bool)> {
        let dialled = self.dialer.connect_unqueued(&self.target).await;
        let mut spare = dialled.map_err(|error| (Trouble::new(error.kind(), &error), error.counts()))?;
        let said = match self.target.family() {
            Family::Rtmp => {
                let patience = self.dialer.dial_timeout().saturating_sub(spare.spent());
                let shaken = timeout(patience, check::shake(&mut spare.stream)).await;
                let late = || Trouble::new("handshake_timeout", "no answer to the RTMP handshake within dial_timeout");
                shaken.unwrap_or_else(|_| Err(late())).map_err(|trouble| (trouble, true))?
            }
            Family::Rtsp => Vec::new(),
        };
        // What it took is no part of anybody's dial.
        Ok(Connected { took: Duration::ZERO, tls_took: None, spare: Some(said), ..spare })
    }
}

/// Whether the connection is there and nothing has come over it: whoever waits for us to speak has nothing to say but that it goes.
fn is_quiet(stream: &Stream) -> bool {
    let peeked = SockRef::from(stream.tcp()).peek(&mut [MaybeUninit::uninit()]);
    matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
