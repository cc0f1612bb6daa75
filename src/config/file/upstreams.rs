//! Pure: the upstreams as they stand in the JSON: which there are, who goes to which, and how they are watched.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::scalar::Span;
use crate::config::secret::Hidden;
use crate::config::settings::{CheckKind, ProxyProtocol};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawUpstream {
    /// As `upstream`.
    pub(in crate::config) url: Hidden,
    /// What `routes` call it, and /status. consistent_hash goes by it, else by the URL.
    #[serde(default)]
    pub(in crate::config) name: String,
    /// Its share of new sessions next to the others'. 0: no new ones, but players of streams that this relay has live there.
    #[serde(default = "one")]
    #[schemars(range(max = 1000))]
    pub(in crate::config) weight: u64,
    /// Whether it is tried only after all others.
    #[serde(default)]
    pub(in crate::config) backup: bool,
    /// Sessions that this relay may have there at the same time. 0: no such limit.
    #[serde(default)]
    #[schemars(range(max = 1000000))]
    pub(in crate::config) max_connections: u64,
    /// As upstream_tls.ca_file, for this upstream alone. "": that one applies.
    #[serde(default)]
    pub(in crate::config) ca_file: String,
    /// Whether this upstream's certificate is not checked at all: whoever stands in between may then read and change its streams.
    #[serde(default)]
    pub(in crate::config) insecure_skip_verify: bool,
    /// Whether its connections begin with a PROXY header that says whose they are, in version 1 (text) or 2 (binary). It must expect one.
    #[serde(default)]
    pub(in crate::config) proxy_protocol: ProxyProtocol,
}

fn one() -> u64 {
    1
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawRoute {
    /// What a stream must be. What is left out matches everything.
    #[serde(default, rename = "match")]
    pub(in crate::config) matching: RawMatch,
    /// Names of upstreams.
    pub(in crate::config) upstreams: Vec<String>,
    /// How one of them is chosen. Left out: as `upstream_strategy` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RawStrategy")]
    pub(in crate::config) strategy: Option<RawStrategy>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawMatch {
    /// Pattern on the app ("*" does not cross a slash, "**" does).
    #[schemars(extend("writeOnly" = true))]
    pub(in crate::config) app: String,
    /// Pattern on the stream's name, without app and query.
    #[schemars(extend("writeOnly" = true))]
    pub(in crate::config) stream: String,
    /// Pattern on the host that the client's URL names (or its `vhost` argument); capitals do not matter.
    pub(in crate::config) vhost: String,
    /// What the client wants.
    pub(in crate::config) action: RawAction,
    /// What the client speaks; rtmp stands for rtmps too, rtsp for rtsps.
    pub(in crate::config) protocol: RawProtocol,
}

impl Default for RawMatch {
    fn default() -> Self {
        let everything = || "**".to_owned();
        Self { app: everything(), stream: everything(), vhost: everything(), action: RawAction::Any, protocol: RawProtocol::Any }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawAction {
    Any,
    Publish,
    Play,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawProtocol {
    Any,
    Rtmp,
    Rtsp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawStrategy {
    RoundRobin,
    Random,
    LeastConnections,
    ConsistentHash,
    Failover,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct HealthCheckSection {
    /// Whether upstreams are checked without clients. Real dials are heeded in any case.
    pub(in crate::config) enabled: bool,
    /// Seconds between two checks of an upstream; fractions work.
    #[schemars(range(min = 0.1, max = 86400.0))]
    pub(in crate::config) interval_sec: f64,
    /// Seconds that one check may take; fractions work.
    #[schemars(range(min = 0.1, max = 3600.0))]
    pub(in crate::config) timeout_sec: f64,
    /// Checks that must pass in a row until an upstream is tried in its turn again.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::config) rise: u64,
    /// Checks that must fail in a row until it is tried after the others.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::config) fall: u64,
    /// How far a check goes: tcp, a connection; tls, one with TLS where the URL asks for it; handshake, up to the RTMP handshake or the answer to RTSP OPTIONS.
    pub(in crate::config) kind: CheckKind,
}

impl Default for HealthCheckSection {
    fn default() -> Self {
        Self { enabled: false, interval_sec: 10.0, timeout_sec: 5.0, rise: 2, fall: 3, kind: CheckKind::Handshake }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct DnsSection {
    /// How long the addresses of an upstream's name are used without asking again; a dial that reaches none of them asks earlier. "0s": each dial asks.
    #[schemars(extend("x-maximum" = "1day"))]
    pub(in crate::config) cache_ttl: Span,
    /// How long they are used beyond that where name look-up fails. "0s": not at all.
    #[schemars(extend("x-maximum" = "30days"))]
    pub(in crate::config) stale_ttl: Span,
}

impl Default for DnsSection {
    fn default() -> Self {
        Self { cache_ttl: Span::secs(30), stale_ttl: Span::secs(86_400) }
    }
}
