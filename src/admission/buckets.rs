//! Pure: the token bucket of each address, over governor's arithmetic.
//!
//! governor brings the arithmetic (GCRA); the store is ours, because a store must not grow with the addresses that a peer
//! can invent, and so is the clock, because `now` is an argument.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use super::IpKey;
use super::passes::Passes;
use crate::config::RateLimit;

/// Addresses with a bucket of their own; beyond, all new addresses share one bucket until some have expired.
pub const MAX_KEYS: usize = 65_536;
/// While the store is full it is searched for expired buckets at most this often.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// Longest time a bucket may take to fill: governor counts in u64 nanoseconds and multiplies unchecked.
const MAX_FILL: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Every bucket.
pub struct Buckets {
    limiter: RateLimiter<IpKey, Store, GivenClock, NoOpMiddleware<Nanos>>,
    max_keys: usize,
    start: Instant,
    expired: Instant,
    passes: Passes,
}

/// How a connection was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// By one from the bucket.
    ByItself,
    /// With an earlier one: it belongs to the same login.
    WithAnother,
}

impl Buckets {
    /// Full buckets for everybody. `requests_per_sec` may be a fraction; what is not above zero counts as the slowest rate
    /// there is, one in some years.
    pub fn new(rate: RateLimit, max_keys: usize, now: Instant) -> Self {
        let store = Store { max_keys, keys: RefCell::default(), shared: Cell::default() };
        Self {
            limiter: RateLimiter::new(quota(rate), store, GivenClock::default()),
            max_keys,
            start: now,
            expired: now,
            passes: Passes::default(),
        }
    }

    /// Takes one from the bucket of `key`, unless it has a pass.
    ///
    /// # Errors
    /// The time until the bucket has one again.
    pub fn acquire(&mut self, key: IpKey, now: Instant) -> Result<Counted, Duration> {
        if self.passes.take(key, now) {
            return Ok(Counted::WithAnother);
        }
        if self.limiter.len() >= self.max_keys && now.saturating_duration_since(self.expired) >= EXPIRE_EVERY {
            self.expire(now);
        }
        let nanos = self.set_clock(now);
        let taken = self.limiter.check_key(&key).map_err(|not_until| not_until.wait_time_from(nanos));
        taken.map(|()| Counted::ByItself)
    }

    /// Lets the next `connections` of `key` through without taking from its bucket; see [`Passes`].
    pub fn give_passes(&mut self, key: IpKey, connections: u8, now: Instant) {
        self.passes.give(key, connections, now);
    }

    /// Forgets the buckets that are full again.
    pub fn expire(&mut self, now: Instant) {
        self.set_clock(now);
        self.expired = now;
        self.passes.expire(now);
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// Addresses with a bucket of their own.
    pub fn keys(&self) -> usize {
        self.limiter.len()
    }

    fn set_clock(&self, now: Instant) -> Nanos {
        let nanos = now.saturating_duration_since(self.start).as_nanos();
        let nanos = Nanos::new(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.limiter.clock().0.set(nanos);
        nanos
    }
}

fn quota(rate: RateLimit) -> Quota {
    let slowest = MAX_FILL / rate.burst.get();
    let period = Duration::try_from_secs_f64(1.0 / rate.requests_per_sec).unwrap_or(slowest);
    let period = period.clamp(Duration::from_nanos(1), slowest);
    Quota::with_period(period).unwrap_or(Quota::per_second(rate.burst)).allow_burst(rate.burst)
}

/// Time as the caller gave it last, since the start of the limiter.
#[derive(Default)]
struct GivenClock(Cell<Nanos>);

impl Clock for GivenClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.get()
    }
}

/// When each bucket will be full again (GCRA's theoretical arrival time).
struct Store {
    max_keys: usize,
    keys: RefCell<HashMap<IpKey, Nanos>>,
    shared: Cell<Option<Nanos>>,
}

impl StateStore for Store {
    type Key = IpKey;

    fn measure_and_replace<T, F, E>(&self, key: &IpKey, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut keys = self.keys.borrow_mut();
        if let Some(full_at) = keys.get_mut(key) {
            let (answer, next) = f(Some(*full_at))?;
            *full_at = next;
            return Ok(answer);
        }
        if keys.len() < self.max_keys {
            let (answer, next) = f(None)?;
            keys.insert(*key, next);
            return Ok(answer);
        }
        let (answer, next) = f(self.shared.get())?;
        self.shared.set(Some(next));
        Ok(answer)
    }
}

impl ShrinkableKeyedStateStore<IpKey> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        self.keys.borrow_mut().retain(|_, full_at| *full_at > drop_below);
    }

    fn shrink_to_fit(&self) {
        self.keys.borrow_mut().shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.keys.borrow().len()
    }

    fn is_empty(&self) -> bool {
        self.keys.borrow().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn buckets(requests_per_sec: f64, burst: u32, max_keys: usize) -> (Buckets, Instant) {
        let now = Instant::now();
        let rate = RateLimit { requests_per_sec, burst: NonZeroU32::new(burst).unwrap() };
        (Buckets::new(rate, max_keys, now), now)
    }

    fn key(n: u8) -> IpKey {
        IpKey::of([192, 0, 2, n].into())
    }

    #[test]
    fn half_a_connection_a_second_is_one_in_two_seconds() {
        let (mut buckets, now) = buckets(0.5, 1, 10);
        assert_eq!(buckets.acquire(key(1), now), Ok(Counted::ByItself));
        assert_eq!(buckets.acquire(key(1), now), Err(2 * SECOND));
        assert_eq!(buckets.acquire(key(1), now + SECOND), Err(SECOND));
        assert_eq!(buckets.acquire(key(1), now + 2 * SECOND), Ok(Counted::ByItself));
        assert_eq!(buckets.acquire(key(2), now), Ok(Counted::ByItself), "another address has its own bucket");
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let (mut buckets, now) = buckets(10.0, 5, 10);
        let passed = (0..20).filter(|_| buckets.acquire(key(1), now).is_ok()).count();
        assert_eq!(passed, 5);
        let later = (1..=100).filter(|n| buckets.acquire(key(1), now + SECOND * *n / 100).is_ok()).count();
        assert_eq!(later, 10);
    }

    #[test]
    fn new_addresses_share_one_bucket_while_the_store_is_full() {
        let (mut buckets, now) = buckets(1.0, 1, 2);
        assert_eq!(buckets.acquire(key(1), now), Ok(Counted::ByItself));
        assert_eq!(buckets.acquire(key(2), now), Ok(Counted::ByItself));
        assert_eq!(buckets.acquire(key(3), now), Ok(Counted::ByItself), "the shared bucket has one");
        assert_eq!(buckets.acquire(key(4), now), Err(SECOND), "and is empty for the next stranger");
        assert_eq!(buckets.keys(), 2);
    }

    #[test]
    fn full_buckets_expire_and_make_room() {
        let (mut buckets, now) = buckets(1.0, 1, 2);
        buckets.acquire(key(1), now).unwrap();
        buckets.acquire(key(2), now).unwrap();
        assert_eq!(
            buckets.acquire(key(3), now + 3 * SECOND),
            Ok(Counted::ByItself),
            "the search for room is made when it is needed"
        );
        assert_eq!(buckets.keys(), 1);
        buckets.expire(now + 10 * SECOND);
        assert_eq!(buckets.keys(), 0);
    }

    #[test]
    fn a_used_bucket_does_not_expire() {
        let (mut buckets, now) = buckets(0.1, 1, 2);
        buckets.acquire(key(1), now).unwrap();
        buckets.expire(now + 5 * SECOND);
        assert_eq!(buckets.acquire(key(1), now + 5 * SECOND), Err(5 * SECOND));
    }

    #[test]
    fn absurd_rates_are_slow_or_fast_but_never_a_panic() {
        for rate in [f64::MIN_POSITIVE, 1e-300, 1e300, f64::INFINITY, f64::NAN, 0.0, -1.0] {
            for burst in [1, 7, u32::MAX] {
                let (mut buckets, now) = buckets(rate, burst, 10);
                for n in 0..50 {
                    let _ = buckets.acquire(key(1), now + n * 100_000 * SECOND);
                }
                buckets.expire(now);
            }
        }
    }
}
