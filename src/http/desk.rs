//! Asks the control actors what /status shows: all at once, each under a deadline, and once for all who ask meanwhile.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{MailboxError, Message, Recipient};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared, WeakShared};
use tokio::time::timeout;

use super::Sources;
use crate::admission::{rate_limiter, supervisor};
use crate::telemetry::{Waits, collector};
use crate::upstream::breaker;

/// An answer, or why there is none.
pub(super) type Answer<T> = Result<T, String>;

/// The answers of one round of questions.
pub(super) struct Round {
    pub(super) connections: Answer<supervisor::Standing>,
    pub(super) rate_limit: Answer<rate_limiter::Standing>,
    pub(super) circuit_breaker: Answer<breaker::BreakerSnapshot>,
    pub(super) traffic: Answer<collector::Standing>,
}

type Asking = LocalBoxFuture<'static, Rc<Round>>;

/// Where all requests meet.
pub(super) struct Desk {
    sources: Sources,
    patience: Duration,
    /// The round that is under way, held by those who wait for it: one that everybody has left is forgotten, lest its old
    /// answers be shown to the next.
    asking: RefCell<Option<WeakShared<Asking>>>,
}

impl Desk {
    /// `patience`: how long an actor may take to answer.
    pub(super) fn new(sources: Sources, patience: Duration) -> Self {
        Self { sources, patience, asking: RefCell::default() }
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(super) fn uptime(&self) -> Duration {
        self.sources.started.elapsed()
    }

    /// The answers of the round that is under way, or of a new one.
    pub(super) async fn ask(&self) -> Rc<Round> {
        let round = self.round();
        round.await
    }

    fn round(&self) -> Shared<Asking> {
        let mut asking = self.asking.borrow_mut();
        let under_way = asking.as_ref().and_then(WeakShared::upgrade).filter(|round| round.peek().is_none());
        under_way.unwrap_or_else(|| {
            let round = ask_all(self.sources.clone(), self.patience).boxed_local().shared();
            *asking = round.downgrade();
            round
        })
    }
}

async fn ask_all(sources: Sources, patience: Duration) -> Rc<Round> {
    let waits = |actor| sources.telemetry.metrics().waits(actor);
    let (connections, rate_limit, circuit_breaker, traffic) = tokio::join!(
        ask(&sources.supervisor, supervisor::Snapshot, patience, waits("supervisor")),
        ask(&sources.rate_limiter, rate_limiter::Snapshot, patience, waits("rate_limiter")),
        ask(&sources.breaker, breaker::Snapshot, patience, waits("breaker")),
        ask(&sources.collector, collector::Snapshot, patience, waits("collector")),
    );
    let traffic = traffic.and_then(|answer| answer.map_err(|error| error.to_string()));
    Rc::new(Round { connections, rate_limit, circuit_breaker, traffic })
}

async fn ask<M>(actor: &Recipient<M>, question: M, patience: Duration, waits: Waits) -> Answer<M::Result>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    let began = Instant::now();
    match timeout(patience, Waits::time(Some(&waits), actor.send(question))).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(MailboxError::Closed)) => Err("the actor has ended".to_owned()),
        Ok(Err(MailboxError::Timeout)) | Err(_) => Err(format!("no answer within {} ms", began.elapsed().as_millis())),
    }
}
