//! Pure: the upstreams that the operator chose, and who goes to which.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One place streams go to.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The URL as written. A secret: it may hold credentials and a stream key.
    pub url: String,
    /// What routes call it; no two have the same.
    pub name: Option<String>,
    /// Its share of new sessions next to the others', 0 to 1000.
    pub weight: u32,
    /// Whether it is tried only after all others.
    pub backup: bool,
    /// Sessions that this relay may have there at the same time; `None` sets no limit.
    pub max_connections: Option<u32>,
    /// Authorities for its certificate; `None`: [`Config::upstream_ca_file`](super::Config::upstream_ca_file).
    pub ca_file: Option<PathBuf>,
    /// Whether its certificate is not checked.
    pub insecure_skip_verify: bool,
    /// What its connections begin with.
    pub proxy_protocol: ProxyProtocol,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, name, weight, backup, max_connections, ca_file, insecure_skip_verify, proxy_protocol } = self;
        f.debug_struct("Upstream")
            .field("url", &"(hidden)")
            .field("name", name)
            .field("weight", weight)
            .field("backup", backup)
            .field("max_connections", max_connections)
            .field("ca_file", ca_file)
            .field("insecure_skip_verify", insecure_skip_verify)
            .field("proxy_protocol", proxy_protocol)
            .finish()
    }
}

/// What a connection to an upstream begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// The stream itself.
    #[default]
    Off,
    /// A PROXY header of version 1.
    V1,
    /// A PROXY header of version 2.
    V2,
}

/// How one of several upstreams is chosen for a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// In turn, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// Where this relay has the fewest sessions, by weight.
    LeastConnections,
    /// By the stream's name, by weight.
    ConsistentHash,
    /// In the order of the configuration.
    Failover,
}

/// Sends streams to upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What a stream must be.
    pub matching: Match,
    /// Where it goes: indices into `Config::upstreams`, in the order of the route, none twice, never empty.
    pub upstreams: Vec<usize>,
    /// How one of them is chosen.
    pub strategy: Strategy,
}

/// What a stream must be for a route; all that is there must hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Match {
    /// Glob on the app, known to compile with `literal_separator`, as are the next two. May spell out a secret.
    pub app: String,
    /// Glob on the stream's name. May spell out a secret.
    pub stream: String,
    /// Glob on the host that the client's URL names, in small letters.
    pub vhost: String,
    /// `Some(true)` publishes, `Some(false)` plays.
    pub publish: Option<bool>,
    /// `Some(true)` speaks RTSP, `Some(false)` RTMP.
    pub rtsp: Option<bool>,
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app: _, stream: _, vhost, publish, rtsp } = self;
        f.debug_struct("Match").field("vhost", vhost).field("publish", publish).field("rtsp", rtsp).finish_non_exhaustive()
    }
}

/// How upstreams are checked without clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// Between two checks of one upstream.
    pub interval: Duration,
    /// The longest that one may take.
    pub timeout: Duration,
    /// Checks that must pass in a row until an upstream is well again, at least 1.
    pub rise: u32,
    /// Checks that must fail in a row until it is not, at least 1.
    pub fall: u32,
    /// How far a check goes.
    pub kind: CheckKind,
}

/// How far a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// A TCP connection.
    Tcp,
    /// A connection as the URL asks for it, with TLS or without.
    Tls,
    /// The RTMP handshake, or the answer to RTSP OPTIONS.
    Handshake,
}

/// How long answers to look-ups of upstreams' names are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dns {
    /// Without asking again.
    pub cache_ttl: Duration,
    /// From then on, where there is no new answer.
    pub stale_ttl: Duration,
}
