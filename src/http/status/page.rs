//! The whole of `/status`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::sessions::{Choice, Row, Rows};
use super::upstreams::Upstream;
use crate::admission::{rate_limiter, supervisor};
use crate::http::desk::Round;
use crate::http::{BufferFacts, ConfigFacts, ListenerFacts, Sources};
use crate::telemetry::collector;
use crate::tls;
use crate::upstream::breaker;

/// The time at which a page is made.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Clocks {
    pub(in crate::http) now: Instant,
    pub(in crate::http) wall: SystemTime,
}

/// The document. A part whose actor did not answer is null, and `errors` says why under the same name.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Page {
    service: &'static str,
    version: &'static str,
    now: String,
    started_at: String,
    uptime_seconds: f64,
    draining: bool,
    listener: Listener,
    connections: Option<Connections>,
    rate_limit: Option<RateLimit>,
    circuit_breaker: Option<CircuitBreaker>,
    upstreams: Vec<Upstream>,
    config: Config,
    traffic: Option<Traffic>,
    buffers: Buffers,
    errors: BTreeMap<&'static str, String>,
}

impl Page {
    pub(in crate::http) fn new(sources: &Sources, round: &Round, choice: &Choice, clocks: Clocks) -> Self {
        let connections =
            |standing| Connections::new(standing, Rows::choose(&standing.sessions, choice, &sources.telemetry, clocks));
        Self {
            service: "relay",
            version: env!("CARGO_PKG_VERSION"),
            now: rfc3339(clocks.wall),
            started_at: rfc3339(sources.started_at),
            uptime_seconds: seconds(clocks.now.saturating_duration_since(sources.started)),
            draining: sources.readiness.is_draining(),
            listener: (sources.listener)().into(),
            connections: round.connections.as_ref().ok().map(connections),
            rate_limit: round.rate_limit.as_ref().ok().map(RateLimit::new),
            circuit_breaker: round.circuit_breaker.as_ref().ok().map(CircuitBreaker::new),
            upstreams: (sources.upstreams)().into_iter().map(Upstream::from).collect(),
            config: (sources.config)().into(),
            traffic: round.traffic.as_ref().ok().map(Traffic::new),
            buffers: (sources.buffers)().into(),
            errors: errors(round),
        }
    }
}

fn errors(round: &Round) -> BTreeMap<&'static str, String> {
    let answers = [
        ("connections", round.connections.as_ref().err()),
        ("rate_limit", round.rate_limit.as_ref().err()),
        ("circuit_breaker", round.circuit_breaker.as_ref().err()),
        ("traffic", round.traffic.as_ref().err()),
    ];
    answers.into_iter().filter_map(|(field, error)| error.map(|error| (field, error.clone()))).collect()
}

#[derive(Debug, Serialize)]
struct Listener {
    addresses: Vec<SocketAddr>,
    doors: Vec<Door>,
    tls: Option<Certificate>,
    accepting: bool,
    open_sockets: u64,
    hard_cap: u64,
}

#[derive(Debug, Serialize)]
struct Door {
    address: SocketAddr,
    tls: &'static str,
}

#[derive(Debug, Serialize)]
struct Certificate {
    names: Vec<String>,
    not_before: String,
    not_after: String,
    loaded_at: String,
    last_error: Option<String>,
    client_certificates: bool,
}

impl From<ListenerFacts> for Listener {
    fn from(facts: ListenerFacts) -> Self {
        let ListenerFacts { doors, tls, accepting, open_sockets, hard_cap } = facts;
        let addresses = doors.iter().map(|(address, _)| *address).collect();
        let doors = doors.into_iter().map(|(address, tls)| Door { address, tls }).collect();
        Self { addresses, doors, tls: tls.map(|tls| Certificate::new(&tls)), accepting, open_sockets, hard_cap }
    }
}

impl Certificate {
    fn new(standing: &tls::Standing) -> Self {
        let tls::Standing { certificate, loaded_at, last_error, client_certificates } = standing;
        Self {
            names: certificate.names.clone(),
            not_before: rfc3339(certificate.not_before),
            not_after: rfc3339(certificate.not_after),
            loaded_at: rfc3339(*loaded_at),
            last_error: last_error.clone(),
            client_certificates: *client_certificates,
        }
    }
}

#[derive(Debug, Serialize)]
struct Connections {
    active: u32,
    limits: Limits,
    addresses: usize,
    per_ip: Vec<Address>,
    rejected: BTreeMap<&'static str, u64>,
    sessions_total: usize,
    sessions_matching: usize,
    offset: usize,
    limit: usize,
    sessions: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Limits {
    max_total: u32,
    max_per_ip: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Address {
    address: String,
    connections: u32,
}

impl Connections {
    fn new(standing: &supervisor::Standing, rows: Rows) -> Self {
        let address = |(key, connections): &(_, u32)| Address { address: ToString::to_string(key), connections: *connections };
        Self {
            active: standing.active,
            limits: Limits { max_total: standing.max_total, max_per_ip: standing.max_per_ip },
            addresses: standing.addresses,
            per_ip: standing.per_ip.iter().map(address).collect(),
            rejected: standing.rejected.iter().copied().collect(),
            sessions_total: standing.sessions.len(),
            sessions_matching: rows.matching,
            offset: rows.offset,
            limit: rows.limit,
            sessions: rows.rows,
        }
    }
}

#[derive(Debug, Serialize)]
struct RateLimit {
    enabled: bool,
    requests_per_sec: Option<f64>,
    burst: Option<u32>,
    keys: usize,
    max_keys: usize,
    allowed: u64,
    rejected: u64,
    panics: u64,
}

impl RateLimit {
    fn new(standing: &rate_limiter::Standing) -> Self {
        Self {
            enabled: standing.rate.is_some(),
            requests_per_sec: standing.rate.map(|rate| rate.requests_per_sec),
            burst: standing.rate.map(|rate| rate.burst.get()),
            keys: standing.keys,
            max_keys: standing.max_keys,
            allowed: standing.allowed,
            rejected: standing.rejected,
            panics: standing.panics,
        }
    }
}

#[derive(Debug, Serialize)]
struct CircuitBreaker {
    enabled: bool,
    max_failures: Option<u32>,
    reset_timeout_seconds: Option<f64>,
    success_threshold: Option<u32>,
    targets: Vec<Circuit>,
    panics: u64,
}

#[derive(Debug, Serialize)]
struct Circuit {
    target: String,
    state: &'static str,
    failures: u32,
    opened_seconds: Option<f64>,
    retry_in_seconds: Option<f64>,
}

impl CircuitBreaker {
    fn new(snapshot: &breaker::BreakerSnapshot) -> Self {
        let settings = snapshot.settings;
        let circuit = |row: &crate::upstream::TargetView| Circuit {
            target: row.label.clone(),
            state: row.view.state.as_str(),
            failures: row.view.failures,
            opened_seconds: row.view.opened_for.map(seconds),
            retry_in_seconds: row.view.retry_in.map(seconds),
        };
        Self {
            enabled: settings.is_some(),
            max_failures: settings.map(|settings| settings.max_failures),
            reset_timeout_seconds: settings.map(|settings| seconds(settings.reset_timeout)),
            success_threshold: settings.map(|settings| settings.success_threshold),
            targets: snapshot.targets.iter().map(circuit).collect(),
            panics: snapshot.panics,
        }
    }
}

#[derive(Debug, Serialize)]
struct Config {
    source: String,
    hash: String,
    loaded_at: String,
    last_error: Option<String>,
    last_reload: Option<Reload>,
}

#[derive(Debug, Serialize)]
struct Reload {
    at: String,
    by: &'static str,
    result: &'static str,
}

impl From<ConfigFacts> for Config {
    fn from(facts: ConfigFacts) -> Self {
        let ConfigFacts { source, hash, loaded_at, last_reload } = facts;
        let last_error = last_reload.as_ref().and_then(|last| last.error.clone());
        let last_reload = last_reload.map(|last| Reload { at: rfc3339(last.at), by: last.by, result: last.result });
        Self { source, hash, loaded_at: rfc3339(loaded_at), last_error, last_reload }
    }
}

#[derive(Debug, Serialize)]
struct Traffic {
    to_upstream: Flow,
    to_client: Flow,
    panics: u64,
}

#[derive(Debug, Serialize)]
struct Flow {
    bytes: u64,
    bytes_per_second: f64,
}

impl Traffic {
    fn new(standing: &collector::Standing) -> Self {
        let flow = |bytes, rate: f64| Flow { bytes, bytes_per_second: rate.round() };
        Self {
            to_upstream: flow(standing.bytes.to_upstream, standing.rates.to_upstream),
            to_client: flow(standing.bytes.to_client, standing.rates.to_client),
            panics: standing.panics,
        }
    }
}

#[derive(Debug, Serialize)]
struct Buffers {
    size_bytes: usize,
    lent: usize,
    max_total_bytes: usize,
    unheld: u64,
}

impl From<BufferFacts> for Buffers {
    fn from(facts: BufferFacts) -> Self {
        let BufferFacts { size_bytes, lent, max_total_bytes, unheld } = facts;
        Self { size_bytes, lent, max_total_bytes, unheld }
    }
}

/// Seconds to the millisecond.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
