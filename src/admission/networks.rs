//! Pure: may this network come in at all?

use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv4Network};

use super::Refusal;

/// The networks that `security.allowed_clients` and `security.denied_clients` name.
///
/// A denied network wins over an allowed one. v4-mapped addresses and networks are judged as v4, so `::/0` names every v6
/// client and no v4 client.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    allowed: Vec<IpNetwork>,
    denied: Vec<IpNetwork>,
}

impl Networks {
    /// `allowed` empty allows every network that is not denied.
    pub fn new(allowed: &[IpNetwork], denied: &[IpNetwork]) -> Self {
        let canonical = |networks: &[IpNetwork]| networks.iter().copied().map(canonical).collect();
        Self { allowed: canonical(allowed), denied: canonical(denied) }
    }

    /// Judges one client address.
    ///
    /// # Errors
    /// [`Refusal::DeniedNetwork`] or [`Refusal::NetworkNotAllowed`].
    pub fn judge(&self, ip: IpAddr) -> Result<(), Refusal> {
        let ip = ip.to_canonical();
        if self.denied.iter().any(|network| network.contains(ip)) {
            return Err(Refusal::DeniedNetwork);
        }
        if !self.allowed.is_empty() && !self.allowed.iter().any(|network| network.contains(ip)) {
            return Err(Refusal::NetworkNotAllowed);
        }
        Ok(())
    }
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`: clients are canonical, so a mapped network would match nobody.
fn canonical(network: IpNetwork) -> IpNetwork {
    let IpNetwork::V6(v6) = network else { return network };
    let mapped = v6.ip().to_ipv4_mapped().zip(v6.prefix().checked_sub(96));
    mapped.and_then(|(ip, prefix)| Ipv4Network::new(ip, prefix).ok()).map_or(network, IpNetwork::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn judge(allowed: &[&str], denied: &[&str], ip: &str) -> Result<(), Refusal> {
        Networks::new(&nets(allowed), &nets(denied)).judge(ip.parse().unwrap())
    }

    #[test]
    fn without_lists_everybody_comes_in() {
        assert_eq!(judge(&[], &[], "198.51.100.1"), Ok(()));
    }

    #[test]
    fn a_list_of_allowed_networks_shuts_out_the_rest() {
        assert_eq!(judge(&["10.0.0.0/8"], &[], "10.2.3.4"), Ok(()));
        assert_eq!(judge(&["10.0.0.0/8"], &[], "11.2.3.4"), Err(Refusal::NetworkNotAllowed));
        assert_eq!(judge(&["::/0"], &[], "11.2.3.4"), Err(Refusal::NetworkNotAllowed));
    }

    #[test]
    fn denied_wins_over_allowed() {
        assert_eq!(judge(&["10.0.0.0/8"], &["10.2.0.0/16"], "10.2.3.4"), Err(Refusal::DeniedNetwork));
        assert_eq!(judge(&[], &["2001:db8::/32"], "2001:db8::9"), Err(Refusal::DeniedNetwork));
    }

    #[test]
    fn mapped_addresses_and_networks_are_v4() {
        assert_eq!(judge(&[], &["10.0.0.0/8"], "::ffff:10.1.1.1"), Err(Refusal::DeniedNetwork));
        assert_eq!(judge(&[], &["::ffff:10.0.0.0/104"], "10.1.1.1"), Err(Refusal::DeniedNetwork));
    }
}
