//! The way in: every question of admission, in the one order in which they are asked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use actix::{Addr, Recipient};
use secrecy::ExposeSecret;

use super::auth::Proof;
use super::buckets::Counted;
use super::challenges::{Challenges, Nonce, Question, Spent};
use super::rate_limiter::{Acquire, Pass};
use super::supervisor::{Admit, Kick};
use super::{
    AuthError, Authenticator, Expect, Granted, Login, Networks, Permit, Proxies, RateLimiter, Refusal, RefusalTeller, Supervisor,
    Tally, TokenId,
};
use crate::config::Security;
use crate::protocol::name::{Action, StreamName};
use crate::telemetry::{Metrics, SessionCell, Waits};

/// Asked by every session. The app makes one for each configuration; sessions keep the one they began with.
pub struct Gate {
    proxies: Proxies,
    networks: Networks,
    authenticator: Authenticator,
    challenges: Challenges,
    /// `None` while no rate is limited: then nobody waits for the answer that is always yes.
    rate_limiter: Option<Addr<RateLimiter>>,
    supervisor: Addr<Supervisor>,
    tally: Tally,
    teller: RefusalTeller,
    /// Tokens that end sessions. Shared by all gates; grows by what reloads take away.
    revoked: Arc<RwLock<BTreeSet<TokenId>>>,
    waits: Option<[Waits; 2]>,
    /// Signs where the operator gave no key.
    random: [u8; 32],
    spent: Arc<Mutex<Spent>>,
}

impl Gate {
    /// `rate_limiter` where a rate is limited. `tally` is the one that both actors were given.
    ///
    /// # Errors
    /// A glob of a token entry that is none.
    pub fn new(
        security: &Security,
        rate_limiter: Option<Addr<RateLimiter>>,
        supervisor: Addr<Supervisor>,
        tally: Tally,
    ) -> Result<Self, super::auth::BadGlob> {
        let (proxies, networks, authenticator) = (Proxies::new(security), networks(security), Authenticator::new(security)?);
        let (teller, revoked, spent) = (RefusalTeller::default(), Arc::default(), Arc::default());
        let random: [u8; 32] = rand::random();
        let challenges = challenges(security, &random);
        Ok(Self {
            proxies,
            networks,
            authenticator,
            challenges,
            rate_limiter,
            supervisor,
            tally,
            teller,
            revoked,
            waits: None,
            random,
            spent,
        })
    }

    /// The gate of another configuration, for whoever comes from now on. Counts, bounds and what was revoked are the same.
    ///
    /// # Errors
    /// A glob of a token entry that is none.
    pub fn changed(&self, security: &Security, rate_limiter: Option<Addr<RateLimiter>>) -> Result<Self, super::auth::BadGlob> {
        Ok(Self {
            proxies: Proxies::new(security),
            networks: networks(security),
            authenticator: self.authenticator.changed(security)?,
            rate_limiter,
            supervisor: self.supervisor.clone(),
            tally: self.tally.clone(),
            teller: self.teller.clone(),
            revoked: Arc::clone(&self.revoked),
            waits: self.waits.clone(),
            challenges: challenges(security, &self.random),
            random: self.random,
            spent: Arc::clone(&self.spent),
        })
    }

    /// Tokens that `self` knows and `new` does not.
    pub fn removed(&self, new: &Self) -> Vec<TokenId> {
        self.authenticator.removed(&new.authenticator)
    }

    /// Nobody gets in with one of `tokens` any more, by whichever gate. Who is in is to be told to end afterwards.
    pub fn revoke(&self, tokens: &[TokenId]) {
        self.revoked.write().unwrap_or_else(PoisonError::into_inner).extend(tokens);
    }

    /// Whether `token` was revoked. To be asked once the session's cell knows the token: from then on a revocation reaches it.
    ///
    /// # Errors
    /// [`Refusal::Auth`], already counted in the tally.
    pub fn still_good(&self, token: Option<TokenId>) -> Result<(), Refusal> {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        match token {
            Some(token) if revoked.contains(&token) => {
                Err(Refusal::from(AuthError::Unknown)).inspect_err(|refusal| self.tally.count(refusal))
            }
            _ => Ok(()),
        }
    }

    /// The same gate, which times its questions to the actors.
    pub fn timed(self, metrics: &Metrics) -> Self {
        Self { waits: Some([metrics.waits("rate_limiter"), metrics.waits("supervisor")]), ..self }
    }

    /// Whether the socket whose peer is `peer` begins with a PROXY header. To be asked before [`Self::admit`].
    pub fn expect_of(&self, peer: IpAddr) -> Expect {
        self.proxies.expect_of(peer)
    }

    /// Asks for a place for the client at `cell.client()`: its network, then its rate, then the connection limits. To be asked
    /// after the PROXY header and before any other byte of the client is read.
    ///
    /// # Errors
    /// Any [`Refusal`] but `Auth`; already counted in the tally.
    pub async fn admit(&self, cell: Arc<SessionCell>, session: Recipient<Kick>) -> Result<Permit, Refusal> {
        let ip = cell.client().ip();
        self.networks.judge(ip).inspect_err(|refusal| self.tally.count(refusal))?;
        let mut counted = Counted::ByItself;
        if let Some(rate_limiter) = &self.rate_limiter {
            let answer = Waits::time(self.waits.as_ref().map(|[waits, _]| waits), rate_limiter.send(Acquire { ip })).await;
            counted = answer.unwrap_or_else(|_| Err(self.unavailable()))?;
        }
        let answer = Waits::time(self.waits.as_ref().map(|[_, waits]| waits), self.supervisor.send(Admit { cell, session }));
        let permit = answer.await.unwrap_or_else(|_| Err(self.unavailable()))?;
        Ok(permit.counted(counted))
    }

    /// The client at `ip`, here by `permit`, was asked to come back on so many more connections: together they count once against its rate.
    /// To be awaited before it is told.
    pub async fn expect_again(&self, permit: &Permit, ip: IpAddr, connections: u8) {
        if let Some(rate_limiter) = self.rate_limiter.as_ref().filter(|_| !permit.passed()) {
            // Where the actor is gone nobody comes in anyway.
            let _ = rate_limiter.send(Pass { ip, connections }).await;
        }
    }

    /// Whether clients must show a token or log in at all.
    pub fn authenticates(&self) -> bool {
        self.authenticator.is_enabled()
    }

    /// Whether to ask a client for user name and password; see [`Authenticator::asks`].
    pub fn asks(&self, app: &[u8], connect_tokens: &[Vec<u8>]) -> bool {
        self.authenticator.asks(app, connect_tokens)
    }

    /// A question for `user` at `ip`, which every relay with the same `auth_secret` knows again.
    pub fn ask(&self, user: &[u8], ip: IpAddr) -> Question {
        self.challenges.ask(user, ip, unix_now(), rand::random::<Nonce>())
    }

    /// Judges the answer `shown` to the question that came back as `opaque`: `expected` makes from its salt and a password what the answer
    /// must be. No answer is taken twice.
    ///
    /// # Errors
    /// [`Refusal::Auth`], already counted in the tally.
    pub fn login(
        &self,
        (user, ip): (&[u8], IpAddr),
        opaque: &[u8],
        shown: &[u8],
        expected: impl Fn(&str, &str) -> String,
    ) -> Result<Login, Refusal> {
        let now = unix_now();
        let login = || {
            let answered = self.challenges.answered(user, ip, now, opaque)?;
            let login = self.authenticator.login(user, shown, |password| expected(&answered.salt, password))?;
            self.spent.lock().unwrap_or_else(PoisonError::into_inner).spend(&answered, now)?;
            Ok(login)
        };
        login().map_err(Refusal::Auth).inspect_err(|refusal| self.tally.count(refusal))
    }

    /// Judges the token, or the proof; see [`Authenticator::authenticate`].
    ///
    /// # Errors
    /// [`Refusal::Auth`], already counted in the tally.
    pub fn authenticate(
        &self,
        action: Action,
        name: &mut StreamName,
        connect_tokens: &[Vec<u8>],
        proof: Option<Proof<'_>>,
    ) -> Result<Granted, Refusal> {
        let granted = self.authenticator.authenticate(action, name, connect_tokens, proof);
        granted.map_err(Refusal::from).inspect_err(|refusal| self.tally.count(refusal))
    }

    /// The same for a client that is asked for a token where it has shown none, and may answer with a proof. Every such login begins
    /// without a token: that alone is not counted.
    ///
    /// # Errors
    /// [`Refusal::Auth`], already counted in the tally unless it is [`AuthError::Missing`].
    pub fn challenge(
        &self,
        action: Action,
        name: &mut StreamName,
        tokens: &[Vec<u8>],
        proof: Option<Proof<'_>>,
    ) -> Result<Granted, Refusal> {
        let granted = self.authenticator.authenticate(action, name, tokens, proof);
        let counts = !matches!(granted, Err(AuthError::Missing));
        granted.map_err(Refusal::from).inspect_err(|refusal| {
            if counts {
                self.tally.count(refusal);
            }
        })
    }

    /// The bound on refused clients that are told why.
    pub fn teller(&self) -> &RefusalTeller {
        &self.teller
    }

    /// The counts of refusals, for those that are decided elsewhere.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn unavailable(&self) -> Refusal {
        self.tally.count(&Refusal::Unavailable);
        Refusal::Unavailable
    }
}

fn networks(security: &Security) -> Networks {
    Networks::new(&security.allowed_clients, &security.denied_clients)
}

fn challenges(security: &Security, random: &[u8]) -> Challenges {
    let key = security.auth_secret.as_ref().map(|key| key.0.expose_secret().as_bytes());
    Challenges::new(key.unwrap_or(random))
}

/// Seconds since 1970; a clock before that is at 0.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::{Instant, SystemTime};

    use actix::{Actor, Context, Handler};
    use secrecy::SecretString;

    use super::*;
    use crate::admission::{asks_nothing, rate_limiter, supervisor};
    use crate::config::{ConnectionLimit, RateLimit, TokenEntry};
    use crate::telemetry::SessionId;

    /// Stands for a ConnectionActor; keeps what it was told.
    #[derive(Default)]
    struct Session(Vec<&'static str>);

    impl Actor for Session {
        type Context = Context<Self>;
    }

    impl Handler<Kick> for Session {
        type Result = ();

        fn handle(&mut self, msg: Kick, _: &mut Self::Context) {
            self.0.push(msg.reason);
        }
    }

    #[derive(actix::Message)]
    #[rtype(result = "Vec<&'static str>")]
    struct Kicks;

    impl Handler<Kicks> for Session {
        type Result = Vec<&'static str>;

        fn handle(&mut self, _: Kicks, _: &mut Self::Context) -> Self::Result {
            self.0.clone()
        }
    }

    struct House {
        gate: Gate,
        limiter: Addr<RateLimiter>,
        session: Addr<Session>,
        ended: supervisor::Ended,
    }

    impl House {
        fn new(security: &Security, max_total_connections: u32, max_per_ip: Option<u32>, rate: Option<RateLimit>) -> Self {
            let tally = Tally::default();
            let limit = ConnectionLimit { max_total_connections, max_per_ip };
            let supervisor = Supervisor::new(limit, tally.clone());
            let ended = supervisor.ended();
            let limiter = RateLimiter::new(rate, tally.clone(), Box::new(|| ())).start();
            let gate = Gate::new(security, Some(limiter.clone()), supervisor.start(), tally).unwrap();
            Self { gate, limiter, session: Session::default().start(), ended }
        }

        fn of_limits(max_total: u32, max_per_ip: Option<u32>) -> Self {
            Self::new(&asks_nothing(), max_total, max_per_ip, None)
        }

        async fn admit(&self, client: &str) -> Result<Permit, Refusal> {
            let client = format!("{client}:4000").parse().unwrap();
            let cell = SessionCell::new(SessionId(1), client, Instant::now(), SystemTime::now());
            self.gate.admit(Arc::new(cell), self.session.clone().recipient()).await
        }

        async fn refused(&self, client: &str) -> &'static str {
            self.admit(client).await.expect_err("no place was expected").reason()
        }

        async fn standing(&self) -> supervisor::Standing {
            self.gate.supervisor.send(supervisor::Snapshot).await.unwrap()
        }
    }

    #[actix::test]
    async fn places_are_given_up_to_the_limit_and_come_back_when_the_permit_drops() {
        let house = House::of_limits(3, None);
        let mut permits = Vec::new();
        for n in 1..=3 {
            permits.push(house.admit(&format!("192.0.2.{n}")).await.unwrap());
        }
        assert_eq!(house.refused("192.0.2.4").await, "max_total");
        permits.pop();
        permits.push(house.admit("192.0.2.4").await.unwrap());
        let standing = house.standing().await;
        assert_eq!((standing.active, standing.addresses, standing.sessions.len()), (3, 3, 3));
        assert!(standing.rejected.contains(&("max_total", 1)));
        drop(permits);
        let standing = house.standing().await;
        assert_eq!((standing.active, standing.addresses, standing.sessions.len()), (0, 0, 0));
    }

    #[actix::test]
    async fn an_address_is_refused_above_its_own_limit_and_the_hint_is_given_once() {
        let house = House::of_limits(100, Some(2));
        let first = house.admit("[2001:db8::1]").await.unwrap();
        let second = house.admit("[2001:db8::2]").await.unwrap();
        assert_eq!((first.fills_address(), second.fills_address()), (false, true));
        let refusal = house.admit("[2001:db8::3]").await.unwrap_err();
        assert_eq!(refusal.to_string(), "connection limit reached: this /64 network already has 2 connections");
        assert!(matches!(refusal, Refusal::MaxPerIp { hint: false, .. }), "said already");
        let mapped = [house.admit("[::ffff:192.0.2.1]").await.unwrap(), house.admit("192.0.2.1").await.unwrap()];
        assert_eq!(house.refused("192.0.2.1").await, "max_per_ip");
        assert_eq!(house.standing().await.per_ip.len(), 2);
        drop((first, second, mapped));
    }

    #[actix::test]
    async fn an_asker_that_leaves_with_its_answer_unread_holds_no_place() {
        let house = House::of_limits(1, None);
        let cell = SessionCell::new(SessionId(1), "192.0.2.1:4000".parse().unwrap(), Instant::now(), SystemTime::now());
        let admit = Admit { cell: Arc::new(cell), session: house.session.clone().recipient() };
        let mut asking = Box::pin(house.gate.supervisor.send(admit));
        assert!(futures_util::poll!(&mut asking).is_pending());
        assert_eq!(house.standing().await.active, 1, "the place was given");
        drop(asking);
        assert_eq!(house.standing().await.active, 0, "and came back unread");
    }

    #[actix::test]
    async fn a_network_is_judged_before_its_rate_and_limits() {
        let security = Security { denied_clients: vec!["192.0.2.0/24".parse().unwrap()], ..asks_nothing() };
        let rate = RateLimit { requests_per_sec: 1e-5, burst: NonZeroU32::MIN };
        let house = House::new(&security, 10, None, Some(rate));
        assert_eq!(house.refused("192.0.2.1").await, "denied_network");
        assert_eq!(house.refused("192.0.2.1").await, "denied_network");
        let standing = house.limiter.send(rate_limiter::Snapshot).await.unwrap();
        assert_eq!(standing.keys, 0, "a denied network costs no bucket");
        let house = House { gate: house.gate.changed(&asks_nothing(), Some(house.limiter.clone())).unwrap(), ..house };
        let _permit = house.admit("192.0.2.1").await.unwrap();
        assert_eq!(house.refused("192.0.2.1").await, "rate_limit");
        let rejected = house.standing().await.rejected;
        assert!(rejected.contains(&("denied_network", 2)) && rejected.contains(&("rate_limit", 1)));
    }

    #[actix::test]
    async fn a_refused_token_is_counted() {
        let token = SecretString::from("secret");
        let entry = TokenEntry { token, name: "studio".into(), publish: true, play: true, streams: Vec::new() };
        let security = Security { auth_enabled: true, auth_tokens: vec![entry], ..asks_nothing() };
        let house = House::new(&security, 10, None, None);
        let mut name = StreamName::parse(b"live", b"cam?token=wrong").unwrap();
        let refusal = house.gate.authenticate(Action::Publish, &mut name, &[], None).unwrap_err();
        assert_eq!(refusal.to_string(), "authentication failed: the token is not known");
        assert!(house.gate.tally().read().contains(&("auth", 1)));
    }

    #[actix::test]
    async fn a_revoked_token_opens_no_gate_of_any_configuration() {
        let entry = |token: &str| {
            let token = SecretString::from(token);
            TokenEntry { token, name: "studio".into(), publish: true, play: true, streams: Vec::new() }
        };
        let security = |token| Security { auth_enabled: true, auth_tokens: vec![entry(token)], ..asks_nothing() };
        let house = House::new(&security("one"), 10, None, None);
        let granted = |gate: &Gate, token: &str| {
            let mut name = StreamName::parse(b"live", b"cam").unwrap();
            gate.authenticate(Action::Publish, &mut name, &[token.into()], None).unwrap().token
        };
        let old = granted(&house.gate, "one");
        let new = house.gate.changed(&security("two"), None).unwrap();
        assert!(house.gate.still_good(old).is_ok(), "who came before the change keeps what it has");
        new.revoke(&house.gate.removed(&new));
        assert!(house.gate.still_good(old).is_err() && new.still_good(old).is_err());
        assert!(new.still_good(granted(&new, "two")).is_ok() && new.still_good(None).is_ok());
    }

    #[actix::test]
    async fn a_drain_lets_nobody_in_and_kicks_whoever_is_there() {
        let house = House::of_limits(10, None);
        let permits = [house.admit("192.0.2.1").await.unwrap(), house.admit("192.0.2.2").await.unwrap()];
        house.gate.supervisor.send(supervisor::Drain).await.unwrap();
        assert_eq!(house.refused("192.0.2.3").await, "draining");
        let told = house.gate.supervisor.send(supervisor::KickAll { reason: "shutdown" }).await.unwrap();
        assert_eq!(told, 2);
        assert_eq!(house.session.send(Kicks).await.unwrap(), ["shutdown"; 2]);
        drop(permits);
        assert_eq!(house.gate.supervisor.send(supervisor::KickAll { reason: "shutdown" }).await.unwrap(), 0);
    }

    #[actix::test]
    async fn a_panic_of_the_supervisor_closes_its_address_and_harms_no_permit() {
        let house = House::of_limits(10, None);
        let permit = house.admit("192.0.2.1").await.unwrap();
        assert!(!house.ended.is_ended());
        assert!(house.gate.supervisor.send(supervisor::Panic).await.is_err());
        house.ended.wait().await;
        assert!(!house.gate.supervisor.connected());
        assert_eq!(house.refused("192.0.2.1").await, "unavailable");
        drop(permit);
    }

    #[actix::test]
    async fn a_rate_limiter_that_is_gone_lets_nobody_in() {
        let house = House::of_limits(10, None);
        house.limiter.send(rate_limiter::Stop).await.unwrap();
        assert_eq!(house.refused("192.0.2.1").await, "unavailable");
        assert!(house.gate.tally().read().contains(&("unavailable", 1)));
    }

    #[actix::test]
    async fn permits_may_be_dropped_on_any_thread() {
        let house = House::of_limits(10, None);
        let permit = house.admit("192.0.2.1").await.unwrap();
        std::thread::spawn(move || drop(permit)).join().unwrap();
        assert_eq!(house.standing().await.active, 0);
    }
}
