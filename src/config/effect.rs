//! Pure: when does a change of each key take effect in a relay that runs?

use serde_json::Value;

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// At once, for everybody.
    Live,
    /// For sessions that begin from now on; those that run keep what they began with.
    NewSessions,
    /// Only when the relay is started anew.
    NeedsRestart,
}

impl Effect {
    /// All, what comes soonest first.
    pub const ALL: [Self; 3] = [Self::Live, Self::NewSessions, Self::NeedsRestart];

    /// The word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::NewSessions => "new_sessions",
            Self::NeedsRestart => "needs_restart",
        }
    }

    /// What the word for machines stands for.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effect| effect.as_str() == word)
    }

    /// The words for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Live => "at once",
            Self::NewSessions => "for new sessions",
            Self::NeedsRestart => "needs a restart",
        }
    }
}

use Effect::{Live, NeedsRestart, NewSessions};

/// Every key outside a list. A list is one key: what stands inside it changes with it.
const EFFECTS: &[(&str, Effect)] = &[
    ("listen_addr", NeedsRestart),
    ("http_addr", NeedsRestart),
    ("http_allowed_networks", Live),
    ("http_tls", NeedsRestart),
    ("listeners", NeedsRestart),
    ("admin_addr", NeedsRestart),
    ("admin_tls", NeedsRestart),
    ("workers", NeedsRestart),
    ("upstream", NewSessions),
    ("upstreams", NewSessions),
    ("upstream_strategy", NewSessions),
    ("upstream_hash_load_factor", NewSessions),
    ("routes", NewSessions),
    ("upstream_tls.ca_file", NewSessions),
    ("upstream_max_dialing", NewSessions),
    ("forward_query", NewSessions),
    ("publish_hold.enabled", NewSessions),
    ("publish_hold.max_time", NewSessions),
    ("publish_hold.max_bytes", NewSessions),
    ("publish_hold.max_total", NewSessions),
    ("publish_takeover", Live),
    ("idle_timeout", NewSessions),
    ("player_idle_timeout", NewSessions),
    ("handshake_timeout", NewSessions),
    ("dial_timeout", NewSessions),
    ("write_timeout", NewSessions),
    ("upstream_stall_timeout", NewSessions),
    ("shutdown_timeout", Live),
    ("read_buffer", NewSessions),
    ("write_buffer", NewSessions),
    ("buffers.pool", Live),
    ("buffers.max_total", Live),
    ("hold.max", Live),
    ("tcp.recv_buffer", NewSessions),
    ("tcp.send_buffer", NewSessions),
    ("security.auth_enabled", NewSessions),
    ("security.auth_tokens", NewSessions),
    ("security.auth_tokens_file", NewSessions),
    ("security.users", NewSessions),
    ("security.adobe_auth", NewSessions),
    ("security.auth_secret", NewSessions),
    ("security.allowed_clients", NewSessions),
    ("security.denied_clients", NewSessions),
    ("security.upstream_allowed_networks", NewSessions),
    ("security.trusted_proxies", NewSessions),
    ("security.proxy_protocol", NewSessions),
    ("security.admin_token", Live),
    ("security.revoke_live", Live),
    ("security.tls_enabled", NeedsRestart),
    ("security.tls_cert", NeedsRestart),
    ("security.tls_key", NeedsRestart),
    ("security.tls_allow_plain", NeedsRestart),
    ("security.tls_client_ca", NeedsRestart),
    ("rate_limit.enabled", Live),
    ("rate_limit.requests_per_sec", Live),
    ("rate_limit.burst", Live),
    ("connection_limit.max_total_connections", Live),
    ("connection_limit.max_per_ip", Live),
    ("circuit_breaker.enabled", Live),
    ("circuit_breaker.max_failures", Live),
    ("circuit_breaker.reset_timeout_sec", Live),
    ("circuit_breaker.success_threshold", Live),
    ("retry.enabled", NewSessions),
    ("retry.max_attempts", NewSessions),
    ("retry.initial_delay_sec", NewSessions),
    ("retry.max_delay_sec", NewSessions),
    ("retry.multiplier", NewSessions),
    ("retry.jitter_fraction", NewSessions),
    ("retry.total_timeout", NewSessions),
    ("upstream_health_check.enabled", Live),
    ("upstream_health_check.interval_sec", Live),
    ("upstream_health_check.timeout_sec", Live),
    ("upstream_health_check.rise", Live),
    ("upstream_health_check.fall", Live),
    ("upstream_health_check.kind", Live),
    ("pool.min_idle", Live),
    ("pool.max_idle", Live),
    ("pool.max_idle_time", Live),
    ("dns.cache_ttl", NewSessions),
    ("dns.stale_ttl", NewSessions),
    ("ready.fail_after", Live),
    ("reload.watch", Live),
    ("reload.partial", Live),
    ("drain.delay", Live),
    ("drain.spread", Live),
    ("log.format", Live),
    ("log.level", Live),
    ("log.output", NeedsRestart),
    ("log.stream_names", NewSessions),
    ("log.fingerprint_key", NewSessions),
];

/// Every key with when a change of it takes effect.
pub fn effects() -> &'static [(&'static str, Effect)] {
    EFFECTS
}

/// When the change of `key` to the value `new` takes effect; a key that nobody has classified needs a restart.
pub(super) fn effect(key: &str, new: &Value) -> Effect {
    let known = EFFECTS.iter().find(|(path, _)| *path == key).map_or(NeedsRestart, |(_, effect)| *effect);
    // The kernel tunes a socket's buffers until somebody sets one, and never again.
    let sets_free = matches!(key, "tcp.recv_buffer" | "tcp.send_buffer") && new.as_u64() == Some(0);
    if sets_free { NeedsRestart } else { known }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::keys;

    #[test]
    fn every_key_is_classified_once() {
        let keys: BTreeSet<&str> = keys().iter().filter(|key| key.variable.is_some()).map(|key| key.path.as_str()).collect();
        let classified: BTreeSet<&str> = EFFECTS.iter().map(|(path, _)| *path).collect();
        let missing: Vec<_> = keys.difference(&classified).collect();
        let strange: Vec<_> = classified.difference(&keys).collect();
        assert!(missing.is_empty(), "src/config/effect.rs does not say when a change of {missing:?} takes effect");
        assert!(strange.is_empty(), "src/config/effect.rs knows {strange:?}, which are no keys");
        assert_eq!(classified.len(), EFFECTS.len(), "a key stands twice");
    }

    #[test]
    fn a_socket_buffer_that_was_set_cannot_be_given_back_to_the_kernel() {
        assert_eq!(effect("tcp.recv_buffer", &Value::from(65536)), NewSessions);
        assert_eq!(effect("tcp.recv_buffer", &Value::from(0)), NeedsRestart);
        assert_eq!(effect("never_heard_of", &Value::Null), NeedsRestart);
    }
}
