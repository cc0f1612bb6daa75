//! Does a dial need to ask at all? What the breaker's actor has said of each circuit in advance.
//!
//! While a circuit is closed without a bound the answer is always yes, and a success behind another changes nothing. Then a session neither asks nor tells
//! the actor, which is on another thread: that would be three wakes of threads for each session that is well.
//!
//! Invariant: nobody passes here between a failure that was reported and the actor's judgement on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};

use super::circuit::Ticket;
use super::target::TargetId;

/// What a closed circuit without a bound says in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    /// For every dial.
    pub(super) ticket: Ticket,
    /// There has been no failure since the last success.
    pub(super) well: bool,
}

/// All of them; a target that is not there has to be asked for. Their number is that of the configured targets.
#[derive(Debug, Default, Clone)]
pub struct Passages(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    free: RwLock<BTreeMap<TargetId, Free>>,
    /// There are no circuits: every dial passes, and nobody hears how it ends.
    off: AtomicBool,
    /// Failures that the actor has not judged yet.
    failures: AtomicUsize,
}

impl Passages {
    /// Whether the breaker is off.
    pub(super) fn is_off(&self) -> bool {
        self.0.off.load(SeqCst)
    }

    /// The ticket for a dial, where there is no need to ask.
    pub(super) fn pass(&self, target: TargetId) -> Option<Ticket> {
        if self.0.failures.load(SeqCst) > 0 {
            return None;
        }
        self.known(target).map(|free| free.ticket)
    }

    /// Whether the end of a dial without a failure would change nothing. `success`: it was more than the lack of one.
    pub(super) fn needs_no_report(&self, target: TargetId, ticket: Ticket, success: bool) -> bool {
        self.known(target).is_some_and(|free| free.ticket == ticket && (free.well || !success))
    }

    /// A failure is on its way to the actor.
    pub(super) fn failing(&self) {
        self.0.failures.fetch_add(1, SeqCst);
    }

    /// The actor has judged a failure, and said what follows.
    pub(super) fn judged(&self) {
        self.0.failures.fetch_sub(1, SeqCst);
    }

    /// What the actor now says of `target`.
    pub(super) fn set(&self, target: TargetId, free: Option<Free>) {
        if self.known(target) == free {
            return;
        }
        let mut all = self.0.free.write().unwrap_or_else(PoisonError::into_inner);
        match free {
            Some(free) => all.insert(target, free),
            None => all.remove(&target),
        };
    }

    /// What it now says of all; `off`: whether it is.
    pub(super) fn set_all(&self, free: BTreeMap<TargetId, Free>, off: bool) {
        self.0.off.store(off, SeqCst);
        *self.0.free.write().unwrap_or_else(PoisonError::into_inner) = free;
    }

    fn known(&self, target: TargetId) -> Option<Free> {
        self.0.free.read().unwrap_or_else(PoisonError::into_inner).get(&target).copied()
    }
}
