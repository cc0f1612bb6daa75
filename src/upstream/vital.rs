//! Pure: is one target well? What dials, checks and /ready's probes have found, in one place.

use std::time::{Duration, Instant};

/// How often a target that failed a dial is offered to one client in its turn, to find out.
pub const TRIAL_EVERY: Duration = Duration::from_secs(10);

/// How far something got, or had to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// A TCP connection.
    Socket,
    /// A connection; with TLS where the target has it.
    Connection,
    /// A handshake of RTMP, an answer of RTSP.
    Speech,
}

/// Why a target was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One of [`labels::ERROR_TYPES`](crate::telemetry::labels::ERROR_TYPES).
    pub kind: &'static str,
    /// More words, without secrets.
    pub text: String,
}

impl Trouble {
    /// Of a kind, in words.
    pub fn new(kind: &'static str, text: impl ToString) -> Self {
        Self { kind, text: text.to_string() }
    }

    /// What a success must reach to disprove it.
    fn depth(&self) -> Depth {
        match self.kind {
            "handshake" | "handshake_timeout" | "protocol" => Depth::Speech,
            kind if kind.starts_with("tls_") => Depth::Connection,
            _ => Depth::Socket,
        }
    }
}

/// How many checks in a row change the word on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// That pass, until it is well again.
    pub rise: u32,
    /// That fail, until it is not.
    pub fall: u32,
}

/// A target became well, or unwell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What it is now.
    pub healthy: bool,
    /// The last trouble, where it is unwell.
    pub trouble: Option<Trouble>,
}

/// What /status shows of a target's health.
#[derive(Debug, Clone, PartialEq)]
pub struct VitalView {
    /// "unknown" until something was tried, then "healthy" or "unhealthy".
    pub state: &'static str,
    /// How long it has been so.
    pub since: Duration,
    /// The last trouble, and how long ago it was.
    pub last_error: Option<(Trouble, Duration)>,
    /// Checks that passed and that failed.
    pub checks: (u64, u64),
    /// How long ago the last check ended.
    pub checked: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    kind: &'static str,
    depth: Depth,
}

/// What is known of one target.
#[derive(Debug, Clone)]
pub struct Vital {
    /// When it was last reached.
    reached: Option<Instant>,
    /// The first failure of any kind since then.
    failing: Option<Failing>,
    /// The same of dials alone: checks count by their rules.
    outlier: Option<Failing>,
    /// When it may be offered to a client all the same.
    next_trial: Instant,
    /// What the checks say.
    checks: Option<bool>,
    /// Checks in a row that say otherwise.
    streak: u32,
    passed: u64,
    failed: u64,
    checked: Option<Instant>,
    /// Since when it is what it is.
    since: Instant,
    last: Option<(Instant, Trouble)>,
}

impl Vital {
    /// Nothing is known yet, and the best is assumed.
    pub fn new(now: Instant) -> Self {
        Self {
            reached: None,
            failing: None,
            outlier: None,
            next_trial: now,
            checks: None,
            streak: 0,
            passed: 0,
            failed: 0,
            checked: None,
            since: now,
            last: None,
        }
    }

    /// Whether it is to be tried in its turn.
    pub fn is_healthy(&self) -> bool {
        self.outlier.is_none() && self.checks != Some(false)
    }

    /// Whether one client is to try it in its turn although its last dial failed.
    pub fn wants_trial(&self, now: Instant) -> bool {
        self.outlier.is_some() && self.checks != Some(false) && now >= self.next_trial
    }

    /// Somebody tries it.
    pub fn on_trial(&mut self, now: Instant) {
        self.next_trial = now + TRIAL_EVERY;
    }

    /// A dial, or a probe of /ready, ended at `now`.
    pub fn dialled(&mut self, now: Instant, result: Result<Depth, Trouble>) -> Option<Turn> {
        let before = self.is_healthy();
        match result {
            Ok(depth) => self.succeed(now, depth),
            Err(trouble) => {
                self.fail(now, &trouble);
                if self.outlier.is_none() {
                    self.on_trial(now);
                }
                self.outlier = Some(worse(self.outlier, now, &trouble));
                self.last = Some((now, trouble));
            }
        }
        self.turned(before, now)
    }

    /// A check ended at `now`. The first decides alone.
    pub fn checked(&mut self, now: Instant, rules: Rules, result: Result<Depth, Trouble>) -> Option<Turn> {
        let before = self.is_healthy();
        self.checked = Some(now);
        let passed = result.is_ok();
        let needed = if passed { rules.rise } else { rules.fall };
        self.streak = if self.checks == Some(passed) { 0 } else { self.streak.saturating_add(1) };
        if self.checks.is_none() || self.streak >= needed {
            (self.checks, self.streak) = (Some(passed), 0);
        }
        match result {
            Ok(depth) => {
                self.passed += 1;
                self.succeed(now, depth);
            }
            Err(trouble) => {
                self.failed += 1;
                self.fail(now, &trouble);
                self.last = Some((now, trouble));
            }
        }
        self.turned(before, now)
    }

    /// When it was last reached.
    pub fn reached(&self) -> Option<Instant> {
        self.reached
    }

    /// Since when it fails, and how it failed last.
    pub fn failing(&self) -> Option<(Instant, &'static str)> {
        self.failing.map(|failing| (failing.since, failing.kind))
    }

    /// What it looks like at `now`.
    pub fn view(&self, now: Instant) -> VitalView {
        let ago = |then: Instant| now.saturating_duration_since(then);
        let known = self.reached.is_some() || self.last.is_some();
        let state = match (self.is_healthy(), known) {
            (true, false) => "unknown",
            (true, true) => "healthy",
            (false, _) => "unhealthy",
        };
        VitalView {
            state,
            since: ago(self.since),
            last_error: self.last.as_ref().map(|(then, trouble)| (trouble.clone(), ago(*then))),
            checks: (self.passed, self.failed),
            checked: self.checked.map(ago),
        }
    }

    /// What got as far as a failure did not get disproves it.
    fn succeed(&mut self, now: Instant, depth: Depth) {
        self.outlier = self.outlier.filter(|failing| failing.depth > depth);
        self.failing = self.failing.filter(|failing| failing.depth > depth);
        if self.failing.is_none() {
            self.reached = Some(now);
        }
    }

    fn fail(&mut self, now: Instant, trouble: &Trouble) {
        self.failing = Some(worse(self.failing, now, trouble));
    }

    fn turned(&mut self, before: bool, now: Instant) -> Option<Turn> {
        let healthy = self.is_healthy();
        if before == healthy {
            return None;
        }
        self.since = now;
        let trouble = self.last.as_ref().map(|(_, trouble)| trouble.clone()).filter(|_| !healthy);
        Some(Turn { healthy, trouble })
    }
}

/// Since the first failure, with the kind of the last.
fn worse(known: Option<Failing>, now: Instant, trouble: &Trouble) -> Failing {
    let since = known.map_or(now, |known| known.since);
    let depth = known.map_or(trouble.depth(), |known| known.depth.max(trouble.depth()));
    Failing { since, kind: trouble.kind, depth }
}

#[cfg(test)]
#[path = "vital_tests.rs"]
mod tests;
