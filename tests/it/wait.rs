//! When is it so? Conditions with deadlines; nothing here guesses how long something takes.

use std::time::{Duration, Instant};

/// How long anything may take that is said to happen at once, on a machine that is busy with the other tests.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Pause between two looks at a condition that cannot wake us.
const TICK: Duration = Duration::from_millis(5);

/// Looks until `found` answers; fails the test, naming `what`, when it has not within [`SOON`].
pub(crate) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} in vain until {what}");
        std::thread::park_timeout(TICK);
    }
}

/// Looks until `done` is true.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for(what, || done().then_some(()));
}

/// Looks until `seen` gives `want`; a failure shows what it gave last.
pub(crate) fn wait_equal<T: PartialEq + std::fmt::Debug>(what: &str, want: &T, mut seen: impl FnMut() -> T) {
    let deadline = Instant::now() + SOON;
    loop {
        let got = seen();
        if got == *want {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: waited {SOON:?} for {want:?}, and it is {got:?}");
        std::thread::park_timeout(TICK);
    }
}

/// Waits until `at`: the pace of a sender, which no condition can give.
pub(crate) fn pace(at: Instant) {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
