//! One client's search for an upstream: candidates, breaker, dial and retry in their order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::breaker::{Breaker, CircuitPermit};
use super::circuit::{NotNow, Why};
use super::dial::{Connected, DialError, Dialer};
use super::probe::Reachability;
use super::retry::{Attempts, GiveUp, Next};
use super::target::Target;
use crate::config::Retry;
use crate::protocol::proxy::Ends;

/// What every search needs. Cheap to clone; one for all workers.
#[derive(Clone)]
pub struct Routes {
    /// Opens connections.
    pub dialer: Dialer,
    /// Asked before each dial.
    pub breaker: Breaker,
    /// Learns how dials end.
    pub reachability: Reachability,
    /// None: one dial.
    pub retry: Option<Retry>,
}

/// A connection to a target, with the permit under which it was dialled.
///
/// The permit must hear what comes of the handshake: [`CircuitPermit::success`] at Publish.Start or Play.Start,
/// [`CircuitPermit::failure`] when the handshake fails; drop it when the upstream refuses by command or the client
/// leaves.
#[derive(Debug)]
pub struct Link {
    /// The target.
    pub target: Arc<Target>,
    /// The socket.
    pub connected: Connected,
    /// The breaker's permit.
    pub permit: CircuitPermit,
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
    /// No candidate's circuit lets a dial through now; this is the one that will the soonest.
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
}

impl SeekError {
    /// The label for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GaveUp { last: Some(error), .. } | Self::Refused(error) => error.kind(),
            Self::GaveUp { why, last: None } => why.kind(),
        }
    }
}

/// The search of one client. Dropping it, or the future of [`Seek::next`], ends everything at once.
pub struct Seek {
    routes: Routes,
    began: Instant,
    candidates: Vec<Arc<Target>>,
    /// The client's connection, for upstreams that want to know.
    ends: Option<Ends>,
    attempts: Attempts,
    /// The candidate that is next.
    turn: usize,
    last: Option<DialError>,
}

impl Seek {
    /// Begins now. `candidates` in the order in which they are to be tried; each failed dial moves on to the next.
    pub fn new(routes: Routes, candidates: Vec<Arc<Target>>) -> Self {
        let began = Instant::now();
        let attempts = Attempts::new(routes.retry, began);
        Self { routes, began, candidates, ends: None, attempts, turn: 0, last: None }
    }

    /// The same on behalf of the client with these ends.
    #[must_use]
    pub fn for_client(self, ends: Ends) -> Self {
        Self { ends: Some(ends), ..self }
    }

    /// Dials made.
    pub fn made(&self) -> u32 {
        self.attempts.made()
    }

    /// What is left of `retry.total_timeout`. None: no such bound.
    pub fn remaining(&self) -> Option<Duration> {
        self.attempts.remaining(Instant::now())
    }

    /// The handshake over the last [`Link`] failed: its permit has been told, now another try is due.
    pub fn failed(&mut self) {
        self.turn += 1;
        // The next candidate is tried at once; only a whole round of failures is waited after.
        if self.candidates.is_empty() || self.turn.is_multiple_of(self.candidates.len()) {
            self.attempts.failed(Instant::now(), rand::random());
        }
    }

    /// Waits, asks and dials until there is a connection or enough was tried. `watch` hears each step.
    ///
    /// # Errors
    /// [`SeekError`].
    pub async fn next(&mut self, mut watch: impl FnMut(Step<'_>)) -> Result<Link, SeekError> {
        loop {
            match self.attempts.next(Instant::now()) {
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
        let (target, permit) = match self.permitted().await {
            Ok(permitted) => permitted,
            Err(not_now) => {
                self.attempts.circuit_open(Instant::now(), not_now.retry_after, rand::random());
                watch(Step::NotNow(not_now));
                return Ok(None);
            }
        };
        self.attempts.dialling();
        watch(Step::Dialing { target: &target, attempt: self.attempts.made() });
        let dial = self.routes.dialer.connect_for(&target, self.ends);
        let dialled = match within {
            Some(within) => timeout(within, dial).await.unwrap_or(Err(DialError::Cut(within))),
            None => dial.await,
        };
        match dialled {
            Ok(connected) => {
                self.routes.reachability.dialled(target.id, Ok(()));
                let deadline = self.deadline(&connected);
                Ok(Some(Link { target, connected, permit, deadline }))
            }
            Err(error) => self.dial_failed(&target, error, permit, watch).map(|()| None),
        }
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
            self.routes.reachability.dialled(target.id, Err(error.kind()));
        }
        watch(Step::Failed { target, error: &error, attempt: self.attempts.made() });
        if error.may_retry() {
            self.failed();
            self.last = Some(error);
            return Ok(());
        }
        self.candidates.retain(|candidate| candidate.id != target.id);
        if self.candidates.is_empty() { Err(SeekError::Refused(error)) } else { Ok(()) }
    }

    /// A dial that was cut short says nothing about the upstream, unless it had as much time as any dial ever gets.
    fn had_its_time(&self, error: &DialError) -> bool {
        let most = self.routes.retry.map_or(Duration::MAX, |retry| retry.total_timeout).min(self.routes.dialer.dial_timeout());
        matches!(error, DialError::Cut(within) if *within >= most.mul_f64(0.9))
    }

    fn deadline(&self, connected: &Connected) -> Instant {
        let own = self.routes.dialer.dial_timeout().saturating_sub(connected.took);
        Instant::now() + self.remaining().map_or(own, |left| own.min(left))
    }

    /// Asks the breaker. Without retry there is no waiting for a circuit to close, but a short one for one's turn after
    /// it did.
    async fn permitted(&mut self) -> Result<(Arc<Target>, CircuitPermit), NotNow> {
        loop {
            let not_now = match self.ask().await {
                Ok(permitted) => return Ok(permitted),
                Err(not_now) => not_now,
            };
            let patient = self.routes.retry.is_none() && self.began.elapsed() < self.routes.dialer.dial_timeout();
            if !patient || not_now.why != Why::Ramping {
                return Err(not_now);
            }
            sleep(not_now.retry_after).await;
        }
    }

    /// The first candidate, from the one whose turn it is on, whose circuit lets a dial through; else the shortest wait.
    async fn ask(&mut self) -> Result<(Arc<Target>, CircuitPermit), NotNow> {
        let mut soonest = NotNow { why: Why::Open, retry_after: Duration::MAX };
        for turn in self.turn..self.turn + self.candidates.len() {
            let target = &self.candidates[turn % self.candidates.len()];
            match self.routes.breaker.permit(target.id).await {
                Ok(permit) => {
                    self.turn = turn;
                    return Ok((target.clone(), permit));
                }
                Err(not_now) if not_now.retry_after < soonest.retry_after => soonest = not_now,
                Err(_) => {}
            }
        }
        Err(soonest)
    }
}

#[cfg(test)]
#[path = "seek_tests.rs"]
mod tests;
