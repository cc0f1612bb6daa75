//! Who publishes which stream through this relay?
//!
//! A stream has one publisher: [`Claim::take`] gives its name away, once, until the [`Claim`] lets go of it. A newcomer that may take
//! it over gets the name at once and the old session is told to end; the newcomer waits for [`Former::gone`], which comes when
//! the old one has ended its upstream's leg.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::Recipient;
use tokio_util::sync::CancellationToken;

use super::supervisor::{Kick, Manner};
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
    policy: Mutex<Takeover>,
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

/// One session's right to publish a stream, if it has one; given back when this is dropped.
#[derive(Debug)]
#[must_use = "the name is free again when this is dropped"]
pub struct Claim {
    claims: Arc<Claims>,
    publisher: Publisher,
    name: Option<Taking>,
}

#[derive(Debug)]
struct Taking {
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
        Arc::new(Self { policy: Mutex::new(policy), shards, hasher: RandomState::new(), serial: AtomicU64::new(0) })
    }

    /// From now on another policy holds, for every session.
    pub fn configure(&self, policy: Takeover) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// For a session that has no stream yet.
    pub fn visitor(self: &Arc<Self>, publisher: Publisher) -> Claim {
        Claim { claims: Arc::clone(self), publisher, name: None }
    }

    /// Streams that are being published.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn judge(&self, old: &Holder, new: &Publisher, now: Instant) -> Result<Former, Taken> {
        let silent = old.publisher.cell.unheard_for(now);
        let policy = *self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        match takeover::judge(policy, &old.publisher.party, silent, &new.party) {
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
    /// Takes `name` at `now`, and lets go of the one it had. Where that ends an old session, [`Former`] says when it has ended.
    ///
    /// # Errors
    /// [`Taken`]: then it has what it had.
    pub fn take(&mut self, name: &Identity, now: Instant) -> Result<Option<Former>, Taken> {
        let claims = Arc::clone(&self.claims);
        let mut shard = claims.shard(name);
        let former = match shard.get(name) {
            None => None,
            Some(old) => Some(claims.judge(old, &self.publisher, now)?),
        };
        let old = self.enter(&mut shard, name);
        drop(shard);
        if let Some(old) = old {
            // A full mailbox holds kicks already.
            let _ = old.publisher.session.try_send(Kick { reason: TAKEN_OVER, manner: Manner::Now });
        }
        Ok(former)
    }

    /// Takes `name`, which the token of this name opens, if nobody has it, and lets go of the one it had.
    ///
    /// # Errors
    /// [`Taken`]: then it has none.
    pub fn take_free(&mut self, name: &Identity, token_name: Option<Arc<str>>) -> Result<(), Taken> {
        self.release();
        self.publisher.party.token_name = token_name;
        let claims = Arc::clone(&self.claims);
        let mut shard = claims.shard(name);
        if shard.contains_key(name) {
            return Err(Taken::Held);
        }
        self.enter(&mut shard, name);
        Ok(())
    }

    /// Lets go of the name: whoever wants it may have it.
    pub fn release(&mut self) {
        let Some(Taking { name, serial, gone, .. }) = self.name.take() else { return };
        let mut shard = self.claims.shard(&name);
        if shard.get(&name).is_some_and(|holder| holder.serial == serial) {
            shard.remove(&name);
        }
        drop(shard);
        gone.cancel();
    }

    /// It is published at the upstream of this number from now on.
    pub fn is_at(&self, upstream: u32) {
        if let Some(taking) = &self.name {
            taking.upstream.store(upstream, Relaxed);
        }
    }

    /// The stream that it has.
    pub fn name(&self) -> Option<&Identity> {
        self.name.as_ref().map(|taking| &taking.name)
    }

    /// Whoever had the name before.
    fn enter(&mut self, shard: &mut Shard, name: &Identity) -> Option<Holder> {
        let serial = self.claims.serial.fetch_add(1, Relaxed);
        let (gone, upstream) = (CancellationToken::new(), Arc::new(AtomicU32::new(NOWHERE)));
        let holder = Holder { serial, publisher: self.publisher.clone(), gone: gone.clone(), upstream: Arc::clone(&upstream) };
        let taking = Taking { name: name.clone(), serial, gone, upstream };
        debug_assert!(self.name.is_none(), "one name at a time");
        self.name = Some(taking);
        shard.insert(name.clone(), holder)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
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

    fn taken(claims: &Arc<Claims>, stream: &str, publisher: Publisher) -> Result<(Claim, Option<Former>), Taken> {
        let mut claim = claims.visitor(publisher);
        claim.take(&name(stream), Instant::now()).map(|former| (claim, former))
    }

    #[actix::test]
    async fn a_name_has_one_owner_and_is_free_again_when_its_claim_drops() {
        let claims = Claims::new(Takeover::SameCredential);
        let (claim, former) = taken(&claims, "cam", publisher("a")).unwrap();
        assert!(former.is_none());
        assert_eq!(taken(&claims, "cam", publisher("b")).unwrap_err(), Taken::Held);
        let other = taken(&claims, "mic", publisher("b")).unwrap();
        assert_eq!(claims.count(), 2);
        drop(claim);
        let _again = taken(&claims, "cam", publisher("b")).unwrap();
        drop(other);
        assert_eq!(claims.count(), 1);
    }

    #[actix::test]
    async fn the_same_client_takes_over_and_the_old_claim_does_not_free_the_name_when_it_drops() {
        let claims = Claims::new(Takeover::SameCredential);
        let (old, _) = taken(&claims, "cam", publisher("a")).unwrap();
        old.is_at(3);
        let (new, former) = taken(&claims, "cam", publisher("a")).unwrap();
        let former = former.expect("somebody had it");
        assert_eq!(former.upstream(), Some(3));
        assert_eq!(former.gone().now_or_never(), None);
        drop(old);
        former.gone().await;
        assert_eq!(claims.count(), 1, "the newcomer has it");
        assert_eq!(taken(&claims, "cam", publisher("b")).unwrap_err(), Taken::Held);
        drop(new);
        assert_eq!(claims.count(), 0);
    }

    #[actix::test]
    async fn a_session_changes_its_stream_for_a_free_one_only_and_takes_nobody_over_with_that() {
        let claims = Claims::new(Takeover::Always);
        let (mut claim, _) = taken(&claims, "cam", publisher("a")).unwrap();
        let (other, _) = taken(&claims, "mic", publisher("a")).unwrap();
        assert_eq!(claim.take_free(&name("mic"), None), Err(Taken::Held));
        assert_eq!((claim.name(), claims.count()), (None, 1));
        drop(other);
        assert_eq!(claim.take_free(&name("mic"), None), Ok(()));
        assert_eq!((claim.name(), claims.count()), (Some(&name("mic")), 1));
        claim.release();
        claim.release();
        assert_eq!(claims.count(), 0);
    }

    #[actix::test]
    async fn one_that_has_stopped_sending_is_waited_for_and_then_taken_for_gone() {
        let claims = Claims::new(Takeover::SameCredential);
        let (mut old, mut new) = (publisher("a"), publisher("a"));
        (old.party.token_name, new.party.token_name) = (None, None);
        let _old = taken(&claims, "cam", old).unwrap();
        let mut new = claims.visitor(new);
        assert_eq!(new.take(&name("cam"), Instant::now()).unwrap_err(), Taken::Held);
        let later = Instant::now() + Duration::from_secs(3);
        assert!(matches!(new.take(&name("cam"), later), Err(Taken::For(time)) if time <= Duration::from_secs(2)));
        let former = new.take(&name("cam"), Instant::now() + takeover::SILENT).unwrap();
        assert_eq!(former.and_then(|former| former.upstream()), None);
    }
}
