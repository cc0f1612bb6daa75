//! Pure: the configuration as it stands in the JSON: every key, its type, its bounds and its default, each said once.
//!
//! `schema` derives from these types what `--print-schema` prints, what `shape` checks, and the name of each variable;
//! `Default` is the only place of a default. The comment of a field is its description in the schema.

mod operation;
mod upstreams;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::{RawToken, RawUser, Span};
use super::secret::Hidden;
use super::settings::{AdobeAuth, ForwardQuery, LogFormat, LogLevel, ProxyMode, StreamNames, Takeover, Tls};

pub(super) use upstreams::{
    DnsSection, HealthCheckSection, PoolSection, RawAction, RawMatch, RawProtocol, RawRoute, RawStrategy, RawUpstream,
};

pub(super) use operation::{DrainSection, ReloadSection};

/// Configuration of relay. `//` and `/* */` comments may stand anywhere.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "relay configuration")]
pub(super) struct File {
    /// Address for clients. ":1935" is every address of the machine, v4 and v6.
    pub(super) listen_addr: String,
    /// Further addresses for clients, as [{"addr": ":443", "tls": "only"}].
    pub(super) listeners: Vec<RawListener>,
    /// Address for /status, /metrics, /health and /ready. "" turns HTTP off.
    pub(super) http_addr: String,
    /// Whether http_addr is served by TLS, with the certificate of security.tls_cert.
    pub(super) http_tls: bool,
    /// Networks that may ask for /status, /metrics and /admin. Empty: everyone who can reach http_addr or admin_addr.
    pub(super) http_allowed_networks: Vec<String>,
    /// Address for /admin, where operators act: sessions, upstreams, reload, drain. "" turns it off. A loopback address, unless security.admin_token is set.
    pub(super) admin_addr: String,
    /// Whether admin_addr is served by TLS, with the certificate of security.tls_cert.
    pub(super) admin_tls: bool,
    /// Threads that run sessions. 0: one for each processor.
    #[schemars(range(max = 1024))]
    pub(super) workers: u64,
    /// Where streams go: "rtmp://host[:port][/app[/stream]][?query]". What the URL leaves out is the client's own; {app} and {stream} may stand in path and query. Needed, unless `upstreams` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Hidden", extend("writeOnly" = true))]
    pub(super) upstream: Option<Hidden>,
    /// Several places for streams to go, in place of `upstream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<RawUpstream>", extend("writeOnly" = true))]
    pub(super) upstreams: Option<Vec<RawUpstream>>,
    /// How one of several upstreams is chosen. round_robin: in turn; random; least_connections: where this relay has the fewest sessions; consistent_hash: by the stream's name; failover: the first that works. All but failover heed weights. A player always goes first to the upstream where this relay has its stream live.
    pub(super) upstream_strategy: RawStrategy,
    /// For consistent_hash: a publisher goes on to the next upstream where its own has more than so many times its share of this relay's sessions. 0: no such bound, so that several relays agree on the upstream of a stream; else 1 or more.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub(super) upstream_hash_load_factor: f64,
    /// Which streams go to which upstreams; the first that matches counts, and a stream that none matches is refused. Empty: all streams go to all upstreams.
    pub(super) routes: Vec<RawRoute>,
    /// Dials that may be in progress to one upstream at the same time; more wait their turn.
    #[schemars(range(min = 1, max = 10000))]
    pub(super) upstream_max_dialing: u64,
    /// TLS to upstreams whose URL begins rtmps:// or rtsps://.
    pub(super) upstream_tls: UpstreamTlsSection,
    /// Which of the client's own query arguments go to the upstream (the token never does): "all", "none", or a list of keys.
    pub(super) forward_query: ForwardQuery,
    /// A publisher that sends nothing for so long is closed.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "30days"))]
    pub(super) idle_timeout: Span,
    /// A player that is sent nothing for so long is closed. "0s": it may wait as long as it likes.
    #[schemars(extend("x-maximum" = "30days"))]
    pub(super) player_idle_timeout: Span,
    /// From a client's arrival until its publish or play must be complete.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "5m"))]
    pub(super) handshake_timeout: Span,
    /// One try to reach the upstream: name look-up, connection and handshake.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "5m"))]
    pub(super) dial_timeout: Span,
    /// A peer that takes nothing of what is sent to it for so long is closed (a paused player too).
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub(super) write_timeout: Span,
    /// An upstream that takes nothing of a publisher's stream for so long is dead: another is looked for. At most write_timeout counts.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub(super) upstream_stall_timeout: Span,
    /// From the end of drain.delay until what is left of the sessions is cut. "0s": at once.
    #[schemars(extend("x-maximum" = "1h"))]
    pub(super) shutdown_timeout: Span,
    /// Bytes from the client that one session may hold.
    #[schemars(range(min = 4096, max = 1048576))]
    pub(super) read_buffer: u64,
    /// Bytes from the upstream that one session may hold.
    #[schemars(range(min = 4096, max = 1048576))]
    pub(super) write_buffer: u64,
    /// Memory for bytes in hand.
    pub(super) buffers: BuffersSection,
    /// Waiting for the rest of a partial frame.
    pub(super) hold: HoldSection,
    /// Keeping a publisher whose upstream is gone, until another takes its stream. RTMP only.
    pub(super) publish_hold: PublishHoldSection,
    /// Who may take over a stream that is being published: "same_credential" (who has the same token, from the same address or once the old publisher has been silent for 5 s; without authentication only the silence counts), "never" (nobody), or "always" (whoever may publish it).
    pub(super) publish_takeover: Takeover,
    /// Socket buffers of the kernel.
    pub(super) tcp: TcpSection,
    /// Who may come in, and where the relay may go.
    pub(super) security: SecuritySection,
    /// New connections of one address (IPv6: one /64).
    pub(super) rate_limit: RateLimitSection,
    /// Connections at the same time.
    pub(super) connection_limit: ConnectionLimitSection,
    /// Leaves an upstream alone that keeps failing.
    pub(super) circuit_breaker: CircuitBreakerSection,
    /// Tries a failed dial again, while the client waits.
    pub(super) retry: RetrySection,
    /// Checks of upstreams without clients.
    pub(super) upstream_health_check: HealthCheckSection,
    /// Names of upstreams.
    pub(super) dns: DnsSection,
    /// Spare connections to upstreams.
    pub(super) pool: PoolSection,
    /// When /ready answers 503.
    pub(super) ready: ReadySection,
    /// How a new configuration is taken.
    pub(super) reload: ReloadSection,
    /// How the relay empties after SIGTERM.
    pub(super) drain: DrainSection,
    /// Log lines.
    pub(super) log: LogSection,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen_addr: ":1935".into(),
            listeners: Vec::new(),
            http_addr: ":8080".into(),
            http_tls: false,
            http_allowed_networks: Vec::new(),
            admin_addr: "127.0.0.1:8081".into(),
            admin_tls: false,
            workers: 0,
            upstream: None,
            upstreams: None,
            upstream_strategy: RawStrategy::RoundRobin,
            upstream_hash_load_factor: 0.0,
            routes: Vec::new(),
            upstream_max_dialing: 64,
            upstream_tls: UpstreamTlsSection::default(),
            forward_query: ForwardQuery::All,
            idle_timeout: Span::secs(30),
            player_idle_timeout: Span::secs(0),
            handshake_timeout: Span::secs(10),
            dial_timeout: Span::secs(5),
            write_timeout: Span::secs(60),
            upstream_stall_timeout: Span::secs(5),
            shutdown_timeout: Span::secs(30),
            read_buffer: 65_536,
            write_buffer: 65_536,
            buffers: BuffersSection::default(),
            hold: HoldSection::default(),
            publish_hold: PublishHoldSection::default(),
            publish_takeover: Takeover::SameCredential,
            tcp: TcpSection::default(),
            security: SecuritySection::default(),
            rate_limit: RateLimitSection::default(),
            connection_limit: ConnectionLimitSection::default(),
            circuit_breaker: CircuitBreakerSection::default(),
            retry: RetrySection::default(),
            upstream_health_check: HealthCheckSection::default(),
            dns: DnsSection::default(),
            pool: PoolSection::default(),
            ready: ReadySection::default(),
            reload: ReloadSection::default(),
            drain: DrainSection::default(),
            log: LogSection::default(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    /// As listen_addr.
    pub(super) addr: String,
    /// What must be spoken there: off, plain; only, TLS; optional, either, as the first byte tells.
    #[serde(default = "only")]
    pub(super) tls: Tls,
}

fn only() -> Tls {
    Tls::Only
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UpstreamTlsSection {
    /// PEM file of the authorities that may sign an upstream's certificate, or of the certificate itself. "": those that this machine trusts.
    pub(super) ca_file: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BuffersSection {
    /// Buffers that are kept for the next use.
    #[schemars(range(max = 1000000))]
    pub(super) pool: u64,
    /// Bytes of all buffers together. Beyond it partial frames pass through instead of being held.
    #[schemars(range(min = 1048576, max = 1099511627776u64))]
    pub(super) max_total: u64,
}

impl Default for BuffersSection {
    fn default() -> Self {
        Self { pool: 1024, max_total: 268_435_456 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HoldSection {
    /// The longest that a partial frame waits for its rest. "0s" turns holding off.
    #[schemars(extend("x-maximum" = "1s"))]
    pub(super) max: Span,
}

impl Default for HoldSection {
    fn default() -> Self {
        // Longer than a frame lasts at 25 a second: what comes as slowly as it plays still leaves whole.
        Self { max: Span(std::time::Duration::from_millis(50)) }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PublishHoldSection {
    /// Whether a publisher is kept when its upstream goes away.
    pub(super) enabled: bool,
    /// The longest that a publisher is kept without an upstream.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "10m"))]
    pub(super) max_time: Span,
    /// Bytes that are held for one publisher meanwhile; beyond it whole groups of pictures are dropped, the oldest first.
    #[schemars(range(min = 65536, max = 1073741824))]
    pub(super) max_bytes: u64,
    /// Bytes that are held for all publishers together; beyond it each drops its own groups.
    #[schemars(range(min = 65536, max = 1099511627776u64))]
    pub(super) max_total: u64,
}

impl Default for PublishHoldSection {
    fn default() -> Self {
        Self { enabled: true, max_time: Span::secs(15), max_bytes: 4 << 20, max_total: 256 << 20 }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TcpSection {
    /// SO_RCVBUF in bytes. 0 leaves it to the kernel, which is better on long paths.
    #[schemars(range(max = 1073741824))]
    pub(super) recv_buffer: u64,
    /// SO_SNDBUF in bytes. 0 leaves it to the kernel, which is better on long paths.
    #[schemars(range(max = 1073741824))]
    pub(super) send_buffer: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SecuritySection {
    /// Whether a client must show a token.
    pub(super) auth_enabled: bool,
    /// Tokens: strings, or objects {token, name, actions, streams}.
    #[schemars(extend("writeOnly" = true))]
    pub(super) auth_tokens: Vec<RawToken>,
    /// A file with more tokens: one a line, or a JSON list as in auth_tokens.
    pub(super) auth_tokens_file: String,
    /// User names with passwords, for clients that have boxes for them: Adobe authentication (RTMP), Basic and Digest (RTSP).
    #[schemars(extend("writeOnly" = true))]
    pub(super) users: Vec<RawUser>,
    /// Apps whose clients are asked for user name and password when they connect without a token: "all", "none", or a list of patterns on the app. What they are asked comes before their stream key: a token there is too late.
    pub(super) adobe_auth: AdobeAuth,
    /// Key that signs what Adobe authentication asks, the same on all relays behind one load balancer. "": a new random key at each start.
    pub(super) auth_secret: Hidden,
    /// Networks that clients may come from. Empty: every network.
    pub(super) allowed_clients: Vec<String>,
    /// Networks that clients may not come from, even if allowed_clients names them.
    pub(super) denied_clients: Vec<String>,
    /// Load balancers: networks whose PROXY header (version 1 or 2) is believed. The client that it names is what limits, logs and /status see.
    pub(super) trusted_proxies: Vec<String>,
    /// Whether a connection from trusted_proxies must begin with a PROXY header (required), or may (optional). Others never may.
    pub(super) proxy_protocol: ProxyMode,
    /// Networks in which an upstream may stand although they are not public (loopback, private, link-local and the like are refused otherwise).
    pub(super) upstream_allowed_networks: Vec<String>,
    /// What every request to /admin must show: "Authorization: Bearer ...", 16 characters or more. "": nothing, and admin_addr must be a loopback address.
    pub(super) admin_token: Hidden,
    /// Whether a reload ends the sessions whose token it has removed.
    pub(super) revoke_live: bool,
    /// Whether clients must speak TLS at listen_addr (rtmps://).
    pub(super) tls_enabled: bool,
    /// Whether they may also speak plain there: the first byte tells.
    pub(super) tls_allow_plain: bool,
    /// PEM file of the certificate, followed by its intermediates. Read again when it changes.
    pub(super) tls_cert: String,
    /// PEM file of the certificate's private key, without passphrase. Read again when it changes.
    pub(super) tls_key: String,
    /// PEM file of authorities: a client that speaks TLS must then show a certificate that one of them signed. "": none is asked for.
    pub(super) tls_client_ca: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateLimitSection {
    /// Whether new connections are limited.
    pub(super) enabled: bool,
    /// New connections a second in the long run; fractions work.
    #[schemars(range(min = 0.0001, max = 1000000.0))]
    pub(super) requests_per_sec: f64,
    /// New connections at once after a pause.
    #[schemars(range(min = 1, max = 1000000))]
    pub(super) burst: u64,
}

impl Default for RateLimitSection {
    fn default() -> Self {
        Self { enabled: false, requests_per_sec: 10.0, burst: 20 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConnectionLimitSection {
    /// Connections in all.
    #[schemars(range(min = 1, max = 1000000))]
    pub(super) max_total_connections: u64,
    /// Connections of one address (IPv6: one /64). 0: no such limit.
    #[schemars(range(max = 1000000))]
    pub(super) max_per_ip: u64,
}

impl Default for ConnectionLimitSection {
    fn default() -> Self {
        Self { max_total_connections: 1000, max_per_ip: 0 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CircuitBreakerSection {
    /// Whether the circuit opens at all.
    pub(super) enabled: bool,
    /// Failures in a row that open it.
    #[schemars(range(min = 1, max = 1000000))]
    pub(super) max_failures: u64,
    /// Seconds that it stays open before one dial may probe; fractions work.
    #[schemars(range(min = 0.1, max = 86400.0))]
    pub(super) reset_timeout_sec: f64,
    /// Successes in a row that close it again.
    #[schemars(range(min = 1, max = 1000000))]
    pub(super) success_threshold: u64,
}

impl Default for CircuitBreakerSection {
    fn default() -> Self {
        Self { enabled: true, max_failures: 5, reset_timeout_sec: 30.0, success_threshold: 2 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RetrySection {
    /// Whether a failed dial is tried again.
    pub(super) enabled: bool,
    /// Dials in all, the first included.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) max_attempts: u64,
    /// Seconds before the second dial; fractions work.
    #[schemars(range(min = 0.001, max = 3600.0))]
    pub(super) initial_delay_sec: f64,
    /// Longest wait in seconds; fractions work.
    #[schemars(range(min = 0.001, max = 3600.0))]
    pub(super) max_delay_sec: f64,
    /// What a wait is multiplied with to give the next.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub(super) multiplier: f64,
    /// How far chance moves a wait up or down, as a part of it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) jitter_fraction: f64,
    /// Everything together: after so long the client is told that no upstream could be reached.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub(super) total_timeout: Span,
}

impl Default for RetrySection {
    fn default() -> Self {
        Self {
            enabled: true,
            max_attempts: 3,
            initial_delay_sec: 1.0,
            max_delay_sec: 30.0,
            multiplier: 2.0,
            jitter_fraction: 0.1,
            total_timeout: Span::secs(20),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ReadySection {
    /// How long no upstream must have been reachable. Load balancers cut the streams of a relay that is not ready, so this is not short.
    #[schemars(extend("x-maximum" = "1h"))]
    pub(super) fail_after: Span,
}

impl Default for ReadySection {
    fn default() -> Self {
        Self { fail_after: Span::secs(20) }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogSection {
    /// Shape of a line: json, one object; text, one sentence.
    pub(super) format: LogFormat,
    /// The least important level that is written.
    pub(super) level: LogLevel,
    /// Where lines go: "stderr", "stdout", or the path of a file.
    pub(super) output: String,
    /// Stream names in logs and /status: masked shows a short stable fingerprint, plain the name.
    pub(super) stream_names: StreamNames,
    /// Key of the fingerprints; the same key gives the same fingerprint on every relay. "": a new random key at each start.
    pub(super) fingerprint_key: Hidden,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            level: LogLevel::Info,
            output: "stderr".into(),
            stream_names: StreamNames::Masked,
            fingerprint_key: Hidden::default(),
        }
    }
}
