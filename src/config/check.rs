//! Pure: is what the file says sound, taken together? Each key alone has been judged by `shape` before.

mod upstreams;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::address::ListenAddr;
use super::file::{CircuitBreakerSection, File, LogSection, RateLimitSection, RetrySection};
use super::finding::{Finding, Origin, place, quoted};
use super::routing::strategy;
use super::scalar::Span;
use super::settings::*;
use super::tokens::Placed;
use super::{FilesJudge, Objection, UpstreamJudge, access, doors, network, tree};

/// What judging needs beside the file itself.
pub(super) struct Facts<'a> {
    /// Keys that came from the environment.
    pub(super) origin: &'a Origin,
    /// Keys that were wrong already and stand at their default now: rules that touch them keep silent.
    pub(super) bad: &'a BTreeSet<String>,
    /// What was given, in the file or the environment.
    pub(super) given: &'a Value,
    /// Directory of the file, which its paths are relative to.
    pub(super) base: &'a Path,
    /// Processors of this machine.
    pub(super) cores: usize,
    /// Tokens of `auth_tokens_file`.
    pub(super) more_tokens: Vec<Placed>,
    /// Whether an upstream's URL can be used.
    pub(super) judge: &'a UpstreamJudge<'a>,
}

/// What came of it. With errors, `config` is not to be used.
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

/// Judges `file`, and with `files` what it names.
pub(super) fn check(file: File, facts: Facts<'_>, files: &FilesJudge<'_>) -> Checked {
    let mut check = Check { facts, errors: Vec::new(), warnings: Vec::new() };
    let config = check.config(file);
    for Objection { key, text, fatal } in files(&config) {
        if fatal { check.error(&key, text) } else { check.warn(&key, text) }
    }
    Checked { config, errors: check.errors, warnings: check.warnings }
}

/// A path in the file; relative ones are taken from the file's directory, those of variables from the working directory.
pub(super) fn resolve(base: &Path, origin: &Origin, key: &str, path: &str) -> PathBuf {
    if origin.contains_key(key) { path.into() } else { base.join(path) }
}

/// The judgement so far.
pub(super) struct Check<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

impl Check<'_> {
    pub(super) fn at(&self, path: &str) -> String {
        place(self.facts.origin, path)
    }

    pub(super) fn error(&mut self, path: &str, text: impl Into<String>) {
        self.errors.push(Finding::new(self.at(path), text));
    }

    pub(super) fn warn(&mut self, path: &str, text: impl Into<String>) {
        self.warnings.push(Finding::new(self.at(path), text));
    }

    /// Whether none of the keys (or what holds them) was wrong already.
    pub(super) fn intact(&self, keys: &[&str]) -> bool {
        let within = |key: &str, bad: &str| key == bad || key.strip_prefix(bad).is_some_and(|rest| rest.starts_with('.'));
        !keys.iter().any(|key| self.facts.bad.iter().any(|bad| within(key, bad)))
    }

    pub(super) fn given(&self, path: &str) -> bool {
        tree::get(self.facts.given, path).is_some()
    }

    fn config(&mut self, file: File) -> Config {
        let doors::Doors { listen, listen_tls, listeners, http, http_tls, files } = doors::check(self, &file);
        let admin = self.admin(
            &file,
            &[Some(listen), http].into_iter().flatten().chain(listeners.iter().map(|door| door.address)).collect::<Vec<_>>(),
        );
        let http_allowed_networks = self.networks("http_allowed_networks", &file.http_allowed_networks);
        let workers = if file.workers == 0 { self.facts.cores.clamp(1, 1024) } else { size(file.workers) };
        let timeouts = timeouts(&file);
        let retry = self.retry(&file.retry, timeouts.dial);
        let security = access::check(self, &file.security, files);
        let (upstreams, routes) = self.upstreams(&file, &security.upstream_allowed_networks);
        Config {
            listen,
            listen_tls,
            listeners,
            http,
            http_tls,
            http_allowed_networks,
            admin,
            workers,
            upstreams,
            strategy: strategy(file.upstream_strategy),
            hash_load_factor: Some(file.upstream_hash_load_factor).filter(|&factor| factor > 0.0),
            routes,
            health_check: self.health_check(&file.upstream_health_check),
            dns: Dns { cache_ttl: file.dns.cache_ttl.0, stale_ttl: file.dns.stale_ttl.0 },
            upstream_max_dialing: size(file.upstream_max_dialing),
            upstream_ca_file: self.path("upstream_tls.ca_file", &file.upstream_tls.ca_file),
            forward_query: file.forward_query.clone(),
            timeouts,
            buffers: self.buffers(&file),
            hold: Hold { max: file.hold.max.0 },
            publish_hold: self.publish_hold(&file),
            publish_takeover: file.publish_takeover,
            tcp: Tcp { recv_buffer: above_zero(file.tcp.recv_buffer), send_buffer: above_zero(file.tcp.send_buffer) },
            security,
            rate_limit: self.rate_limit(&file.rate_limit),
            connection_limit: self.connection_limit(&file),
            circuit_breaker: circuit_breaker(&file.circuit_breaker),
            retry,
            ready: Ready { fail_after: file.ready.fail_after.0 },
            reload: Reload {
                watch: Some(file.reload.watch.0).filter(|every| !every.is_zero()),
                partial: file.reload.partial,
                revoke_live: file.security.revoke_live,
            },
            drain: self.drain(&file),
            log: self.log(file.log),
        }
    }

    pub(super) fn address(&mut self, key: &str, text: &str) -> Option<ListenAddr> {
        let address = text.trim().parse::<ListenAddr>();
        address.map_err(|reason| self.error(key, format!("found {}; {reason}", quoted(text)))).ok()
    }

    /// A path that `key` names; none where it is empty.
    pub(super) fn path(&self, key: &str, path: &str) -> Option<PathBuf> {
        (!path.is_empty()).then(|| resolve(self.facts.base, self.facts.origin, key, path))
    }

    fn admin(&mut self, file: &File, others: &[ListenAddr]) -> Admin {
        let token = file.security.admin_token.expose();
        if token.chars().any(|c| !c.is_ascii_graphic()) {
            self.error(
                "security.admin_token",
                "holds a blank or a character that no HTTP header carries; expected letters, digits and signs",
            );
        } else if (1..16).contains(&token.len()) {
            self.error("security.admin_token", "is shorter than 16 characters: whoever guesses it can end every stream");
        }
        let token = (!token.is_empty()).then(|| file.security.admin_token.clone().into_secret());
        let address = if file.admin_addr.is_empty() { None } else { self.address("admin_addr", &file.admin_addr) };
        let tls = file.admin_tls && address.is_some();
        let Some(bound) = address else { return Admin { address, tls, token } };
        if token.is_none() && self.intact(&["security.admin_token"]) && !bound.host.is_some_and(|host| host.is_loopback()) {
            let text =
                format!("{bound} is no loopback address; expected \"127.0.0.1:{}\", or a security.admin_token", bound.port);
            self.error("admin_addr", text);
        }
        if token.is_some() && !tls && !bound.host.is_some_and(|host| host.is_loopback()) {
            self.warn(
                "admin_addr",
                "is no loopback address: the token goes over the network in the clear without admin_tls, unless something in between speaks TLS",
            );
        }
        if others.iter().any(|other| other.collides(&bound)) {
            if !self.given("admin_addr") {
                self.warn("admin_addr", format!("its default, {bound}, is taken by another address of ours: there is no /admin"));
                return Admin { address: None, tls: false, token };
            }
            self.error("admin_addr", "takes the port of another address of ours; expected another port, or \"\" for no /admin");
        }
        Admin { address, tls, token }
    }

    fn drain(&mut self, file: &File) -> Drain {
        let (spread, most) = (file.drain.spread.0, file.shutdown_timeout.0);
        if spread > most && self.given("drain.spread") {
            let text = format!("is longer than shutdown_timeout ({}) and ends with it", Span(most));
            self.warn("drain.spread", text);
        }
        Drain { delay: file.drain.delay.0, spread: spread.min(most) }
    }

    pub(super) fn networks(&mut self, key: &str, texts: &[String]) -> Vec<IpNetwork> {
        let mut networks = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match network::parse(text) {
                Ok(network) => networks.push(network),
                Err(right) => {
                    let at = self.at(&format!("{key}[{index}]"));
                    self.errors.push(Finding::expected(at, &quoted(text), &right.to_string()));
                }
            }
        }
        networks
    }

    fn buffers(&mut self, file: &File) -> Buffers {
        let buffers = Buffers {
            read: size(file.read_buffer),
            write: size(file.write_buffer),
            pool: size(file.buffers.pool),
            max_total: size(file.buffers.max_total),
        };
        if buffers.max_total < buffers.read + buffers.write {
            let text =
                format!("found {}, less than read_buffer and write_buffer of one session; expected more", buffers.max_total);
            self.error("buffers.max_total", text);
        }
        buffers
    }

    fn publish_hold(&mut self, file: &File) -> Option<PublishHold> {
        let section = &file.publish_hold;
        let hold =
            PublishHold { max_time: section.max_time.0, max_bytes: size(section.max_bytes), max_total: size(section.max_total) };
        if hold.max_total < hold.max_bytes && self.intact(&["publish_hold.max_total", "publish_hold.max_bytes"]) {
            let text = format!("found {}; expected publish_hold.max_bytes ({}) or more", hold.max_total, hold.max_bytes);
            self.error("publish_hold.max_total", text);
        }
        let times = ["publish_hold.max_time", "ready.fail_after"];
        if section.enabled && file.ready.fail_after.0 < hold.max_time && self.intact(&times) {
            let text = format!(
                "is shorter than publish_hold.max_time ({}): a load balancer may cut the publishers that are being held",
                section.max_time
            );
            self.warn("ready.fail_after", text);
        }
        section.enabled.then_some(hold)
    }

    fn rate_limit(&mut self, section: &RateLimitSection) -> Option<RateLimit> {
        let values = self.given("rate_limit.requests_per_sec") || self.given("rate_limit.burst");
        if values && !self.given("rate_limit.enabled") && self.intact(&["rate_limit.enabled"]) {
            self.warn("rate_limit", "has no effect without \"enabled\": true");
        }
        let burst = NonZeroU32::new(narrow(section.burst)).unwrap_or(NonZeroU32::MIN);
        section.enabled.then_some(RateLimit { requests_per_sec: section.requests_per_sec, burst })
    }

    fn connection_limit(&mut self, file: &File) -> ConnectionLimit {
        let section = &file.connection_limit;
        let (total, per_ip) = (narrow(section.max_total_connections), narrow(section.max_per_ip));
        if per_ip > total && self.intact(&["connection_limit.max_total_connections"]) {
            let text = format!("found {per_ip}, which can never be reached: max_total_connections is {total}");
            self.warn("connection_limit.max_per_ip", text);
        }
        ConnectionLimit { max_total_connections: total, max_per_ip: Some(per_ip).filter(|&limit| limit > 0) }
    }

    fn retry(&mut self, section: &RetrySection, dial: Duration) -> Option<Retry> {
        let retry = Retry {
            max_attempts: narrow(section.max_attempts),
            initial_delay: seconds(section.initial_delay_sec),
            max_delay: seconds(section.max_delay_sec),
            multiplier: section.multiplier,
            jitter_fraction: section.jitter_fraction,
            total_timeout: section.total_timeout.0,
        };
        let delays = ["retry.initial_delay_sec", "retry.max_delay_sec"];
        if section.enabled && retry.max_delay < retry.initial_delay && self.intact(&delays) {
            let text =
                format!("found {}; expected initial_delay_sec ({}) or more", section.max_delay_sec, section.initial_delay_sec);
            self.error("retry.max_delay_sec", text);
        }
        if section.enabled && retry.total_timeout < dial && self.intact(&["retry.total_timeout", "dial_timeout"]) {
            let text = format!("is shorter than dial_timeout ({}): one slow dial uses it up", Span(dial));
            self.warn("retry.total_timeout", text);
        }
        section.enabled.then_some(retry)
    }

    fn log(&mut self, section: LogSection) -> Log {
        let output = match section.output.as_str() {
            "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            path => LogOutput::Path(resolve(self.facts.base, self.facts.origin, "log.output", path)),
        };
        if section.output.trim().is_empty() {
            self.error("log.output", "is empty; expected \"stderr\", \"stdout\" or the path of a file");
        }
        let key = section.fingerprint_key;
        if (1..16).contains(&key.expose().len()) {
            self.warn(
                "log.fingerprint_key",
                "is shorter than 16 characters: whoever guesses it can find stream names from fingerprints",
            );
        }
        Log {
            format: section.format,
            level: section.level,
            output,
            stream_names: section.stream_names,
            fingerprint_key: (!key.expose().is_empty()).then(|| key.into_secret()),
        }
    }
}

fn timeouts(file: &File) -> Timeouts {
    Timeouts {
        idle: file.idle_timeout.0,
        player_idle: Some(file.player_idle_timeout.0).filter(|idle| !idle.is_zero()),
        preface: file.handshake_timeout.0,
        dial: file.dial_timeout.0,
        write: file.write_timeout.0,
        stall: file.upstream_stall_timeout.0,
        shutdown: file.shutdown_timeout.0,
    }
}

fn circuit_breaker(section: &CircuitBreakerSection) -> Option<CircuitBreaker> {
    section.enabled.then(|| CircuitBreaker {
        max_failures: narrow(section.max_failures),
        reset_timeout: seconds(section.reset_timeout_sec),
        success_threshold: narrow(section.success_threshold),
    })
}

// The bounds in the schema hold every number far below what these would cut.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn above_zero(number: u64) -> Option<usize> {
    Some(size(number)).filter(|&bytes| bytes > 0)
}

fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX)
}
