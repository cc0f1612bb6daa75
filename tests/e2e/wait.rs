//! When is it so? Conditions with deadlines.

use std::time::{Duration, Instant};

/// How long a peer may take to start, to connect, or to say something.
pub const SOON: Duration = Duration::from_secs(15);

/// How long a clip in real time may take, on a machine that is busy with the other tests.
pub const CLIP: Duration = Duration::from_secs(40);

/// Pause between two looks at a condition.
const TICK: Duration = Duration::from_millis(10);

/// Looks until `found` answers; fails the test, naming `what`, when it has not within `within`.
pub fn wait_for<T>(what: &str, within: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain until {what}");
        std::thread::park_timeout(TICK);
    }
}

/// Looks until `done` is true; fails the test, naming `what`, when it is not within `within`.
pub fn wait_until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    wait_for(what, within, || done().then_some(()));
}
