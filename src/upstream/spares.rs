//! Pure: how many spare connections does one target have, and how many should there be?

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Pool;

/// As many connections as were wanted in this time are kept, between the two bounds.
const WINDOW: Duration = Duration::from_secs(10);
/// How far chance shortens the time that one may be kept, as a part of it: those that were made together shall not go together.
const JITTER: f64 = 0.2;

/// The spare connections of one target.
#[derive(Debug)]
pub(super) struct Spares<T> {
    settings: Pool,
    idle: VecDeque<Spare<T>>,
    /// When the last ones were wanted; no more of them than there may be spares.
    wanted: VecDeque<Instant>,
}

#[derive(Debug)]
struct Spare<T> {
    connection: T,
    /// When it is too old.
    until: Instant,
}

impl<T> Spares<T> {
    pub(super) fn new(settings: Pool) -> Self {
        Self { settings, idle: VecDeque::new(), wanted: VecDeque::new() }
    }

    /// Somebody wants one at `now`.
    pub(super) fn want(&mut self, now: Instant) {
        self.wanted.push_back(now);
        if self.wanted.len() > self.settings.max_idle {
            self.wanted.pop_front();
        }
    }

    /// The one that was made first of those that are not too old at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        let at = self.idle.iter().position(|spare| now < spare.until)?;
        self.idle.remove(at).map(|spare| spare.connection)
    }

    /// How many more should be made at `now`, where there is `room` for so many in all.
    pub(super) fn lacking(&self, now: Instant, room: usize) -> usize {
        let recent = self.wanted.iter().filter(|then| now.saturating_duration_since(**then) < WINDOW).count();
        recent.clamp(self.settings.min_idle, self.settings.max_idle).min(room).saturating_sub(self.idle.len())
    }

    /// Another one was made at `now`; `chance` is a number in [0, 1).
    pub(super) fn put(&mut self, now: Instant, connection: T, chance: f64) {
        let age = self.settings.max_idle_time.mul_f64(1.0 - JITTER * chance);
        self.idle.push_back(Spare { connection, until: now + age });
    }

    /// Takes out those that are too old at `now`, and those for which there is no `room`.
    pub(super) fn expire(&mut self, now: Instant, room: usize) -> Vec<T> {
        let mut out = self.part(|spare| now < spare.until);
        let over = self.idle.len().saturating_sub(room);
        out.extend(self.idle.drain(..over).map(|spare| spare.connection));
        out
    }

    /// Takes out those of which `is_good` says no.
    pub(super) fn sift(&mut self, mut is_good: impl FnMut(&mut T) -> bool) -> Vec<T> {
        self.part(|spare| is_good(&mut spare.connection))
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.idle.drain(..).map(|spare| spare.connection).collect()
    }

    /// How many there are.
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    fn part(&mut self, mut keep: impl FnMut(&mut Spare<T>) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for mut spare in std::mem::take(&mut self.idle) {
            if keep(&mut spare) {
                self.idle.push_back(spare);
            } else {
                out.push(spare.connection);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Pool = Pool { min_idle: 2, max_idle: 4, max_idle_time: Duration::from_secs(20) };
    const ANY: usize = usize::MAX;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Makes as many as are lacking.
    fn fill(spares: &mut Spares<u32>, now: Instant, room: usize) -> usize {
        let lacking = spares.lacking(now, room);
        (0..lacking).for_each(|_| spares.put(now, 0, 0.0));
        assert_eq!(spares.lacking(now, room), 0);
        lacking
    }

    fn taken(spares: &mut Spares<u32>, now: Instant) -> Option<u32> {
        spares.want(now);
        spares.take(now)
    }

    #[test]
    fn there_are_as_many_as_were_wanted_lately_within_the_bounds() {
        let now = Instant::now();
        let mut spares = Spares::new(SETTINGS);
        assert_eq!(fill(&mut spares, now, ANY), 2, "at least so many");
        (0..3).for_each(|_| {
            taken(&mut spares, now);
        });
        assert_eq!((spares.idle(), fill(&mut spares, now, ANY)), (0, 3));
        (0..9).for_each(|_| {
            taken(&mut spares, now);
        });
        assert_eq!(fill(&mut spares, now, ANY), 4, "at most so many");
        let later = now + WINDOW;
        (0..3).for_each(|_| {
            taken(&mut spares, later);
        });
        assert_eq!(fill(&mut spares, later, ANY), 2, "three were wanted, one was left");
    }

    #[test]
    fn where_there_is_less_room_there_are_fewer() {
        let now = Instant::now();
        let mut spares = Spares::new(SETTINGS);
        assert_eq!((fill(&mut spares, now, 0), fill(&mut spares, now, 1)), (0, 1));
        assert_eq!(fill(&mut spares, now, 2), 1);
        assert_eq!((spares.expire(now, 1).len(), spares.idle()), (1, 1));
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_too_old_is_not_given() {
        let now = Instant::now();
        let mut spares = Spares::new(SETTINGS);
        for (after, name) in [(0, 'a'), (5, 'b'), (10, 'c')] {
            spares.put(now + secs(after), name, 0.0);
        }
        assert_eq!(spares.take(now + secs(19)), Some('a'));
        assert_eq!(spares.take(now + secs(25)), Some('c'));
        assert_eq!(spares.take(now + secs(25)), None);
        assert_eq!(spares.expire(now + secs(25), ANY), ['b']);
    }

    #[test]
    fn chance_parts_those_that_were_made_together_and_makes_none_older() {
        let now = Instant::now();
        let mut spares = Spares::new(SETTINGS);
        for (name, chance) in [('a', 0.0), ('b', 0.5), ('c', 0.999)] {
            spares.put(now, name, chance);
        }
        let gone: Vec<_> = [15, 17, 19, 20].map(|after| spares.expire(now + secs(after), ANY)).into_iter().collect();
        assert_eq!(gone, [vec![], vec!['c'], vec!['b'], vec!['a']]);
    }

    #[test]
    fn without_a_least_number_nobody_is_dialled_for_nobody() {
        let now = Instant::now();
        let mut spares = Spares::new(Pool { min_idle: 0, ..SETTINGS });
        assert_eq!(fill(&mut spares, now, ANY), 0);
        assert_eq!(taken(&mut spares, now), None);
        assert_eq!(fill(&mut spares, now, ANY), 1, "somebody came, and another may");
    }

    proptest! {
        #[test]
        fn bounds_are_kept(min_idle in 0..5_usize, more in 0..5_usize, steps in prop::collection::vec((any::<bool>(), 0..8_u64, 0..9_usize, 0.0..1.0), 0..80)) {
            let settings = Pool { min_idle, max_idle: (min_idle + more).max(1), max_idle_time: secs(20) };
            let (mut now, mut spares) = (Instant::now(), Spares::new(settings));
            for (take, after, room, chance) in steps {
                now += secs(after);
                if take { taken(&mut spares, now); }
                drop(spares.expire(now, room));
                for _ in 0..spares.lacking(now, room) { spares.put(now, 0, chance); }
                prop_assert!(spares.idle() >= min_idle.min(room) && spares.idle() <= settings.max_idle.min(room));
                prop_assert!(spares.idle.iter().all(|spare| now < spare.until && spare.until <= now + settings.max_idle_time));
                prop_assert!(spares.wanted.len() <= settings.max_idle);
            }
        }
    }
}
