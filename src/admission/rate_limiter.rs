//! RateLimiter: does this address connect too often?

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResponse};

use super::buckets::{Buckets, Counted, MAX_KEYS};
use super::{IpKey, Refusal, Tally};
use crate::config::RateLimit;

/// Questions that wait; further askers wait at their own end.
const MAILBOX: usize = 256;
/// Full buckets are forgotten this often.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Asks whether one more connection from an address may come now; it counts if so.
#[derive(Message)]
#[rtype(result = "Result<Counted, Refusal>")]
pub struct Acquire {
    /// The client's address.
    pub ip: IpAddr,
}

/// The next connections of an address belong to a login that has been counted.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Pass {
    /// The client's address.
    pub ip: IpAddr,
    /// How many.
    pub connections: u8,
}

/// Changes the rate, or turns it off with `None`. Every bucket is full afterwards: what was used up is forgotten.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Configure {
    /// The new rate.
    pub rate: Option<RateLimit>,
}

/// Asks how things stand.
#[derive(Message)]
#[rtype(result = "Standing")]
pub struct Snapshot;

/// Panics inside the core, for tests.
#[doc(hidden)]
#[derive(Message)]
#[rtype(result = "Result<Counted, Refusal>")]
pub struct Panic;

/// Ends the actor, for tests.
#[doc(hidden)]
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

/// How the rate limit stands.
#[derive(Debug, Clone, PartialEq, MessageResponse)]
pub struct Standing {
    /// The rate in force; `None` = off.
    pub rate: Option<RateLimit>,
    /// Addresses with a bucket of their own now.
    pub keys: usize,
    /// The most there can be; beyond, new addresses share one bucket.
    pub max_keys: usize,
    /// Connections let through since start.
    pub allowed: u64,
    /// Connections refused since start.
    pub rejected: u64,
    /// Panics after which every bucket was made anew.
    pub panics: u64,
}

/// What is told when the core has panicked and was made anew.
pub type OnPanic = Box<dyn Fn() + Send>;

/// The actor. A panic in its core empties no mailbox: the core is made anew, and the question that caused it refused.
pub struct RateLimiter {
    rate: Option<RateLimit>,
    core: Option<Buckets>,
    tally: Tally,
    on_panic: OnPanic,
    allowed: u64,
    rejected: u64,
    panics: u64,
}

impl RateLimiter {
    /// `rate` `None` lets everybody through and keeps no bucket. `tally` is shared with whoever else refuses; `on_panic` is
    /// called once for each panic of the core.
    pub fn new(rate: Option<RateLimit>, tally: Tally, on_panic: OnPanic) -> Self {
        let core = core(rate);
        Self { rate, core, tally, on_panic, allowed: 0, rejected: 0, panics: 0 }
    }

    /// Asks the core; `None` when it panicked. A rate that is off has no core and answers `off`.
    fn ask<T>(&mut self, off: T, question: impl FnOnce(&mut Buckets, Instant) -> T) -> Option<T> {
        let Some(buckets) = &mut self.core else { return Some(off) };
        let answer = catch_unwind(AssertUnwindSafe(|| question(buckets, Instant::now()))).ok();
        if answer.is_none() {
            self.core = core(self.rate);
            self.panics += 1;
            (self.on_panic)();
        }
        answer
    }

    fn answer(&mut self, answer: Option<Result<Counted, Duration>>) -> Result<Counted, Refusal> {
        let refusal = match answer {
            Some(Ok(counted)) => {
                self.allowed += 1;
                return Ok(counted);
            }
            Some(Err(retry_after)) => {
                self.rejected += 1;
                Refusal::RateLimit { retry_after }
            }
            None => Refusal::Unavailable,
        };
        self.tally.count(&refusal);
        Err(refusal)
    }
}

fn core(rate: Option<RateLimit>) -> Option<Buckets> {
    rate.map(|rate| Buckets::new(rate, MAX_KEYS, Instant::now()))
}

impl Actor for RateLimiter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(EXPIRE_EVERY, |actor, _| {
            actor.ask((), Buckets::expire);
        });
    }
}

impl Handler<Acquire> for RateLimiter {
    type Result = Result<Counted, Refusal>;

    fn handle(&mut self, msg: Acquire, _: &mut Self::Context) -> Self::Result {
        let key = IpKey::of(msg.ip);
        let answer = self.ask(Ok(Counted::ByItself), |buckets, now| buckets.acquire(key, now));
        self.answer(answer)
    }
}

impl Handler<Pass> for RateLimiter {
    type Result = ();

    fn handle(&mut self, msg: Pass, _: &mut Self::Context) {
        let key = IpKey::of(msg.ip);
        self.ask((), |buckets, now| buckets.give_passes(key, msg.connections, now));
    }
}

impl Handler<Configure> for RateLimiter {
    type Result = ();

    fn handle(&mut self, msg: Configure, _: &mut Self::Context) {
        self.core = core(msg.rate);
        self.rate = msg.rate;
    }
}

impl Handler<Snapshot> for RateLimiter {
    type Result = Standing;

    fn handle(&mut self, _: Snapshot, _: &mut Self::Context) -> Standing {
        Standing {
            rate: self.rate,
            keys: self.core.as_ref().map_or(0, Buckets::keys),
            max_keys: MAX_KEYS,
            allowed: self.allowed,
            rejected: self.rejected,
            panics: self.panics,
        }
    }
}

impl Handler<Panic> for RateLimiter {
    type Result = Result<Counted, Refusal>;

    fn handle(&mut self, _: Panic, _: &mut Self::Context) -> Self::Result {
        let answer = self.ask(Ok(Counted::ByItself), |_, _| panic!("injected by a test"));
        self.answer(answer)
    }
}

impl Handler<Stop> for RateLimiter {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use actix::Addr;

    use super::*;

    /// One connection in some days, so that no refill comes between two lines of a test.
    fn rate(burst: u32) -> Option<RateLimit> {
        Some(RateLimit { requests_per_sec: 1e-5, burst: NonZeroU32::new(burst).unwrap() })
    }

    fn start(rate: Option<RateLimit>) -> (Addr<RateLimiter>, Tally) {
        let tally = Tally::default();
        (RateLimiter::new(rate, tally.clone(), Box::new(|| ())).start(), tally)
    }

    async fn acquire(limiter: &Addr<RateLimiter>, ip: &str) -> Option<&'static str> {
        let answer = limiter.send(Acquire { ip: ip.parse().unwrap() }).await.unwrap();
        answer.err().map(|refusal| refusal.reason())
    }

    #[actix::test]
    async fn an_address_is_refused_above_its_rate_and_others_are_not() {
        let (limiter, tally) = start(rate(2));
        assert_eq!(acquire(&limiter, "192.0.2.1").await, None);
        assert_eq!(acquire(&limiter, "::ffff:192.0.2.1").await, None);
        assert_eq!(acquire(&limiter, "192.0.2.1").await, Some("rate_limit"));
        for last in 1..=2 {
            assert_eq!(acquire(&limiter, &format!("2001:db8::{last}")).await, None);
        }
        assert_eq!(acquire(&limiter, "2001:db8::3").await, Some("rate_limit"), "a /64 is one address");
        assert_eq!(acquire(&limiter, "2001:db8:0:1::1").await, None);
        let standing = limiter.send(Snapshot).await.unwrap();
        assert_eq!((standing.keys, standing.allowed, standing.rejected), (3, 5, 2));
        assert!(tally.read().contains(&("rate_limit", 2)));
    }

    #[actix::test]
    async fn a_rate_that_is_off_lets_all_through_and_keeps_no_key() {
        let (limiter, _) = start(None);
        for _ in 0..100 {
            assert_eq!(acquire(&limiter, "192.0.2.1").await, None);
        }
        let standing = limiter.send(Snapshot).await.unwrap();
        assert_eq!((standing.rate, standing.keys, standing.allowed), (None, 0, 100));
    }

    #[actix::test]
    async fn the_steps_of_a_login_count_once_and_passes_beget_none() {
        let (limiter, _) = start(rate(1));
        let ip = "192.0.2.1".parse().unwrap();
        assert_eq!(limiter.send(Acquire { ip }).await.unwrap(), Ok(Counted::ByItself));
        limiter.send(Pass { ip, connections: 2 }).await.unwrap();
        for _ in 0..2 {
            assert_eq!(limiter.send(Acquire { ip }).await.unwrap(), Ok(Counted::WithAnother));
        }
        assert_eq!(acquire(&limiter, "192.0.2.1").await, Some("rate_limit"));
        let (off, _) = start(None);
        off.send(Pass { ip, connections: 2 }).await.unwrap();
        assert_eq!(off.send(Acquire { ip }).await.unwrap(), Ok(Counted::ByItself));
    }

    #[actix::test]
    async fn a_new_rate_holds_from_the_next_connection_and_forgets_the_past() {
        let (limiter, _) = start(rate(1));
        acquire(&limiter, "192.0.2.1").await;
        limiter.send(Configure { rate: rate(1) }).await.unwrap();
        assert_eq!(acquire(&limiter, "192.0.2.1").await, None);
        assert_eq!(acquire(&limiter, "192.0.2.1").await, Some("rate_limit"));
        limiter.send(Configure { rate: None }).await.unwrap();
        assert_eq!(acquire(&limiter, "192.0.2.1").await, None);
    }

    #[actix::test]
    async fn after_a_panic_the_core_is_new_and_the_actor_goes_on() {
        let told = Arc::new(AtomicUsize::new(0));
        let on_panic = Arc::clone(&told);
        let on_panic = Box::new(move || {
            on_panic.fetch_add(1, Relaxed);
        });
        let limiter = RateLimiter::new(rate(1), Tally::default(), on_panic).start();
        acquire(&limiter, "192.0.2.1").await;
        assert_eq!(limiter.send(Panic).await.unwrap(), Err(Refusal::Unavailable));
        assert_eq!(acquire(&limiter, "192.0.2.1").await, None, "the bucket is full again");
        assert_eq!(acquire(&limiter, "192.0.2.1").await, Some("rate_limit"), "and the limit holds");
        assert_eq!(limiter.send(Snapshot).await.unwrap().panics, 1);
        assert_eq!(told.load(Relaxed), 1);
    }
}
