//! Where should a stream go, and may we go there?
//!
//! A [`Target`] is an upstream as the operator wrote it; [`Target::address`] names a client's stream to it. [`Dialer`] is
//! the only way to a socket: it resolves, lets [`guard`] judge each address, refuses the relay's own door, and connects
//! to exactly what was judged. [`UpstreamBreaker`] is asked before each dial, [`retry`] says when there is another.

mod announce;
mod answers;
pub mod breaker;
mod check;
pub mod circuit;
mod circuits;
pub mod dial;
pub mod guard;
pub mod health;
pub mod live;
pub mod load;
pub mod passage;
mod private;
pub mod probe;
mod race;
pub mod resolve;
pub mod retry;
mod route;
mod router;
pub mod seek;
pub mod select;
mod self_check;
pub mod target;
mod template;
pub mod url;
mod userinfo;
pub mod vital;
pub mod walk;

pub use breaker::{Breaker, CircuitPermit, UpstreamBreaker};
pub use check::watch;
pub use circuit::{CircuitState, NotNow};
pub use circuits::{Change, TargetView};
pub use dial::{Connected, DialError, DialSettings, Dialer};
pub use health::{DialPermit, Health};
pub use live::{Live, Publication};
pub use load::{Load, Loads};
pub use private::{judge_private, privacy};
pub use probe::{Reachability, Verdict};
pub use retry::{Attempts, GiveUp, Next};
pub use route::{Ask, BadPattern};
pub use router::{NoRoute, Router};
pub use seek::{Link, Means, Seek, SeekError, Step};
pub use target::{Family, Target, TargetError, TargetId};
pub use url::{Scheme, UpstreamUrl, UrlError};
pub use userinfo::Userinfo;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::config::Config;
use crate::telemetry::Telemetry;
use crate::tls::ClientError;
use guard::Forbidden;
use ipnetwork::IpNetwork;
use vital::{Rules, VitalView};

/// What is wrong with an upstream in the configuration. The text never repeats path, query or user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamProblem {
    /// The URL cannot be read.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// It holds an address that the guard refuses.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
}

/// Gives targets their numbers: one that a new configuration keeps keeps its own, and none is given twice in one run of the relay.
#[derive(Debug, Default)]
pub struct Numbering(AtomicU32);

/// The configured upstreams, in their order. One that stands in `before` with the same URL is that one. No two have the same label.
///
/// # Errors
/// [`UrlError`] for the first that cannot be read; a checked configuration holds none.
pub fn targets(config: &Config, numbering: &Numbering, before: &[Arc<Target>]) -> Result<Vec<Arc<Target>>, UrlError> {
    let mut targets: Vec<Arc<Target>> = Vec::new();
    for upstream in &config.upstreams {
        let url = UpstreamUrl::parse(&upstream.url)?;
        if let Some(known) = before.iter().find(|target| target.url == url && target.proxy_protocol == upstream.proxy_protocol) {
            targets.push(Arc::clone(known));
            continue;
        }
        let id = numbering.0.fetch_add(1, Relaxed);
        let mut target = Target::new(TargetId(id), url);
        target.proxy_protocol = upstream.proxy_protocol;
        // Two that differ in what no label may show, their stream keys, are told apart by their numbers.
        if targets.iter().chain(before).any(|other| other.label == target.label) {
            target.label = format!("{}#{}", target.label, id + 1);
        }
        targets.push(Arc::new(target));
    }
    Ok(targets)
}

/// Everything that searches need, for `targets` and the addresses `own` that the relay listens on. What `before` counts and knows of
/// targets that stay goes on.
///
/// # Errors
/// [`ClientError`] where an upstream speaks TLS and whom to believe cannot be read.
pub fn means(
    config: &Config,
    targets: &[Arc<Target>],
    own: Vec<SocketAddr>,
    breaker: Breaker,
    telemetry: Telemetry,
    before: Option<&Means>,
) -> Result<Means, ClientError> {
    let settings = DialSettings { private: private::clients(config, targets)?, ..DialSettings::of(config, own) };
    let dialer = Dialer::new(settings);
    let rules = config.health_check.map_or(Rules { rise: 1, fall: 1 }, |check| Rules { rise: check.rise, fall: check.fall });
    let health = Health::new(targets, rules, telemetry.clone(), before.map(|before| &before.health));
    let most = config.upstreams.iter().map(|upstream| upstream.max_connections);
    let loads = targets.iter().zip(most).map(|(target, most)| (target.id, target.label.as_str(), most));
    let loads = Loads::new(loads, telemetry, before.map(|before| &before.loads));
    Ok(Means { dialer, breaker, health, loads, retry: config.retry })
}

/// Whether an upstream can be reached, for /ready. Probes where no checks find out.
pub fn reachability(config: &Config, targets: &[Arc<Target>], means: &Means) -> Reachability {
    let (fail_after, probes) = (config.ready.fail_after, config.health_check.is_none());
    Reachability::new(means.dialer.clone(), means.health.clone(), targets.to_vec(), fail_after, probes)
}

/// What /status shows of an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamView {
    /// Its label, without credentials, key and query.
    pub target: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its share of new sessions.
    pub weight: u32,
    /// Whether it is tried only after all others.
    pub backup: bool,
    /// Sessions of this relay there, dials in progress among them.
    pub sessions: u32,
    /// The most there may be.
    pub max_connections: Option<u32>,
    /// "off", "verified" or "not_verified".
    pub tls: &'static str,
    /// How it is.
    pub health: VitalView,
}

/// The upstreams in their order, as they are each time the answer is called.
pub fn views(config: &Config, targets: &[Arc<Target>], means: &Means) -> Arc<dyn Fn() -> Vec<UpstreamView> + Send + Sync> {
    let known: Vec<_> = targets.iter().cloned().zip(config.upstreams.clone()).collect();
    let (health, loads) = (means.health.clone(), means.loads.clone());
    Arc::new(move || {
        let view = |((target, upstream), health): (&(Arc<Target>, crate::config::Upstream), VitalView)| UpstreamView {
            target: target.label.clone(),
            name: upstream.name.clone(),
            weight: upstream.weight,
            backup: upstream.backup,
            sessions: loads.of(target.id),
            max_connections: upstream.max_connections,
            tls: privacy(target, upstream),
            health,
        };
        known.iter().zip(health.views()).map(view).collect()
    })
}

/// Judges an upstream's URL before anything is dialled: its grammar, and the address where it holds one. A name is
/// resolved and judged at each dial instead.
///
/// # Errors
/// [`UpstreamProblem`], fit to be printed.
pub fn judge_literal(url: &str, allowed: &[IpNetwork]) -> Result<(), UpstreamProblem> {
    match UpstreamUrl::parse(url)?.host() {
        url::Host::Literal(ip) => Ok(guard::judge(*ip, allowed)?),
        url::Host::Name(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_judged_with_the_configuration_and_a_name_at_each_dial() {
        let allowed = ["10.0.0.0/8".parse().expect("a network")];
        for url in ["rtmp://8.8.8.8/live", "rtmp://10.1.2.3", "rtmp://[::ffff:10.1.2.3]/live", "rtmp://localhost/live"] {
            assert_eq!(judge_literal(url, &allowed), Ok(()), "{url}");
        }
        for (url, word) in [
            ("rtmp://127.0.0.1/live/S3CRET", "loopback"),
            ("rtmp://[::1]:1936/live/S3CRET", "loopback"),
            ("rtmp://[64:ff9b::a9fe:a9fe]/S3CRET", "cloud metadata"),
            ("rtmp://192.168.0.1", "private"),
            ("rtmpt://8.8.8.8/S3CRET", "expected rtmp://"),
        ] {
            let text = judge_literal(url, &allowed).expect_err(url).to_string();
            assert!(text.contains(word) && !text.contains("S3CRET"), "{url}: {text}");
        }
    }

    #[test]
    fn a_configuration_becomes_targets_and_dial_settings() {
        let text = r#"{ "upstream": "rtmp://origin.example/live/S3CRET" }"#;
        let judge = |url: &str, allowed: &[IpNetwork]| judge_literal(url, allowed).map_err(|problem| problem.to_string());
        let loaded = crate::config::parse(text, &crate::config::Env::empty(), &judge);
        let config = loaded.map_err(|_| "problems").expect("a configuration").config;
        let numbering = Numbering::default();
        let first = targets(&config, &numbering, &[]).expect("targets");
        let targets = targets(&config, &numbering, &first).expect("targets");
        assert!(Arc::ptr_eq(&first[0], &targets[0]), "the same URL is the same target");
        assert_eq!(
            targets.iter().map(|target| (target.id, target.label.as_str())).collect::<Vec<_>>(),
            [(TargetId(0), "rtmp://origin.example:1935/live")]
        );
        let own = vec![SocketAddr::from(([0, 0, 0, 0], 1935))];
        let settings = DialSettings::of(&config, own.clone());
        assert_eq!((settings.dial_timeout.as_secs(), settings.queue_timeout.as_secs(), settings.max_dialing), (5, 20, 64));
        assert_eq!(settings.own, own);
    }
}
