//! Pure: whom does one client's search ask next, and when?
//!
//! A round goes through the candidates in their order, each dialled once; a failure goes on to the next without a wait. Only when
//! nobody is left to be dialled in a round is there a back-off, and then a new round.

use std::time::{Duration, Instant};

use super::retry::{Attempts, Next};
use super::target::TargetId;
use crate::config::Retry;

/// One client's way through its candidates.
#[derive(Debug, Clone)]
pub struct Walk {
    candidates: Vec<Candidate>,
    attempts: Attempts,
    /// When all may be dialled again; set while a round is over.
    again: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: TargetId,
    /// Dialled in this round.
    tried: bool,
}

impl Walk {
    /// Begins at `now`, with the candidates in their order.
    pub fn new(settings: Option<Retry>, candidates: &[TargetId], now: Instant) -> Self {
        let candidates: Vec<_> = candidates.iter().map(|&id| Candidate { id, tried: false }).collect();
        let attempts = Attempts::new(settings, candidates.len(), now);
        Self { candidates, attempts, again: None }
    }

    /// What to do at `now`; [`Next::Dial`]: ask for [`Walk::untried`], in their order.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            self.candidates.iter_mut().for_each(|candidate| candidate.tried = false);
        }
        self.attempts.next(now)
    }

    /// Who may be dialled in this round, in their order.
    pub fn untried(&self) -> impl Iterator<Item = TargetId> {
        self.candidates.iter().filter(|candidate| !candidate.tried).map(|candidate| candidate.id)
    }

    /// Dials made.
    pub fn made(&self) -> u32 {
        self.attempts.made()
    }

    /// Time left at `now`; none: nothing bounds it.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.attempts.remaining(now)
    }

    /// Whether nobody is left at all.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Whether anybody was dialled in this round.
    pub fn has_begun(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.tried)
    }

    /// A permitted dial of `id` begins.
    pub fn dialling(&mut self, id: TargetId) {
        self.attempts.dialling();
        self.candidates.iter_mut().filter(|candidate| candidate.id == id).for_each(|candidate| candidate.tried = true);
    }

    /// The dial of `id` was none: it is still to be made.
    pub fn undone(&mut self, id: TargetId) {
        self.attempts.undone();
        self.candidates.iter_mut().filter(|candidate| candidate.id == id).for_each(|candidate| candidate.tried = false);
    }

    /// The last dial failed at `now`; `chance` is a number in [0, 1).
    pub fn failed(&mut self, now: Instant, chance: f64) {
        let is_last = self.untried().next().is_none();
        // Whoever fails while others rest would else be dialled again as soon as they are.
        if is_last || self.again.is_some() {
            self.rest(now, chance);
        }
        if !is_last {
            self.attempts.not_before(now);
        }
    }

    /// Policy forbids `id`: it is not tried again.
    pub fn forbidden(&mut self, id: TargetId, now: Instant, chance: f64) {
        self.candidates.retain(|candidate| candidate.id != id);
        self.failed(now, chance);
    }

    /// None of the untried can be dialled at `now`; the first of them may in `retry_after`, if that is known.
    pub fn none_ready(&mut self, now: Instant, retry_after: Option<Duration>, chance: f64) {
        let retry_after = retry_after.unwrap_or(Duration::MAX);
        if !self.has_begun() {
            self.attempts.circuit_open(now, retry_after, chance);
            return;
        }
        if !self.attempts.may_wait() {
            self.attempts.exhaust();
            return;
        }
        // Whoever failed has its back-off; meanwhile one of the others may come back.
        if self.again.is_none() {
            self.rest(now, chance);
        }
        let again = self.again.unwrap_or(now);
        self.attempts.not_before(now.checked_add(retry_after).map_or(again, |ready| ready.min(again)));
    }

    fn rest(&mut self, now: Instant, chance: f64) {
        self.again = Some(self.attempts.failed(now, chance));
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
