//! Pure: when is there another try, and when is it enough?

use std::time::{Duration, Instant};

use crate::config::Retry;

/// Nobody waits longer than this in one go, whatever is configured: keeps the clock's arithmetic within its range.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask the breaker, and dial. The dial may take as long as this; none: its own timeout alone bounds it.
    Dial(Option<Duration>),
    /// Nothing, for so long.
    Wait(Duration),
    /// Tell the client.
    GiveUp(GiveUp),
}

/// Why there is no further try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GiveUp {
    /// All dials failed.
    #[error("the upstream could not be reached in {made} attempts")]
    Attempts {
        /// Dials made.
        made: u32,
    },
    /// The next try would begin too late.
    #[error("the upstream could not be reached in {total:?} ({made} attempts)")]
    Time {
        /// Dials made.
        made: u32,
        /// The time there was.
        total: Duration,
    },
    /// The circuit stays open for longer than the client may wait.
    #[error("the upstream's circuit is open; try again in {retry_after:?}")]
    CircuitOpen {
        /// When the next probe will be let through.
        retry_after: Duration,
    },
}

impl GiveUp {
    /// The label for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Attempts { .. } => "retry_attempts",
            Self::Time { .. } => "retry_timeout",
            Self::CircuitOpen { .. } => "circuit_open",
        }
    }
}

/// One client's tries. Ask [`Attempts::next`]; tell what came of it by [`Attempts::dialling`], [`Attempts::failed`] and
/// [`Attempts::circuit_open`].
#[derive(Debug, Clone)]
pub struct Attempts {
    settings: Option<Retry>,
    /// Dials there may be.
    most: u32,
    deadline: Option<Instant>,
    made: u32,
    /// Waits after failures.
    waits: u32,
    not_before: Instant,
    /// The last answer of the breaker, while it is what is waited for.
    circuit: Option<Duration>,
}

impl Attempts {
    /// Begins at `now`. `None` is one dial of each candidate, without a wait. However few attempts there are, each of the
    /// candidates may have one.
    pub fn new(settings: Option<Retry>, candidates: usize, now: Instant) -> Self {
        let deadline = settings.map(|settings| now + settings.total_timeout.min(MAX_WAIT));
        let candidates = u32::try_from(candidates).unwrap_or(u32::MAX);
        let most = settings.map_or(1, |settings| settings.max_attempts.max(1)).max(candidates);
        Self { settings, most, deadline, made: 0, waits: 0, not_before: now, circuit: None }
    }

    /// The last dial was none after all.
    pub(super) fn undone(&mut self) {
        self.made = self.made.saturating_sub(1);
    }

    /// Whether there is any waiting at all.
    pub(super) fn may_wait(&self) -> bool {
        self.settings.is_some()
    }

    /// Enough was tried.
    pub(super) fn exhaust(&mut self) {
        self.most = self.made;
    }

    /// Dials made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Time left at `now`; none: nothing bounds it.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// What to do at `now`.
    pub fn next(&self, now: Instant) -> Next {
        if self.made >= self.most {
            return Next::GiveUp(GiveUp::Attempts { made: self.made });
        }
        let begin = self.not_before.max(now);
        if self.deadline.is_some_and(|deadline| begin >= deadline) || (self.settings.is_none() && self.circuit.is_some()) {
            return Next::GiveUp(self.too_late());
        }
        if begin > now {
            return Next::Wait(begin - now);
        }
        Next::Dial(self.deadline.map(|deadline| deadline - now))
    }

    /// A permitted dial begins: it uses an attempt.
    pub fn dialling(&mut self) {
        self.made = self.made.saturating_add(1);
        self.circuit = None;
    }

    /// The dial failed at `now`, and there is nobody else: the next may begin when the answer says. `chance` is a random
    /// number in [0, 1).
    pub fn failed(&mut self, now: Instant, chance: f64) -> Instant {
        self.waits = self.waits.saturating_add(1);
        let delay = self.settings.map_or(Duration::ZERO, |settings| backoff(&settings, self.waits, chance));
        self.not_before = now + delay;
        self.not_before
    }

    /// Nothing is to be dialled before `then`.
    pub(super) fn not_before(&mut self, then: Instant) {
        self.not_before = then;
    }

    /// The breaker refused at `now`; this uses no attempt. `chance` spreads those who wait over a tenth of the time.
    pub fn circuit_open(&mut self, now: Instant, retry_after: Duration, chance: f64) {
        let wait = retry_after.min(MAX_WAIT);
        let spread = wait.mul_f64(0.1 * unit(chance)).min(Duration::from_secs(1));
        self.not_before = now + wait + spread;
        self.circuit = Some(retry_after);
    }

    fn too_late(&self) -> GiveUp {
        match (self.circuit, self.settings) {
            (Some(retry_after), _) => GiveUp::CircuitOpen { retry_after },
            (None, Some(settings)) => GiveUp::Time { made: self.made, total: settings.total_timeout },
            (None, None) => GiveUp::Attempts { made: self.made },
        }
    }
}

/// The `number`th wait, from 1.
fn backoff(settings: &Retry, number: u32, chance: f64) -> Duration {
    let exponent = i32::try_from(number.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = settings.initial_delay.as_secs_f64() * settings.multiplier.max(1.0).powi(exponent);
    let bounded = grown.min(settings.max_delay.min(MAX_WAIT).as_secs_f64());
    let jitter = unit(settings.jitter_fraction) * (2.0 * unit(chance) - 1.0);
    Duration::try_from_secs_f64(bounded * (1.0 + jitter)).unwrap_or(MAX_WAIT)
}

/// Brings a number that should be in [0, 1] there; what is no number becomes 0.
fn unit(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
