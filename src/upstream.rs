//! Where should a stream go, and may we go there?
//!
//! A [`Target`] is an upstream as the operator wrote it; [`Target::address`] names a client's stream to it. [`Dialer`] is
//! the only way to a socket: it resolves, lets [`guard`] judge each address, refuses the relay's own door, and connects
//! to exactly what was judged. [`UpstreamBreaker`] is asked before each dial, [`retry`] says when there is another.

mod announce;
pub mod breaker;
pub mod circuit;
mod circuits;
pub mod dial;
pub mod guard;
pub mod live;
pub mod load;
pub mod passage;
mod private;
pub mod probe;
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
pub mod walk;

pub use breaker::{Breaker, CircuitPermit, UpstreamBreaker};
pub use circuit::{CircuitState, NotNow};
pub use circuits::{Change, TargetView};
pub use dial::{Connected, DialError, DialSettings, Dialer};
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

use crate::config::Config;
use crate::telemetry::Telemetry;
use crate::tls::ClientError;
use guard::Forbidden;
use ipnetwork::IpNetwork;

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

/// The configured upstreams, numbered in their order. No two have the same label.
///
/// # Errors
/// [`UrlError`] for the first that cannot be read; a checked configuration holds none.
pub fn targets(config: &Config) -> Result<Vec<Arc<Target>>, UrlError> {
    let mut targets: Vec<Arc<Target>> = Vec::new();
    for (id, upstream) in (0..).zip(&config.upstreams) {
        let mut target = Target::parse(TargetId(id), &upstream.url)?;
        target.proxy_protocol = upstream.proxy_protocol;
        // Two that differ in what no label may show, their stream keys, are told apart by their place.
        if targets.iter().any(|other| other.label == target.label) {
            target.label = format!("{}#{}", target.label, id + 1);
        }
        targets.push(Arc::new(target));
    }
    Ok(targets)
}

/// Everything that searches need, for `targets` and the addresses `own` that the relay listens on.
///
/// # Errors
/// [`ClientError`] where an upstream speaks TLS and whom to believe cannot be read.
pub fn means(
    config: &Config,
    targets: &[Arc<Target>],
    own: Vec<SocketAddr>,
    breaker: Breaker,
    telemetry: Telemetry,
) -> Result<Means, ClientError> {
    let settings = DialSettings { private: private::clients(config, targets)?, ..DialSettings::of(config, own) };
    let dialer = Dialer::new(settings);
    let reachability = Reachability::new(dialer.clone(), targets.to_vec(), config.ready.fail_after);
    let most = config.upstreams.iter().map(|upstream| upstream.max_connections);
    let loads = targets.iter().zip(most).map(|(target, most)| (target.id, target.label.as_str(), most));
    Ok(Means { dialer, breaker, reachability, loads: Loads::new(loads, telemetry), retry: config.retry })
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
        let targets = targets(&config).expect("targets");
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
