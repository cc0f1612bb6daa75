//! Pure: which answers of the resolver are still good? The system's resolver tells no lifetimes, so they are the operator's.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Dns;

/// Names that are remembered. They are those of the configuration, so this is never reached.
pub const MAX_NAMES: usize = 1024;
/// How long nobody asks again after a failure: a burst of dials must not become a burst of look-ups.
const NEGATIVE: Duration = Duration::from_secs(1);
/// The same where an old answer is at hand (RFC 8767 section 5 calls it the failure recheck timer).
const RECHECK: Duration = Duration::from_secs(5);

/// A name and a port.
pub(super) type Key = (String, u16);

/// What came of one look-up. An error is kept in a form that can be repeated.
pub(super) type Answer = Result<Arc<[SocketAddr]>, (io::ErrorKind, String)>;

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// An answer that needs no look-up, or an error that is too young for another one.
    Enough(Answer),
    /// An answer that is too old to be taken without asking, and better than none.
    Stale(Arc<[SocketAddr]>),
    /// Nothing.
    Unknown,
}

/// The answers to look-ups so far.
#[derive(Debug)]
pub(super) struct Answers {
    lifetimes: Dns,
    entries: HashMap<Key, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The last good answer, and until when it is fresh.
    good: Option<(Arc<[SocketAddr]>, Instant, Instant)>,
    /// The failure behind it.
    failed: Option<(Instant, (io::ErrorKind, String))>,
}

impl Answers {
    pub(super) fn new(lifetimes: Dns) -> Self {
        Self { lifetimes, entries: HashMap::new() }
    }

    /// What is known at `now`.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Known {
        let Some(Entry { good, failed }) = self.entries.get(key) else { return Known::Unknown };
        let failed_within = |time: Duration| failed.as_ref().filter(|(then, _)| now.saturating_duration_since(*then) < time);
        match good {
            Some((addresses, _, until)) if now < *until => Known::Enough(Ok(Arc::clone(addresses))),
            Some((addresses, got, _)) if now.saturating_duration_since(*got) < self.usable() => match failed_within(RECHECK) {
                Some(_) => Known::Enough(Ok(Arc::clone(addresses))),
                None => Known::Stale(Arc::clone(addresses)),
            },
            _ => failed_within(NEGATIVE).map_or(Known::Unknown, |(_, error)| Known::Enough(Err(error.clone()))),
        }
    }

    /// A look-up ended at `now`.
    pub(super) fn learn(&mut self, key: Key, now: Instant, answer: Answer) {
        if self.entries.len() >= MAX_NAMES && !self.entries.contains_key(&key) {
            self.forget_one();
        }
        let entry = self.entries.entry(key).or_default();
        match answer {
            Ok(addresses) => {
                entry.good = Some((addresses, now, now + self.lifetimes.cache_ttl));
                entry.failed = None;
            }
            Err(error) => entry.failed = Some((now, error)),
        }
    }

    /// Nobody could be reached at these addresses: they may have changed. A younger answer than a second is not doubted.
    pub(super) fn doubt(&mut self, key: &Key, now: Instant) {
        let good = self.entries.get_mut(key).and_then(|entry| entry.good.as_mut());
        if let Some((_, got, until)) = good.filter(|(_, got, _)| now.saturating_duration_since(*got) >= NEGATIVE) {
            *until = (*until).min(now.max(*got));
        }
    }

    fn usable(&self) -> Duration {
        self.lifetimes.cache_ttl.saturating_add(self.lifetimes.stale_ttl)
    }

    fn forget_one(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.good.as_ref().map(|(_, got, _)| *got));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Dns = Dns { cache_ttl: Duration::from_secs(30), stale_ttl: Duration::from_secs(600) };

    fn key(name: &str) -> Key {
        (name.to_owned(), 1935)
    }

    fn good(last: u8) -> Answer {
        Ok(vec![SocketAddr::from(([192, 0, 2, last], 1935))].into())
    }

    fn bad() -> Answer {
        Err((io::ErrorKind::NotFound, "no such host".into()))
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_is_fresh_then_stale_then_nothing() {
        let start = Instant::now();
        let mut answers = Answers::new(LIFETIMES);
        assert_eq!(answers.get(&key("a"), start), Known::Unknown);
        answers.learn(key("a"), start, good(1));
        assert_eq!(answers.get(&key("a"), start + secs(29)), Known::Enough(good(1)));
        assert_eq!(answers.get(&key("a"), start + secs(30)), Known::Stale(good(1).expect("good")));
        assert_eq!(answers.get(&key("a"), start + secs(629)), Known::Stale(good(1).expect("good")));
        assert_eq!(answers.get(&key("a"), start + secs(630)), Known::Unknown);
        assert_eq!(answers.get(&("a".into(), 1936), start), Known::Unknown, "another port is another question");
    }

    #[test]
    fn a_failure_is_believed_for_a_second_and_for_five_where_an_old_answer_is_at_hand() {
        let start = Instant::now();
        let mut answers = Answers::new(LIFETIMES);
        answers.learn(key("a"), start, bad());
        assert_eq!(answers.get(&key("a"), start + Duration::from_millis(999)), Known::Enough(bad()));
        assert_eq!(answers.get(&key("a"), start + secs(1)), Known::Unknown);
        answers.learn(key("a"), start, good(1));
        answers.learn(key("a"), start + secs(60), bad());
        assert_eq!(answers.get(&key("a"), start + secs(64)), Known::Enough(good(1)), "while DNS is down");
        assert_eq!(answers.get(&key("a"), start + secs(65)), Known::Stale(good(1).expect("good")));
        answers.learn(key("a"), start + secs(66), good(2));
        assert_eq!(answers.get(&key("a"), start + secs(67)), Known::Enough(good(2)));
        answers.learn(key("a"), start + secs(700), bad());
        assert_eq!(answers.get(&key("a"), start + secs(700)), Known::Enough(bad()), "too old to be of use");
    }

    #[test]
    fn an_answer_that_led_nowhere_is_asked_again_before_its_time_but_not_within_a_second() {
        let start = Instant::now();
        let mut answers = Answers::new(LIFETIMES);
        answers.learn(key("a"), start, good(1));
        answers.doubt(&key("a"), start + Duration::from_millis(500));
        assert_eq!(answers.get(&key("a"), start + secs(2)), Known::Enough(good(1)));
        answers.doubt(&key("a"), start + secs(2));
        assert_eq!(
            answers.get(&key("a"), start + secs(2)),
            Known::Stale(good(1).expect("good")),
            "still usable where DNS is down"
        );
        answers.doubt(&key("nobody"), start);
    }

    #[test]
    fn without_lifetimes_every_dial_asks() {
        let start = Instant::now();
        let mut answers = Answers::new(Dns { cache_ttl: secs(0), stale_ttl: secs(0) });
        answers.learn(key("a"), start, good(1));
        assert_eq!(answers.get(&key("a"), start), Known::Unknown);
    }

    #[test]
    fn names_are_bounded_and_the_oldest_goes() {
        let start = Instant::now();
        let mut answers = Answers::new(LIFETIMES);
        for number in 0..MAX_NAMES as u64 + 5 {
            answers.learn(key(&number.to_string()), start + Duration::from_millis(number), good(1));
        }
        assert_eq!(answers.entries.len(), MAX_NAMES);
        assert_eq!(answers.get(&key("4"), start + secs(2)), Known::Unknown);
        assert!(matches!(answers.get(&key("5"), start + secs(2)), Known::Enough(_)));
    }
}
