//! One session's facts as others may read them while it runs: written by the session alone, read by /status and the collector.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Number of a session, unique in one run of the relay, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A counter with one writer: an addition is a load and a store, without a locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the session that owns the cell may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What went in one direction.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of the stream written, without TLS.
    pub bytes: Count,
    /// Audio, video and data messages that have wholly arrived.
    pub messages: Count,
    /// Reads from the source socket that returned bytes.
    pub reads: Count,
    /// Writes to the destination socket that took bytes.
    pub writes: Count,
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// From accept until publish or play is complete.
    Negotiating = 0,
    /// An upstream is being looked for.
    Dialing = 1,
    /// Bytes pass.
    Relaying = 2,
    /// One side has ended; the other is being told.
    Closing = 3,
    /// A publisher whose upstream is gone; another is being looked for.
    Holding = 4,
}

impl State {
    /// The word in /status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Negotiating => "negotiating",
            Self::Dialing => "dialing",
            Self::Relaying => "relaying",
            Self::Closing => "closing",
            Self::Holding => "holding",
        }
    }

    fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Dialing,
            2 => Self::Relaying,
            3 => Self::Closing,
            4 => Self::Holding,
            _ => Self::Negotiating,
        }
    }
}

/// What becomes known in the course of a session.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// "rtmp", "rtmps", "rtsp" or "rtsps": how the client came.
    pub protocol: Option<&'static str>,
    /// "publish" or "play".
    pub action: Option<&'static str>,
    /// The app, already masked as the log settings ask.
    pub app: Option<String>,
    /// The stream, already masked as the log settings ask.
    pub stream: Option<String>,
    /// Fingerprint of `app/stream`, by which /status finds a stream whose name is masked.
    pub fingerprint: Option<String>,
    /// The name (never the value) of the token that let the client in.
    pub token_name: Option<String>,
    /// Its number, by which a revocation finds the session.
    pub token: Option<u64>,
    /// Whether the client has announced that it heeds a request to connect anew (Enhanced RTMP, `capsEx`).
    pub reconnects: bool,
    /// Label of the upstream, without credentials or key.
    pub upstream: Option<String>,
    /// Address that the upstream connection reached.
    pub upstream_addr: Option<SocketAddr>,
}

/// Whose connection it is, as a trusted proxy told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The client.
    pub client: SocketAddr,
    /// Where it connected to.
    pub reached: SocketAddr,
}

/// One row of `/status` `.connections.sessions`.
#[derive(Debug)]
pub struct SessionCell {
    /// Number of the session.
    pub id: SessionId,
    /// Address of the socket's peer: the client, or its proxy.
    peer: SocketAddr,
    claim: OnceLock<Claim>,
    /// When the socket was accepted, on the wall clock.
    pub started_at: SystemTime,
    /// The same on the monotonic clock.
    pub started: Instant,
    /// Client to upstream.
    pub to_upstream: Traffic,
    /// Upstream to client.
    pub to_client: Traffic,
    /// How often its upstream went away and it was held.
    pub holds: Count,
    state: AtomicU8,
    active_ms: AtomicU64,
    heard_ms: AtomicU64,
    facts: Mutex<Facts>,
}

impl SessionCell {
    /// A cell for a socket with this peer, accepted now.
    pub fn new(id: SessionId, peer: SocketAddr, started: Instant, started_at: SystemTime) -> Self {
        Self {
            id,
            peer,
            claim: OnceLock::new(),
            started_at,
            started,
            to_upstream: Traffic::default(),
            to_client: Traffic::default(),
            holds: Count::default(),
            state: AtomicU8::new(State::Negotiating as u8),
            active_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            facts: Mutex::new(Facts::default()),
        }
    }

    /// Address of the client: what limits, logs and /status go by.
    pub fn client(&self) -> SocketAddr {
        self.claim.get().map_or(self.peer, |claim| claim.client)
    }

    /// The trusted proxy that the client came through, if one told of it.
    pub fn proxy(&self) -> Option<SocketAddr> {
        self.claim.get().map(|_| self.peer)
    }

    /// Where the client connected to, as its proxy told.
    pub fn reached(&self) -> Option<SocketAddr> {
        self.claim.get().map(|claim| claim.reached)
    }

    /// Believes the peer, once and before anybody else has the cell: the connection is another's.
    pub fn believe(&self, claim: Claim) {
        // A second header is no header: nobody asks for one.
        let _ = self.claim.set(claim);
    }

    /// Where the session is.
    pub fn state(&self) -> State {
        State::from_u8(self.state.load(Relaxed))
    }

    /// Moves the session to `state`.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    /// Notes that a byte moved at `now`.
    pub fn touch(&self, now: Instant) {
        self.active_ms.store(self.since_start(now), Relaxed);
    }

    /// Notes that the client sent something at `now`.
    pub fn hear(&self, now: Instant) {
        self.heard_ms.store(self.since_start(now), Relaxed);
    }

    /// Time since the client last sent something.
    pub fn unheard_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started + Duration::from_millis(self.heard_ms.load(Relaxed)))
    }

    /// Time since a byte last moved, in either direction.
    pub fn quiet_for(&self, now: Instant) -> Duration {
        let active = self.started + Duration::from_millis(self.active_ms.load(Relaxed));
        now.saturating_duration_since(active)
    }

    /// What is known by now.
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    /// Whether this is the stream with `fingerprint`.
    pub fn is_stream(&self, fingerprint: &str) -> bool {
        self.lock().fingerprint.as_deref() == Some(fingerprint)
    }

    /// Adds to what is known.
    pub fn learn(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock());
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
