//! Where should a stream go, and may we go there?
//!
//! A [`Target`] is an upstream as the operator wrote it; [`Target::address`] names a client's stream to it. [`Dialer`] is
//! the only way to a socket: it resolves, lets [`guard`] judge each address, refuses the relay's own door, and connects
//! to exactly what was judged. [`UpstreamBreaker`] is asked before each dial, [`retry`] says when there is another.

pub mod breaker;
pub mod circuit;
mod circuits;
pub mod dial;
pub mod guard;
pub mod probe;
pub mod resolve;
pub mod retry;
pub mod seek;
pub mod select;
mod self_check;
pub mod target;
mod template;
pub mod url;

pub use breaker::{Breaker, CircuitPermit, UpstreamBreaker};
pub use circuit::{CircuitState, NotNow};
pub use circuits::{Change, TargetView};
pub use dial::{Connected, DialError, DialSettings, Dialer};
pub use probe::{Reachability, Verdict};
pub use retry::{Attempts, GiveUp, Next};
pub use seek::{Link, Routes, Seek, SeekError, Step};
pub use target::{Target, TargetError, TargetId};
pub use url::{UpstreamUrl, UrlError};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::config::Config;
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

/// Gives targets their numbers: one that a new configuration keeps keeps its own, and none is given twice in one run of the relay.
#[derive(Debug, Default)]
pub struct Numbering(AtomicU32);

/// The configured upstreams, in their order. One that stands in `before` with the same URL is that one.
///
/// # Errors
/// [`UrlError`] for the first that cannot be read; a checked configuration holds none.
pub fn targets(config: &Config, numbering: &Numbering, before: &[Arc<Target>]) -> Result<Vec<Arc<Target>>, UrlError> {
    let target = |upstream: &crate::config::Upstream| {
        let url = UpstreamUrl::parse(&upstream.url)?;
        let known = before.iter().find(|target| target.url == url).map(Arc::clone);
        Ok(known.unwrap_or_else(|| Arc::new(Target::new(TargetId(numbering.0.fetch_add(1, Relaxed)), url))))
    };
    config.upstreams.iter().map(target).collect()
}

/// Everything a session needs to find its way, for `targets` and the addresses `own` that the relay listens on. What `before`
/// knows of targets that stay is kept.
pub fn routes(
    config: &Config,
    targets: &[Arc<Target>],
    own: Vec<SocketAddr>,
    breaker: Breaker,
    before: Option<&Routes>,
) -> Routes {
    let dialer = Dialer::new(DialSettings::of(config, own));
    let (targets, fail_after) = (targets.to_vec(), config.ready.fail_after);
    let reachability = match before {
        Some(before) => before.reachability.changed(dialer.clone(), targets, fail_after),
        None => Reachability::new(dialer.clone(), targets, fail_after),
    };
    Routes { dialer, breaker, reachability, retry: config.retry }
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
            ("rtmps://8.8.8.8/S3CRET", "not in this version"),
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
