//! Why a peer may not come in, and how often each reason was given.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::IpKey;
use super::auth::AuthError;

/// Why a peer is not let in. The text is a sentence for the client and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A PROXY header came from an address that is not among `security.trusted_proxies`.
    #[error("a PROXY header came from {peer}: if this is your load balancer, name it in security.trusted_proxies")]
    ProxyUntrusted {
        /// The socket's peer.
        peer: IpAddr,
    },
    /// One that is among them sent none, and `security.proxy_protocol` asks for one.
    #[error(
        "no PROXY header came from {peer}, which is among security.trusted_proxies: let it send one (haproxy: send-proxy-v2), or set security.proxy_protocol to \"optional\""
    )]
    ProxyMissing {
        /// The socket's peer.
        peer: IpAddr,
    },
    /// `security.denied_clients` names the network.
    #[error("connection refused: this network is denied")]
    DeniedNetwork,
    /// `security.allowed_clients` names other networks.
    #[error("connection refused: this network is not among the allowed ones")]
    NetworkNotAllowed,
    /// The address connects too often.
    #[error("rate limit reached: too many new connections from this address, try again in {} s", whole_seconds(*.retry_after))]
    RateLimit {
        /// When the next connection would be let in, if no other comes before it.
        retry_after: Duration,
    },
    /// All places of the relay are taken.
    #[error("connection limit reached: the relay already has {held} connections")]
    MaxTotal {
        /// Places taken.
        held: u32,
    },
    /// All places of the address are taken.
    #[error("connection limit reached: {} already has {held} {}", owner(.key), if *.held == 1 { "connection" } else { "connections" })]
    MaxPerIp {
        /// The address, or v6 /64.
        key: IpKey,
        /// Places it has taken.
        held: u32,
        /// Whether a log line should now say that a load balancer in front makes all clients one address.
        hint: bool,
    },
    /// No token, or not the right one.
    #[error("authentication failed: {0}")]
    Auth(#[from] AuthError),
    /// Somebody else publishes the stream.
    #[error("the stream is already being published")]
    AlreadyPublishing,
    /// The relay is ending.
    #[error("the relay is shutting down")]
    Draining,
    /// The listener's cap on accepted sockets.
    #[error("connection limit reached: the relay has too many open sockets")]
    HardCap,
    /// The actor that would have to decide has failed.
    #[error("the relay cannot decide on this connection now")]
    Unavailable,
}

impl Refusal {
    /// Every reason, in the order of /status.
    pub const REASONS: [&'static str; 12] = [
        "proxy_untrusted",
        "proxy_missing",
        "denied_network",
        "network_not_allowed",
        "rate_limit",
        "max_total",
        "max_per_ip",
        "auth",
        "already_publishing",
        "draining",
        "hard_cap",
        "unavailable",
    ];

    /// The label in logs, metrics and /status; one of [`Self::REASONS`].
    pub fn reason(&self) -> &'static str {
        Self::REASONS[self.index()]
    }

    fn index(&self) -> usize {
        match self {
            Self::ProxyUntrusted { .. } => 0,
            Self::ProxyMissing { .. } => 1,
            Self::DeniedNetwork => 2,
            Self::NetworkNotAllowed => 3,
            Self::RateLimit { .. } => 4,
            Self::MaxTotal { .. } => 5,
            Self::MaxPerIp { .. } => 6,
            Self::Auth(_) => 7,
            Self::AlreadyPublishing => 8,
            Self::Draining => 9,
            Self::HardCap => 10,
            Self::Unavailable => 11,
        }
    }
}

fn owner(key: &IpKey) -> &'static str {
    match key {
        IpKey::V4(_) => "this address",
        IpKey::V6Net(_) => "this /64 network",
    }
}

/// Rounded up: a client told "0 s" would come back too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// How often each reason was given since start. Cloned handles share the counts.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<[AtomicU64; Refusal::REASONS.len()]>);

impl Tally {
    /// Counts one refusal. The admission room counts what it refuses itself; call this for [`Refusal::HardCap`] and others
    /// decided elsewhere.
    pub fn count(&self, refusal: &Refusal) {
        self.0[refusal.index()].fetch_add(1, Relaxed);
    }

    /// Every reason with its count.
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        Refusal::REASONS.iter().zip(self.0.iter()).map(|(reason, count)| (*reason, count.load(Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_which_limit_it_was() {
        let v4 = IpKey::of([192, 0, 2, 1].into());
        let full = Refusal::MaxPerIp { key: v4, held: 5, hint: false };
        assert_eq!(full.to_string(), "connection limit reached: this address already has 5 connections");
        let one = Refusal::MaxPerIp { key: IpKey::V6Net(1), held: 1, hint: false };
        assert_eq!(one.to_string(), "connection limit reached: this /64 network already has 1 connection");
        let rate = Refusal::RateLimit { retry_after: Duration::from_millis(1200) };
        assert_eq!(rate.to_string(), "rate limit reached: too many new connections from this address, try again in 2 s");
    }

    #[test]
    fn the_tally_counts_by_reason() {
        let tally = Tally::default();
        tally.count(&Refusal::HardCap);
        tally.clone().count(&Refusal::HardCap);
        assert!(tally.read().contains(&("hard_cap", 2)));
        assert!(tally.read().contains(&("auth", 0)));
    }
}
