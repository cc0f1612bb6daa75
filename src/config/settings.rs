//! Pure: what the operator chose, judged: every value here is within its bounds, so that nobody has to ask again.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::address::ListenAddr;

mod access;
mod operation;
mod upstreams;

pub use access::{AdobeAuth, Key, ProxyMode, Security, TokenEntry, UserEntry};
pub use operation::{Admin, Drain, Reload};
pub use upstreams::{CheckKind, Dns, HealthCheck, Match, Pool, ProxyProtocol, Route, Strategy, Upstream};

/// The whole configuration. Two that are equal ask for the same behaviour; `Debug` prints no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect.
    pub listen: ListenAddr,
    /// What they must speak there.
    pub listen_tls: Tls,
    /// Where they may connect besides.
    pub listeners: Vec<Listen>,
    /// Where /status, /metrics and their siblings answer; `None` turns HTTP off.
    pub http: Option<ListenAddr>,
    /// Whether that is served by TLS.
    pub http_tls: bool,
    /// Networks that may ask for /status, /metrics and /admin; empty lets everyone.
    pub http_allowed_networks: Vec<IpNetwork>,
    /// The door of operators.
    pub admin: Admin,
    /// Threads that run sessions, 1 to 1024.
    pub workers: usize,
    /// Where streams go; never empty.
    pub upstreams: Vec<Upstream>,
    /// How one of several upstreams is chosen, where no route says otherwise.
    pub strategy: Strategy,
    /// How many times its share of sessions an upstream may have before a publisher of `ConsistentHash` goes on, at least 1;
    /// `None` sets no such bound.
    pub hash_load_factor: Option<f64>,
    /// Which streams go to which upstreams, the first that matches; empty sends all to all.
    pub routes: Vec<Route>,
    /// How upstreams are checked without clients; `None` when off.
    pub health_check: Option<HealthCheck>,
    /// How long answers to look-ups of upstreams' names are good.
    pub dns: Dns,
    /// Dials in progress to one target at the same time, at least 1.
    pub upstream_max_dialing: usize,
    /// Authorities for upstreams that name none themselves; `None`: those of this machine.
    pub upstream_ca_file: Option<PathBuf>,
    /// Which of the client's own query arguments travel on.
    pub forward_query: ForwardQuery,
    /// Every deadline.
    pub timeouts: Timeouts,
    /// How many bytes are held in user space.
    pub buffers: Buffers,
    /// How long a partial message may wait for its rest.
    pub hold: Hold,
    /// How a publisher is held while its upstream is away; `None` when off.
    pub publish_hold: Option<PublishHold>,
    /// Who may publish a stream that is being published.
    pub publish_takeover: Takeover,
    /// Kernel buffer sizes.
    pub tcp: Tcp,
    /// Who may come in, and where the relay may go.
    pub security: Security,
    /// New connections a second for each address; `None` when off.
    pub rate_limit: Option<RateLimit>,
    /// Connections at the same time.
    pub connection_limit: ConnectionLimit,
    /// When an upstream counts as down; `None` when off.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How a failed dial is tried again; `None` when off.
    pub retry: Option<Retry>,
    /// When /ready says no.
    pub ready: Ready,
    /// How a new configuration is taken.
    pub reload: Reload,
    /// How the relay empties.
    pub drain: Drain,
    /// How the relay tells what happens.
    pub log: Log,
}

impl Config {
    /// Every address for clients, with its key and what must be spoken there.
    pub fn doors(&self) -> impl Iterator<Item = (String, ListenAddr, Tls)> {
        let first = ("listen_addr".to_owned(), self.listen, self.listen_tls);
        let others = self.listeners.iter().enumerate();
        std::iter::once(first).chain(others.map(|(index, door)| (format!("listeners[{index}].addr"), door.address, door.tls)))
    }
}

/// A further address for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: ListenAddr,
    /// What must be spoken there.
    pub tls: Tls,
}

/// Which of the client's own query arguments are forwarded to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardQuery {
    /// All of them (less the relay's token).
    All,
    /// None of them.
    None,
    /// Those with one of these keys.
    Keys(Vec<String>),
}

/// Every deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A publisher that sends nothing for so long is ended.
    pub idle: Duration,
    /// A player that is sent nothing for so long is ended; `None` lets it wait.
    pub player_idle: Option<Duration>,
    /// From accept until publish or play is complete (`handshake_timeout`).
    pub preface: Duration,
    /// One try to reach an upstream: look-up, connect and handshake.
    pub dial: Duration,
    /// A peer that takes nothing for so long is ended.
    pub write: Duration,
    /// A publisher's upstream that takes nothing for so long is dead (`upstream_stall_timeout`).
    pub stall: Duration,
    /// From the last accepted client of a drain until what is left is cut; zero cuts at once.
    pub shutdown: Duration,
}

/// Bounds on bytes in user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes from a client held at the same time, 4 KiB to 1 MiB.
    pub read: usize,
    /// Bytes from an upstream held at the same time, 4 KiB to 1 MiB.
    pub write: usize,
    /// Buffers that are kept for the next use.
    pub pool: usize,
    /// Bytes of all buffers together; beyond it messages pass through unheld.
    pub max_total: usize,
}

/// How long a partial message may wait for its rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The longest wait, at most 1 s; zero turns holding off.
    pub max: Duration,
}

/// How a publisher is held while its upstream is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishHold {
    /// The longest time without an upstream.
    pub max_time: Duration,
    /// Most bytes held for one publisher, 64 KiB to 1 GiB.
    pub max_bytes: usize,
    /// Most bytes held for all publishers together.
    pub max_total: usize,
}

/// Who may publish a stream that is being published already; the session that has it is then ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Takeover {
    /// Who has the same token, if it comes from the same address or the one that has the stream has sent nothing for 5 s. Without
    /// authentication only silence counts.
    SameCredential,
    /// Nobody.
    Never,
    /// Everyone who may publish it.
    Always,
}

/// Kernel buffers; `None` leaves them to the kernel, which tunes them by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// SO_RCVBUF in bytes.
    pub recv_buffer: Option<usize>,
    /// SO_SNDBUF in bytes.
    pub send_buffer: Option<usize>,
}

/// What a client must speak on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Plain.
    Off,
    /// TLS.
    Only,
    /// Either: the first byte tells.
    Optional,
}

impl Tls {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Only => "only",
            Self::Optional => "optional",
        }
    }
}

/// The files of TLS for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate and its chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities whose certificate a client must show; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

/// New connections of one address (v6: of one /64).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Connections a second in the long run, 0.0001 to 1,000,000.
    pub requests_per_sec: f64,
    /// Connections at once after a pause.
    pub burst: NonZeroU32,
}

/// Connections at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// In all, at least 1.
    pub max_total_connections: u32,
    /// Of one address (v6: of one /64); `None` sets no limit.
    pub max_per_ip: Option<u32>,
}

/// When an upstream counts as down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Failures in a row that open the circuit, at least 1.
    pub max_failures: u32,
    /// How long it stays open before one probe.
    pub reset_timeout: Duration,
    /// Successes in a row that close it again, at least 1.
    pub success_threshold: u32,
}

/// How a failed dial is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Dials in all, the first included, at least 1.
    pub max_attempts: u32,
    /// The wait before the second dial.
    pub initial_delay: Duration,
    /// The longest wait.
    pub max_delay: Duration,
    /// What a wait is multiplied with to give the next, 1 to 100.
    pub multiplier: f64,
    /// How far chance moves a wait up or down, 0 to 1 of it.
    pub jitter_fraction: f64,
    /// Everything together, from the first dial to giving up.
    pub total_timeout: Duration,
}

/// When /ready says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// How long no upstream must have been reachable.
    pub fail_after: Duration,
}

/// How the relay tells what happens.
#[derive(Debug, Clone)]
pub struct Log {
    /// Shape of a line.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: LogLevel,
    /// Where lines go.
    pub output: LogOutput,
    /// Whether stream names can be read.
    pub stream_names: StreamNames,
    /// Key of the fingerprints that stand for stream names; `None` takes a new random one at each start.
    pub fingerprint_key: Option<SecretString>,
}

impl PartialEq for Log {
    fn eq(&self, other: &Self) -> bool {
        let parts = |log: &Self| (log.format, log.level, log.output.clone(), log.stream_names);
        let key = |log: &Self| log.fingerprint_key.as_ref().map(|key| key.expose_secret().to_owned());
        parts(self) == parts(other) && key(self) == key(other)
    }
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    Path(PathBuf),
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// One sentence a line, for people.
    Text,
}

/// How important a log line must be to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Faults of the relay.
    Error,
    /// What an operator should look at.
    Warn,
    /// Each session's end and each change of state.
    Info,
    /// Each step of a session.
    Debug,
    /// Each message.
    Trace,
}

impl LogLevel {
    /// The word of the configuration, which `tracing` understands too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Whether stream names can be read in logs and /status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamNames {
    /// A short stable fingerprint stands for the name: for many users a stream name is the key that lets publish.
    Masked,
    /// As the client sent it.
    Plain,
}
