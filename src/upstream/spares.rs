//! Pure: how many spare connections does one target have, and how many should there be?

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Pool;

/// As many connections as were wanted in this time are kept, between the two bounds.
const WINDOW: Duration = Duration::from_secs(10);

/// The spare connections of one target.
#[derive(Debug)]
pub(super) struct Spares<T> {
    settings: Pool,
    /// Each with the time at which it was made, the oldest first.
    idle: VecDeque<(Instant, T)>,
    /// When the last ones were wanted; no more of them than there may be spares.
    wanted: VecDeque<Instant>,
}

impl<T> Spares<T> {
    pub(super) fn new(settings: Pool) -> Self {
        Self { settings, idle: VecDeque::new(), wanted: VecDeque::new() }
    }

    /// Somebody wants one at `now`; the oldest that is not too old, and those that are.
    pub(super) fn take(&mut self, now: Instant) -> (Option<T>, Vec<T>) {
        self.wanted.push_back(now);
        if self.wanted.len() > self.settings.max_idle {
            self.wanted.pop_front();
        }
        let old = self.expire(now);
        (self.idle.pop_front().map(|(_, spare)| spare), old)
    }

    /// Takes out those that are too old at `now`.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<T> {
        let fresh = |made: &Instant| now.saturating_duration_since(*made) < self.settings.max_idle_time;
        let old = self.idle.iter().take_while(|(made, _)| !fresh(made)).count();
        self.idle.drain(..old).map(|(_, spare)| spare).collect()
    }

    /// Whether another one should be made at `now`.
    pub(super) fn lacks(&self, now: Instant) -> bool {
        let recent = self.wanted.iter().filter(|then| now.saturating_duration_since(**then) < WINDOW).count();
        self.idle.len() < recent.clamp(self.settings.min_idle, self.settings.max_idle)
    }

    /// Another one was made at `now`.
    pub(super) fn put(&mut self, now: Instant, spare: T) {
        self.idle.push_back((now, spare));
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.idle.drain(..).map(|(_, spare)| spare).collect()
    }

    /// How many there are.
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Pool = Pool { min_idle: 2, max_idle: 4, max_idle_time: Duration::from_secs(20) };

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Makes as many as are lacking.
    fn fill(spares: &mut Spares<u32>, now: Instant) -> usize {
        let before = spares.idle();
        while spares.lacks(now) {
            spares.put(now, 0);
        }
        spares.idle() - before
    }

    #[test]
    fn there_are_as_many_as_were_wanted_lately_within_the_bounds() {
        let now = Instant::now();
        let mut spares = Spares::new(SETTINGS);
        assert_eq!(fill(&mut spares, now), 2, "at least so many");
        for _ in 0..3 {
            spares.take(now);
        }
        assert_eq!((spares.idle(), fill(&mut spares, now)), (0, 3));
        for _ in 0..9 {
            spares.take(now);
        }
        assert_eq!(fill(&mut spares, now), 4, "at most so many");
        let later = now + WINDOW;
        spares.take(later);
        spares.take(later);
        spares.take(later);
        assert_eq!(fill(&mut spares, later), 2, "three were wanted, one was left");
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_too_old_is_not_given() {
        let now = Instant::now();
        let mut spares = Spares::new(SETTINGS);
        for (after, name) in [(0, 'a'), (5, 'b'), (10, 'c')] {
            spares.put(now + secs(after), name);
        }
        assert_eq!(spares.take(now + secs(19)), (Some('a'), vec![]));
        assert_eq!(spares.take(now + secs(25)), (Some('c'), vec!['b']));
        assert_eq!(spares.take(now + secs(25)), (None, vec![]));
    }

    #[test]
    fn without_a_least_number_nobody_is_dialled_for_nobody() {
        let now = Instant::now();
        let mut spares = Spares::new(Pool { min_idle: 0, ..SETTINGS });
        assert_eq!(fill(&mut spares, now), 0);
        assert_eq!(spares.take(now).0, None);
        assert_eq!(fill(&mut spares, now), 1, "somebody came, and another may");
    }

    proptest! {
        #[test]
        fn bounds_are_kept(min_idle in 0..5_usize, more in 0..5_usize, steps in prop::collection::vec((any::<bool>(), 0..8_u64), 0..80)) {
            let settings = Pool { min_idle, max_idle: (min_idle + more).max(1), max_idle_time: secs(20) };
            let (mut now, mut spares) = (Instant::now(), Spares::new(settings));
            for (take, after) in steps {
                now += secs(after);
                if take { spares.take(now); } else { spares.expire(now); }
                fill(&mut spares, now);
                prop_assert!(spares.idle() >= min_idle && spares.idle() <= settings.max_idle);
                prop_assert!(spares.idle.iter().all(|(made, _)| now - *made < settings.max_idle_time));
                prop_assert!(spares.wanted.len() <= settings.max_idle);
            }
        }
    }
}
