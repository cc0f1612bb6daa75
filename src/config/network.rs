//! Pure: a network as people write it: "10.0.0.0/8", "2001:db8::/32", or one address.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Why a text is no network; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NetworkError {
    #[error("a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address")]
    Form,
    // "10.1.2.3/8": somebody meant the network, somebody else the address; a security list is no place to guess.
    #[error("a network without bits behind its prefix: \"{network}\" for the network, \"{address}\" for the one address")]
    HostBits { network: String, address: IpAddr },
    // Mapped addresses become v4 at accept: such a network would never match.
    #[error("an IPv4 network written as such: mapped addresses are judged as IPv4")]
    Mapped,
}

/// Reads one.
pub(super) fn parse(text: &str) -> Result<IpNetwork, NetworkError> {
    let network: IpNetwork = text.trim().parse().map_err(|_| NetworkError::Form)?;
    match network.ip() {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Err(NetworkError::Mapped),
        address if address != network.network() => {
            let network = format!("{}/{}", network.network(), network.prefix());
            Err(NetworkError::HostBits { network, address })
        }
        _ => Ok(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        for (text, read) in
            [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.1", "192.0.2.1/32"), ("2001:db8::/32", "2001:db8::/32"), ("::1", "::1/128")]
        {
            assert_eq!(parse(text).unwrap().to_string(), read);
        }
    }

    #[test]
    fn what_would_not_do_what_it_says_is_refused() {
        let text = parse("10.1.2.3/8").unwrap_err().to_string();
        assert!(text.contains("\"10.0.0.0/8\"") && text.contains("\"10.1.2.3\""), "{text}");
        assert_eq!(parse("::ffff:10.0.0.0/104"), Err(NetworkError::Mapped));
        for text in ["", "example.com", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1"] {
            assert_eq!(parse(text), Err(NetworkError::Form), "{text}");
        }
    }
}
