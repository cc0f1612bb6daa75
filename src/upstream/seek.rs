//! One client's search for an upstream: candidates, breaker, dial and retry in their order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::breaker::{Breaker, CircuitPermit};
use super::circuit::{NotNow, Why};
use super::dial::{Connected, DialError, Dialer};
use super::drained::Drained;
use super::health::{DialPermit, Health};
use super::load::{Load, Loads};
use super::pool::Pool;
use super::retry::{GiveUp, Next};
use super::router::NoRoute;
use super::target::{Target, TargetId};
use super::vital::{Depth, Trouble};
use super::walk::Walk;
use crate::config::Retry;
use crate::protocol::proxy::Ends;

/// What every search needs. Cheap to clone; one for all workers.
#[derive(Clone)]
pub struct Means {
    /// Opens connections.
    pub dialer: Dialer,
    /// Asked before each dial.
    pub breaker: Breaker,
    /// Learns how dials end.
    pub health: Health,
    /// Counts the sessions at each target.
    pub loads: Loads,
    /// Which targets take no new streams.
    pub drained: Drained,
    /// Has spare connections.
    pub pool: Pool,
    /// None: one dial of each candidate.
    pub retry: Option<Retry>,
}

/// A connection to a target, with the permit under which it was dialled.
///
/// The permit must hear what comes of the handshake: [`DialPermit::success`] at Publish.Start or Play.Start,
/// [`DialPermit::failure`] when the handshake fails, [`DialPermit::refused`] when the upstream refuses by command; drop it when the client
/// leaves.
#[derive(Debug)]
pub struct Link {
    /// The target.
    pub target: Arc<Target>,
    /// The socket.
    pub connected: Connected,
    /// Hears how it goes on.
    pub permit: DialPermit,
    /// The session's place at the target: keep it as long as the session is there.
    pub load: Load,
    /// When this try's time is over: `dial_timeout` from the look-up on, and never past `retry.total_timeout`. The
    /// handshake, up to Publish.Start or Play.Start, belongs to it.
    pub deadline: Instant,
}

/// What happened on the way, for logs and metrics.
#[derive(Debug)]
pub enum Step<'a> {
    /// A permitted dial begins; `attempt` counts from 1.
    Dialing {
        /// The target.
        target: &'a Target,
        /// Which dial it is.
        attempt: u32,
    },
    /// A dial failed.
    Failed {
        /// The target.
        target: &'a Target,
        /// Why.
        error: &'a DialError,
        /// Which dial it was.
        attempt: u32,
    },
    /// No candidate that is left in this round lets a dial through now; this is the one that will the soonest.
    NotNow(NotNow),
    /// Nothing happens for so long.
    Waiting(Duration),
}

/// Why there is no upstream.
#[derive(Debug, thiserror::Error)]
pub enum SeekError {
    /// Enough was tried. The last dial's error, if there was a dial.
    #[error("{why}{}", .last.as_ref().map(|last| format!(": {last}")).unwrap_or_default())]
    GaveUp {
        /// Why.
        why: GiveUp,
        /// What the last dial said.
        last: Option<DialError>,
    },
    /// A dial that policy forbids, on every candidate: trying again would change nothing.
    #[error(transparent)]
    Refused(DialError),
    /// There is nobody to be tried, though there was when the search began.
    #[error(transparent)]
    NoRoute(NoRoute),
}

impl SeekError {
    /// The label for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GaveUp { last: Some(error), .. } | Self::Refused(error) => error.kind(),
            Self::GaveUp { why, last: None } => why.kind(),
            Self::NoRoute(no_route) => no_route.reason(),
        }
    }
}

/// The search of one client. Dropping it, or the future of [`Seek::next`], ends everything at once.
pub struct Seek {
    means: Means,
    began: Instant,
    candidates: Vec<Arc<Target>>,
    /// The client's connection, for upstreams that want to know.
    ends: Option<Ends>,
    urgent: bool,
    /// No more spare connections.
    anew: bool,
    walk: Walk,
    last: Option<DialError>,
}

/// Who can be dialled now.
enum Ready {
    Permitted {
        target: Arc<Target>,
        permit: CircuitPermit,
        load: Load,
    },
    NotNow(NotNow),
    /// Everybody who is left has as many sessions as it may have.
    Full,
}

impl Seek {
    /// Begins now. `candidates` in the order in which they are to be tried; each failed dial moves on to the next.
    pub fn new(means: Means, candidates: Vec<Arc<Target>>) -> Self {
        let began = Instant::now();
        let order: Vec<TargetId> = candidates.iter().map(|target| target.id).collect();
        let walk = Walk::new(means.retry, &order, began);
        Self { means, began, candidates, ends: None, urgent: false, anew: false, walk, last: None }
    }

    /// The same on behalf of the client with these ends.
    #[must_use]
    pub fn for_client(self, ends: Ends) -> Self {
        Self { ends: Some(ends), ..self }
    }

    /// The same for a stream that runs and has lost its upstream: it goes before others in the queue of dials, and an open circuit
    /// lets one such through each second.
    #[must_use]
    pub fn urgent(mut self) -> Self {
        self.urgent = true;
        self.means.dialer = self.means.dialer.urgent();
        self
    }

    /// Who is to be tried, in order.
    pub fn candidates(&self) -> &[Arc<Target>] {
        &self.candidates
    }

    /// Dials made.
    pub fn made(&self) -> u32 {
        self.walk.made()
    }

    /// What is left of `retry.total_timeout`. None: no such bound.
    pub fn remaining(&self) -> Option<Duration> {
        self.walk.remaining(Instant::now())
    }

    /// The handshake over the last [`Link`] failed: its permit has been told, now another try is due.
    pub fn failed(&mut self) {
        // The next candidate is tried at once; only a whole round of failures is waited after.
        self.walk.failed(Instant::now(), rand::random());
    }

    /// The last [`Link`] was a spare connection that ended or was silent before the upstream had said anything on it: its permit is to be dropped,
    /// and the same target is dialled anew. Uses no attempt.
    pub fn stale(&mut self, target: TargetId) {
        self.anew = true;
        self.means.pool.was_stale(target);
        self.walk.undone(target);
    }

    /// Another connection to the target of the last [`Link`], under the same permit, and its deadline: each step of a login is on a
    /// connection of its own. Uses no attempt.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn redial(&self, target: &Target) -> Result<(Connected, Instant), DialError> {
        let dial = self.means.dialer.connect_for(target, self.ends);
        let connected = match self.remaining() {
            Some(within) => timeout(within, dial).await.unwrap_or(Err(DialError::Cut(within)))?,
            None => dial.await?,
        };
        let deadline = self.deadline(&connected);
        Ok((connected, deadline))
    }

    /// Waits, asks and dials until there is a connection or enough was tried. `watch` hears each step.
    ///
    /// # Errors
    /// [`SeekError`].
    pub async fn next(&mut self, mut watch: impl FnMut(Step<'_>)) -> Result<Link, SeekError> {
        loop {
            match self.walk.next(Instant::now()) {
                Next::GiveUp(why) => return Err(SeekError::GaveUp { why, last: self.last.take() }),
                Next::Wait(wait) => {
                    watch(Step::Waiting(wait));
                    sleep(wait).await;
                }
                Next::Dial(within) => {
                    if let Some(link) = self.dial(within, &mut watch).await? {
                        return Ok(link);
                    }
                }
            }
        }
    }

    async fn dial(&mut self, within: Option<Duration>, watch: &mut impl FnMut(Step<'_>)) -> Result<Option<Link>, SeekError> {
        let (target, permit, load) = match self.permitted().await {
            Ready::Permitted { target, permit, load } => (target, permit, load),
            Ready::NotNow(not_now) => {
                self.walk.none_ready(Instant::now(), Some(not_now.retry_after), rand::random());
                watch(Step::NotNow(not_now));
                return Ok(None);
            }
            Ready::Full if !self.walk.has_begun() => return Err(SeekError::NoRoute(NoRoute::Full)),
            Ready::Full => {
                self.walk.none_ready(Instant::now(), None, rand::random());
                return Ok(None);
            }
        };
        self.walk.dialling(target.id);
        watch(Step::Dialing { target: &target, attempt: self.made() });
        let spare = if self.anew { None } else { self.means.pool.take(target.id) };
        let dialled = match spare {
            Some(spare) => Ok(spare),
            None => self.connected(&target, within).await,
        };
        match dialled {
            Ok(connected) => {
                let permit = DialPermit::new(permit, self.means.health.clone());
                let deadline = self.deadline(&connected);
                Ok(Some(Link { target, connected, permit, load, deadline }))
            }
            Err(error) => self.dial_failed(&target, error, permit, watch).map(|()| None),
        }
    }

    async fn connected(&self, target: &Target, within: Option<Duration>) -> Result<Connected, DialError> {
        let dial = self.means.dialer.connect_for(target, self.ends);
        let dialled = match within {
            Some(within) => timeout(within, dial).await.unwrap_or(Err(DialError::Cut(within))),
            None => dial.await,
        };
        if dialled.is_ok() {
            self.means.health.dialled(target.id, Ok(Depth::Connection));
        }
        dialled
    }

    fn dial_failed(
        &mut self,
        target: &Target,
        error: DialError,
        permit: CircuitPermit,
        watch: &mut impl FnMut(Step<'_>),
    ) -> Result<(), SeekError> {
        let counts = error.counts() || self.had_its_time(&error);
        if counts {
            permit.failure();
        }
        if counts || !error.may_retry() {
            self.means.health.dialled(target.id, Err(Trouble::new(error.kind(), &error)));
        }
        watch(Step::Failed { target, error: &error, attempt: self.made() });
        if error.may_retry() {
            self.failed();
            self.last = Some(error);
            return Ok(());
        }
        self.walk.forbidden(target.id, Instant::now(), rand::random());
        if self.walk.is_empty() { Err(SeekError::Refused(error)) } else { Ok(()) }
    }

    /// A dial that was cut short says nothing about the upstream, unless it had as much time as any dial ever gets.
    fn had_its_time(&self, error: &DialError) -> bool {
        let most = self.means.retry.map_or(Duration::MAX, |retry| retry.total_timeout).min(self.means.dialer.dial_timeout());
        matches!(error, DialError::Cut(within) if *within >= most.mul_f64(0.9))
    }

    fn deadline(&self, connected: &Connected) -> Instant {
        let own = self.means.dialer.dial_timeout().saturating_sub(connected.spent());
        Instant::now() + self.remaining().map_or(own, |left| own.min(left))
    }

    /// Asks the breaker. Without retry there is no waiting for a circuit to close, but a short one for one's turn after
    /// it did.
    async fn permitted(&mut self) -> Ready {
        loop {
            let not_now = match self.ask().await {
                Ready::NotNow(not_now) => not_now,
                answer => return answer,
            };
            let patient = self.means.retry.is_none() && self.began.elapsed() < self.means.dialer.dial_timeout();
            if !patient || not_now.why != Why::Ramping {
                return Ready::NotNow(not_now);
            }
            sleep(not_now.retry_after).await;
        }
    }

    /// The first candidate left in this round that has a place, and whose circuit lets a dial through; else the shortest wait.
    async fn ask(&self) -> Ready {
        let mut soonest = None;
        for id in self.walk.untried() {
            let Some(target) = self.candidates.iter().find(|target| target.id == id) else { continue };
            let Some(load) = self.means.loads.take(id) else { continue };
            let breaker = &self.means.breaker;
            let answer = if self.urgent { breaker.permit_urgently(id).await } else { breaker.permit(id).await };
            match answer {
                Ok(permit) => return Ready::Permitted { target: Arc::clone(target), permit, load },
                Err(not_now) => {
                    let sooner = |known: &NotNow| known.retry_after <= not_now.retry_after;
                    soonest = soonest.filter(sooner).or(Some(not_now));
                }
            }
        }
        soonest.map_or(Ready::Full, Ready::NotNow)
    }
}

#[cfg(test)]
#[path = "seek_tests.rs"]
mod tests;
