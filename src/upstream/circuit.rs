//! Pure: one target's circuit: closed (dials pass), open (dials are refused), half-open (one dial at a time tries).

use std::time::{Duration, Instant};

use crate::config::CircuitBreaker;

/// How long one waits for another's probe before asking again.
const PROBE_POLL: Duration = Duration::from_millis(250);
/// The same while the number of dials grows again after an outage.
const RAMP_POLL: Duration = Duration::from_millis(50);
/// As many dials as this at a time end the careful time after an outage.
const RAMP_END: u32 = 64;
/// How often an open circuit lets one through who has a running stream to lose.
const URGENT_EVERY: Duration = Duration::from_secs(1);
/// Longest time a circuit stays open, whatever is asked for: keeps the clock's arithmetic within its range.
const MAX_OPEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// The three states, by their electrical names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CircuitState {
    /// Dials pass.
    Closed,
    /// Dials are refused.
    Open,
    /// One dial at a time finds out.
    HalfOpen,
}

impl CircuitState {
    /// The word in /status, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// How a permitted dial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The upstream said Publish.Start or Play.Start.
    Success,
    /// DNS, TCP or handshake failed, or there was no answer in time.
    Failure,
    /// It was cancelled, or refused by command: this says nothing about the upstream's health.
    Neither,
}

/// Stands for one permitted dial; each is reported exactly once. One from before the last change of state counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    epoch: u64,
}

/// Why there is no ticket now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The circuit is open.
    Open,
    /// Another dial is the probe.
    Probing,
    /// It closed a short while ago; the number of dials at a time still grows.
    Ramping,
}

impl Why {
    /// The words in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Probing => "half-open with a probe under way",
            Self::Ramping => "closed, with as many dials as it takes so soon after an outage",
        }
    }
}

/// No ticket now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's circuit is {}; next try in {retry_after:?}", .why.as_str())]
pub struct NotNow {
    /// Why.
    pub why: Why,
    /// When it is worth asking again.
    pub retry_after: Duration,
}

/// A circuit went from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Where it was.
    pub from: CircuitState,
    /// Where it is.
    pub to: CircuitState,
    /// Consecutive failures that led here; 0 after success.
    pub failures: u32,
}

/// What /status shows of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: CircuitState,
    /// Consecutive failures.
    pub failures: u32,
    /// How long it has been open or half-open.
    pub opened_for: Option<Duration>,
    /// Until the next probe is let through; zero when it only waits for someone to dial.
    pub retry_in: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Inner {
    /// `ramp`: how many dials at a time, while that is bounded.
    Closed { failures: u32, ramp: Option<u32> },
    Open {
        failures: u32,
        opened: Instant,
        /// The last failure.
        since: Instant,
        until: Instant,
    },
    HalfOpen {
        failures: u32,
        opened: Instant,
        successes: u32,
        /// Until when it would be open, had nobody been in a hurry.
        until: Instant,
    },
}

/// The circuit of one target.
#[derive(Debug, Clone)]
pub struct Circuit {
    settings: CircuitBreaker,
    inner: Inner,
    /// Tickets of this epoch that are out.
    out: u32,
    epoch: u64,
}

impl Circuit {
    /// A closed circuit. `epoch` must be above that of every ticket an earlier circuit of this target has given out.
    pub fn new(settings: CircuitBreaker, epoch: u64) -> Self {
        Self { settings, inner: Inner::Closed { failures: 0, ramp: None }, out: 0, epoch }
    }

    /// Where it is.
    pub fn state(&self) -> CircuitState {
        match self.inner {
            Inner::Closed { .. } => CircuitState::Closed,
            Inner::Open { .. } => CircuitState::Open,
            Inner::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// Takes new settings; the state stays, and an open circuit keeps the time it was given.
    pub fn configure(&mut self, settings: CircuitBreaker) {
        self.settings = settings;
    }

    /// Asks to dial at `now`.
    ///
    /// # Errors
    /// [`NotNow`] says when to ask again.
    pub fn ask(&mut self, now: Instant) -> (Result<Ticket, NotNow>, Option<Transition>) {
        self.ask_from(now, Duration::MAX)
    }

    /// The same for one who has a running stream to lose: an open circuit lets one of them through each second. If that fails, the
    /// others wait no longer than they would have.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_urgently(&mut self, now: Instant) -> (Result<Ticket, NotNow>, Option<Transition>) {
        self.ask_from(now, URGENT_EVERY)
    }

    fn ask_from(&mut self, now: Instant, patience: Duration) -> (Result<Ticket, NotNow>, Option<Transition>) {
        let mut transition = None;
        if let Inner::Open { failures, opened, since, until } = self.inner {
            let open_for = (until - since).min(patience).saturating_sub(now.saturating_duration_since(since));
            if !open_for.is_zero() {
                return (Err(NotNow { why: Why::Open, retry_after: open_for }), None);
            }
            transition = Some(self.enter(Inner::HalfOpen { failures, opened, successes: 0, until }));
        }
        let full = match self.inner {
            Inner::HalfOpen { .. } if self.out > 0 => Some(NotNow { why: Why::Probing, retry_after: PROBE_POLL }),
            Inner::Closed { ramp: Some(ramp), .. } if self.out >= ramp => {
                Some(NotNow { why: Why::Ramping, retry_after: RAMP_POLL })
            }
            Inner::Closed { .. } | Inner::Open { .. } | Inner::HalfOpen { .. } => None,
        };
        if let Some(not_now) = full {
            return (Err(not_now), transition);
        }
        self.out += 1;
        (Ok(Ticket { epoch: self.epoch }), transition)
    }

    /// Hears how a dial ended.
    pub fn report(&mut self, ticket: Ticket, report: Report, now: Instant) -> Option<Transition> {
        if ticket.epoch != self.epoch {
            return None;
        }
        self.out = self.out.saturating_sub(1);
        match report {
            Report::Success => self.succeed(),
            Report::Failure => self.fail(now),
            Report::Neither => None,
        }
    }

    /// The ticket that every dial would get, where none would be refused, and whether the last one that counted was a success.
    pub(super) fn free(&self) -> Option<(Ticket, bool)> {
        match self.inner {
            Inner::Closed { failures, ramp: None } => Some((Ticket { epoch: self.epoch }, failures == 0)),
            Inner::Closed { .. } | Inner::Open { .. } | Inner::HalfOpen { .. } => None,
        }
    }

    /// Closes the circuit, whatever it was.
    pub fn reset(&mut self) -> Option<Transition> {
        let closed = Inner::Closed { failures: 0, ramp: None };
        if self.state() == CircuitState::Closed {
            self.inner = closed;
            return None;
        }
        Some(self.enter(closed))
    }

    /// What it looks like at `now`.
    pub fn view(&self, now: Instant) -> View {
        let since = |then: Instant| Some(now.saturating_duration_since(then));
        match self.inner {
            Inner::Closed { failures, .. } => View { state: self.state(), failures, opened_for: None, retry_in: None },
            Inner::Open { failures, opened, until, .. } => {
                let retry_in = Some(until.saturating_duration_since(now));
                View { state: self.state(), failures, opened_for: since(opened), retry_in }
            }
            Inner::HalfOpen { failures, opened, .. } => {
                View { state: self.state(), failures, opened_for: since(opened), retry_in: None }
            }
        }
    }

    fn succeed(&mut self) -> Option<Transition> {
        match self.inner {
            Inner::Closed { ramp, .. } => {
                // One more for each success doubles the number with each round of dials.
                let ramp = ramp.map(|ramp| ramp + 1).filter(|&ramp| ramp < RAMP_END);
                self.inner = Inner::Closed { failures: 0, ramp };
                None
            }
            Inner::HalfOpen { successes, .. } if successes + 1 >= self.settings.success_threshold => {
                Some(self.enter(Inner::Closed { failures: 0, ramp: Some(1) }))
            }
            Inner::HalfOpen { failures, opened, successes, until } => {
                self.inner = Inner::HalfOpen { failures, opened, successes: successes + 1, until };
                None
            }
            Inner::Open { .. } => None,
        }
    }

    fn fail(&mut self, now: Instant) -> Option<Transition> {
        let reset = now + self.settings.reset_timeout.min(MAX_OPEN);
        match self.inner {
            Inner::Closed { failures, .. } if failures + 1 >= self.settings.max_failures => {
                Some(self.enter(Inner::Open { failures: failures + 1, opened: now, since: now, until: reset }))
            }
            Inner::Closed { failures, ramp } => {
                self.inner = Inner::Closed { failures: failures + 1, ramp };
                None
            }
            Inner::HalfOpen { failures, opened, until, .. } => {
                let until = if until > now { until } else { reset };
                Some(self.enter(Inner::Open { failures: failures.saturating_add(1), opened, since: now, until }))
            }
            Inner::Open { .. } => None,
        }
    }

    /// The one door between states: tickets from before it count no more.
    fn enter(&mut self, inner: Inner) -> Transition {
        let from = self.state();
        self.inner = inner;
        self.epoch += 1;
        self.out = 0;
        let failures = self.failures();
        Transition { from, to: self.state(), failures }
    }

    fn failures(&self) -> u32 {
        match self.inner {
            Inner::Closed { failures, .. } | Inner::Open { failures, .. } | Inner::HalfOpen { failures, .. } => failures,
        }
    }
}

#[cfg(test)]
#[path = "circuit_tests.rs"]
mod tests;
