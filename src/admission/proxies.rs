//! Pure: whose PROXY header is believed?

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::config::{ProxyMode, Security};

/// What a connection may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No header: its peer is the client, whatever it claims.
    NoHeader,
    /// A header, or none.
    Maybe,
    /// A header.
    Header,
}

/// The proxies that `security.trusted_proxies` names. v4-mapped addresses are judged as v4.
#[derive(Debug, Clone)]
pub struct Proxies {
    trusted: Vec<IpNetwork>,
    mode: ProxyMode,
}

impl Proxies {
    /// As the operator chose.
    pub fn new(security: &Security) -> Self {
        Self { trusted: security.trusted_proxies.clone(), mode: security.proxy_protocol }
    }

    /// What to expect of the socket whose peer is `peer`.
    pub fn expect_of(&self, peer: IpAddr) -> Expect {
        let peer = peer.to_canonical();
        match (self.trusted.iter().any(|network| network.contains(peer)), self.mode) {
            (false, _) => Expect::NoHeader,
            (true, ProxyMode::Optional) => Expect::Maybe,
            (true, ProxyMode::Required) => Expect::Header,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::asks_nothing;

    fn proxies(trusted: &[&str], proxy_protocol: ProxyMode) -> Proxies {
        let trusted_proxies = trusted.iter().map(|network| network.parse().unwrap()).collect();
        Proxies::new(&Security { trusted_proxies, proxy_protocol, ..asks_nothing() })
    }

    #[test]
    fn only_a_named_network_is_believed() {
        let ten = proxies(&["10.0.0.0/8", "2001:db8::/32"], ProxyMode::Required);
        for (peer, want) in [
            ("10.1.2.3", Expect::Header),
            ("::ffff:10.1.2.3", Expect::Header),
            ("2001:db8::5", Expect::Header),
            ("11.1.2.3", Expect::NoHeader),
            ("::1", Expect::NoHeader),
        ] {
            assert_eq!(ten.expect_of(peer.parse().unwrap()), want, "{peer}");
        }
        assert_eq!(proxies(&["10.0.0.0/8"], ProxyMode::Optional).expect_of([10, 0, 0, 1].into()), Expect::Maybe);
        assert_eq!(proxies(&[], ProxyMode::Required).expect_of([10, 0, 0, 1].into()), Expect::NoHeader);
    }
}
