//! Pure: an address to listen on, as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddr {
    /// One address, or `None` for every address of this machine, v4 and v6.
    pub host: Option<IpAddr>,
    /// The port; 0 lets the kernel pick a free one.
    pub port: u16,
}

/// Why an address cannot be listened on; the text says what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing behind the last colon, or no colon.
    #[error("the port is missing: write \":1935\" for every address, or \"192.0.2.1:1935\" for one")]
    NoPort,
    /// The port is no number from 0 to 65535.
    #[error("the port must be a number from 0 to 65535, as in \":1935\"")]
    Port,
    /// `::1:1935`: nobody can tell the address from the port.
    #[error("an IPv6 address stands in brackets: \"[::1]:1935\"")]
    Brackets,
    /// Neither an IP address nor `localhost`.
    #[error("a host name cannot be listened on: write \":1935\" for every address, or an IP address as in \"127.0.0.1:1935\"")]
    HostName,
}

impl ListenAddr {
    /// Whether both would take the same port of the same address.
    pub fn collides(&self, other: &Self) -> bool {
        let same_host = match (self.host, other.host) {
            (Some(a), Some(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
            (None, _) | (_, None) => true,
        };
        self.port != 0 && self.port == other.port && same_host
    }
}

impl std::str::FromStr for ListenAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if port.is_empty() || host.ends_with(':') || text.ends_with(']') {
            return Err(if text.contains("::") && !text.starts_with('[') {
                AddressError::Brackets
            } else {
                AddressError::NoPort
            });
        }
        // "+80" parses as a number, and nobody means it.
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or(AddressError::Port)?;
        Ok(Self { host: parse_host(host)?, port })
    }
}

fn parse_host(host: &str) -> Result<Option<IpAddr>, AddressError> {
    match host {
        "" => Ok(None),
        "localhost" => Ok(Some(Ipv4Addr::LOCALHOST.into())),
        _ => {
            let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            match (inner, host.parse::<IpAddr>()) {
                (Some(inner), _) => inner.parse::<IpAddr>().map(|ip| Some(ip.to_canonical())).map_err(|_| AddressError::HostName),
                (None, Ok(IpAddr::V4(ip))) => Ok(Some(ip.into())),
                (None, Ok(IpAddr::V6(_))) => Err(AddressError::Brackets),
                (None, Err(_)) => Err(AddressError::HostName),
            }
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(host) => SocketAddr::new(host, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ListenAddr, AddressError> {
        text.parse()
    }

    #[test]
    fn the_usual_forms_are_read_and_written_alike() {
        for text in [":1935", "0.0.0.0:1935", "[::]:1935", "127.0.0.1:0", "[2001:db8::1]:65535"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse(":1935").unwrap(), ListenAddr { host: None, port: 1935 });
        assert_eq!(parse("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(parse("[::ffff:192.0.2.1]:80").unwrap().to_string(), "192.0.2.1:80");
    }

    #[test]
    fn what_cannot_be_listened_on_is_refused_by_its_own_reason() {
        assert_eq!(parse("1935"), Err(AddressError::NoPort));
        assert_eq!(parse("127.0.0.1"), Err(AddressError::NoPort));
        assert_eq!(parse("127.0.0.1:"), Err(AddressError::NoPort));
        assert_eq!(parse("[::1]"), Err(AddressError::NoPort));
        assert_eq!(parse(""), Err(AddressError::NoPort));
        assert_eq!(parse(":70000"), Err(AddressError::Port));
        assert_eq!(parse(":+80"), Err(AddressError::Port));
        assert_eq!(parse(":http"), Err(AddressError::Port));
        assert_eq!(parse("::1:1935"), Err(AddressError::Brackets));
        assert_eq!(parse("::1"), Err(AddressError::Brackets));
        assert_eq!(parse("example.com:1935"), Err(AddressError::HostName));
        assert_eq!(parse("*:1935"), Err(AddressError::HostName));
        assert_eq!(parse("[fe80::1%eth0]:1935"), Err(AddressError::HostName));
    }

    #[test]
    fn two_listeners_collide_on_one_port_of_one_address() {
        let collide = |a: &str, b: &str| parse(a).unwrap().collides(&parse(b).unwrap());
        assert!(collide(":1935", "127.0.0.1:1935"));
        assert!(collide("0.0.0.0:1935", "127.0.0.1:1935"));
        assert!(collide("127.0.0.1:1935", "127.0.0.1:1935"));
        assert!(!collide("127.0.0.2:1935", "127.0.0.1:1935"));
        assert!(!collide(":1935", ":8080"));
        assert!(!collide(":0", ":0"));
    }
}
