//! Who publishes which stream through this relay?
//!
//! A stream has one publisher: [`Claims::claim`] gives its name away, once, until the [`Claim`] is dropped. A newcomer that may take
//! it over gets the name at once and the old session is told to end; the newcomer waits for [`Former::gone`], which comes when
//! the old one has ended its upstream's leg.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::Recipient;
use tokio_util::sync::CancellationToken;

use super::supervisor::Kick;
use super::takeover::{self, Party, Verdict};
use crate::config::Takeover;
use crate::protocol::name::Identity;
use crate::telemetry::SessionCell;

/// The reason that an old session is told.
pub const TAKEN_OVER: &str = "taken_over";
/// So that publishers who come at the same time seldom wait for each other.
const SHARDS: usize = 16;
/// No upstream yet.
const NOWHERE: u32 = u32::MAX;

type Shard = HashMap<Identity, Holder>;

/// One for all workers. Holds one entry for each publisher, which the permits bound.
#[derive(Debug)]
pub struct Claims {
    policy: Takeover,
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    serial: AtomicU64,
}

/// Who wants to publish.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// What is compared with others.
    pub party: Party,
    /// Says when it has last sent something.
    pub cell: Arc<SessionCell>,
    /// Where to tell it to end.
    pub session: Recipient<Kick>,
}

#[derive(Debug)]
struct Holder {
    serial: u64,
    publisher: Publisher,
    gone: CancellationToken,
    upstream: Arc<AtomicU32>,
}

/// The right to publish a stream, until this is dropped.
#[derive(Debug)]
#[must_use = "the name is free again when this is dropped"]
pub struct Claim {
    claims: Arc<Claims>,
    name: Identity,
    serial: u64,
    gone: CancellationToken,
    upstream: Arc<AtomicU32>,
}

/// The publisher that had the stream before.
#[derive(Debug, Clone)]
pub struct Former {
    gone: CancellationToken,
    upstream: u32,
}

/// Somebody else has the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is worth asking again after so long.
    For(Duration),
    /// It is not.
    Held,
}

impl Claims {
    /// Nobody publishes anything yet.
    pub fn new(policy: Takeover) -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { policy, shards, hasher: RandomState::new(), serial: AtomicU64::new(0) })
    }

    /// Claims `name` for `publisher` at `now`. Where that ends an old session, [`Former`] says when it has ended.
    ///
    /// # Errors
    /// [`Taken`].
    pub fn claim(
        self: &Arc<Self>,
        name: &Identity,
        publisher: &Publisher,
        now: Instant,
    ) -> Result<(Claim, Option<Former>), Taken> {
        let mut shard = self.shard(name);
        let former = match shard.get(name) {
            None => None,
            Some(old) => Some(self.judge(old, publisher, now)?),
        };
        let serial = self.serial.fetch_add(1, Relaxed);
        let (gone, upstream) = (CancellationToken::new(), Arc::new(AtomicU32::new(NOWHERE)));
        let holder = Holder { serial, publisher: publisher.clone(), gone: gone.clone(), upstream: Arc::clone(&upstream) };
        let old = shard.insert(name.clone(), holder);
        drop(shard);
        if let Some(old) = old {
            // A full mailbox holds kicks already.
            let _ = old.publisher.session.try_send(Kick { reason: TAKEN_OVER });
        }
        Ok((Claim { claims: Arc::clone(self), name: name.clone(), serial, gone, upstream }, former))
    }

    /// Streams that are being published.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn judge(&self, old: &Holder, new: &Publisher, now: Instant) -> Result<Former, Taken> {
        let silent = old.publisher.cell.unheard_for(now);
        match takeover::judge(self.policy, &old.publisher.party, silent, &new.party) {
            Verdict::TakeOver => Ok(Former { gone: old.gone.clone(), upstream: old.upstream.load(Relaxed) }),
            Verdict::Wait(time) => Err(Taken::For(time)),
            Verdict::Refuse => Err(Taken::Held),
        }
    }

    fn shard(&self, name: &Identity) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(name);
        let at = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        lock(&self.shards[at])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claim {
    /// It is published at the upstream of this number from now on.
    pub fn is_at(&self, upstream: u32) {
        self.upstream.store(upstream, Relaxed);
    }

    /// Gives this one up for `name`, with the token of that name.
    ///
    /// # Errors
    /// [`Taken`]: then neither is claimed. Nobody is taken over from.
    pub fn again(self, name: &Identity, token_name: Option<Arc<str>>, now: Instant) -> Result<Self, Taken> {
        let claims = Arc::clone(&self.claims);
        let mut publisher = claims.shard(&self.name).get(&self.name).map(|holder| holder.publisher.clone()).ok_or(Taken::Held)?;
        publisher.party.token_name = token_name;
        if claims.shard(name).contains_key(name) {
            return Err(Taken::Held);
        }
        claims.claim(name, &publisher, now).map(|(claim, _)| claim)
    }

    /// The stream.
    pub fn name(&self) -> &Identity {
        &self.name
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut shard = self.claims.shard(&self.name);
        if shard.get(&self.name).is_some_and(|holder| holder.serial == self.serial) {
            shard.remove(&self.name);
        }
        drop(shard);
        self.gone.cancel();
    }
}

impl Former {
    /// Resolves once its upstream has been told that it is over.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// The number of the upstream where it published, if it had come so far.
    pub fn upstream(&self) -> Option<u32> {
        Some(self.upstream).filter(|&upstream| upstream != NOWHERE)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use actix::{Actor, Context, Handler};
    use futures_util::FutureExt;

    use super::*;
    use crate::admission::IpKey;
    use crate::telemetry::SessionId;

    struct Session;

    impl Actor for Session {
        type Context = Context<Self>;
    }

    impl Handler<Kick> for Session {
        type Result = ();

        fn handle(&mut self, kick: Kick, _: &mut Self::Context) {
            assert_eq!(kick.reason, TAKEN_OVER);
        }
    }

    fn publisher(token: &str) -> Publisher {
        let client = "192.0.2.1:4000".parse().unwrap();
        let cell = Arc::new(SessionCell::new(SessionId(1), client, Instant::now(), SystemTime::now()));
        cell.hear(Instant::now());
        let party = Party { token_name: Some(token.into()), address: IpKey::of(client.ip()) };
        Publisher { party, cell, session: Session.start().recipient() }
    }

    fn name(stream: &str) -> Identity {
        Identity { app: b"live".to_vec(), stream: stream.into() }
    }

    #[actix::test]
    async fn a_name_has_one_owner_and_is_free_again_when_its_claim_drops() {
        let claims = Claims::new(Takeover::SameCredential);
        let (claim, former) = claims.claim(&name("cam"), &publisher("a"), Instant::now()).unwrap();
        assert!(former.is_none());
        assert_eq!(claims.claim(&name("cam"), &publisher("b"), Instant::now()).unwrap_err(), Taken::Held);
        let other = claims.claim(&name("mic"), &publisher("b"), Instant::now()).unwrap();
        assert_eq!(claims.count(), 2);
        drop(claim);
        let _again = claims.claim(&name("cam"), &publisher("b"), Instant::now()).unwrap();
        drop(other);
        assert_eq!(claims.count(), 1);
    }

    #[actix::test]
    async fn the_same_client_takes_over_and_the_old_claim_does_not_free_the_name_when_it_drops() {
        let claims = Claims::new(Takeover::SameCredential);
        let (old, _) = claims.claim(&name("cam"), &publisher("a"), Instant::now()).unwrap();
        old.is_at(3);
        let (new, former) = claims.claim(&name("cam"), &publisher("a"), Instant::now()).unwrap();
        let former = former.expect("somebody had it");
        assert_eq!(former.upstream(), Some(3));
        assert_eq!(former.gone().now_or_never(), None);
        drop(old);
        former.gone().await;
        assert_eq!(claims.count(), 1, "the newcomer has it");
        assert_eq!(claims.claim(&name("cam"), &publisher("b"), Instant::now()).unwrap_err(), Taken::Held);
        drop(new);
        assert_eq!(claims.count(), 0);
    }

    #[actix::test]
    async fn one_that_has_stopped_sending_is_waited_for_and_then_taken_for_gone() {
        let claims = Claims::new(Takeover::SameCredential);
        let (mut old, mut new) = (publisher("a"), publisher("a"));
        (old.party.token_name, new.party.token_name) = (None, None);
        let _old = claims.claim(&name("cam"), &old, Instant::now()).unwrap();
        assert_eq!(claims.claim(&name("cam"), &new, Instant::now()).unwrap_err(), Taken::Held);
        let later = Instant::now() + Duration::from_secs(3);
        assert!(matches!(claims.claim(&name("cam"), &new, later), Err(Taken::For(time)) if time <= Duration::from_secs(2)));
        let later = Instant::now() + takeover::SILENT;
        let (_new, former) = claims.claim(&name("cam"), &new, later).unwrap();
        assert_eq!(former.and_then(|former| former.upstream()), None);
    }
}
