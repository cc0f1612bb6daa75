//! Pure: the PROXY protocol, versions 1 and 2 (haproxy, doc/proxy-protocol.txt): whose connection is this really, and how is that said?

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader};

/// Longest header that is taken, bytes. Version 2 may announce 64 KiB; what senders add in practice are some hundred.
pub const MAX_HEADER: usize = 4096;
/// Longest line of version 1, with its CRLF (section 2.1).
const MAX_V1: usize = 107;
/// What version 1 begins with.
const V1: &[u8] = b"PROXY ";
/// What version 2 begins with; chosen so that no other protocol does.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2: signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;

/// Which version a header is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Both ends of a client's connection, as its proxy had them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: SocketAddr,
    /// Where the client connected to.
    pub reached: SocketAddr,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The connection is this client's.
    Client(Ends),
    /// The connection is the proxy's own, as for a health check (LOCAL), or of nobody known (UNKNOWN, UNSPEC): the socket's
    /// addresses hold.
    Own,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Too few to tell.
    More,
    /// No header.
    None,
    /// A whole header.
    Header {
        /// What it says.
        claim: Claim,
        /// Its length, bytes.
        length: usize,
    },
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Longer than a line of version 1 may be, or than [`MAX_HEADER`].
    #[error("the PROXY header is longer than {0} bytes")]
    TooLong(usize),
    /// It breaks the grammar, or speaks of datagrams.
    #[error("the PROXY header cannot be read")]
    Malformed,
}

/// Whether `first` begins a header, as far as its opening tells; `None` where more bytes must decide.
pub fn begins(first: &[u8]) -> Option<bool> {
    let opens = |opening: &[u8]| match first.len() < opening.len() {
        true if opening.starts_with(first) => None,
        true => Some(false),
        false => Some(first.starts_with(opening)),
    };
    match (opens(V1), opens(V2)) {
        (Some(false), other) => other,
        (v1, _) => v1,
    }
}

/// Looks at the bytes that a connection began with. To be asked again with more of them while the answer is [`Look::More`]; with
/// [`MAX_HEADER`] bytes it is not.
///
/// # Errors
/// [`ProxyError`].
pub fn look(first: &[u8]) -> Result<Look, ProxyError> {
    match begins(first) {
        None => Ok(Look::More),
        Some(false) => Ok(Look::None),
        Some(true) if first.starts_with(V1) => look_v1(first),
        Some(true) => look_v2(first),
    }
}

fn look_v1(first: &[u8]) -> Result<Look, ProxyError> {
    // The bound is on the line, not on what happens to be there behind it.
    let line = &first[..first.len().min(MAX_V1)];
    if !line.ends_with(b"\r\n") && !line.windows(2).any(|pair| pair == b"\r\n") {
        return if line.len() == MAX_V1 { Err(ProxyError::TooLong(MAX_V1)) } else { Ok(Look::More) };
    }
    parse(line)
}

fn look_v2(first: &[u8]) -> Result<Look, ProxyError> {
    let Some(fixed) = first.first_chunk::<V2_FIXED>() else { return Ok(Look::More) };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > MAX_HEADER {
        return Err(ProxyError::TooLong(MAX_HEADER));
    }
    let own = Look::Header { claim: Claim::Own, length };
    let (command, family, transport) = (fixed[12], fixed[13] >> 4, fixed[13] & 0xF);
    match (command, family, transport) {
        _ if first.len() < length => Ok(Look::More),
        // LOCAL: whatever stands behind it must be left unread (section 2.2), families that nobody knows included.
        (0x20, ..) => Ok(own),
        // UNSPEC in either half, and sockets without addresses.
        (0x21, 0, 0..=2) | (0x21, 1..=3, 0) | (0x21, 3, 1) => Ok(own),
        (0x21, 1 | 2, 1) => parse(&first[..length]),
        _ => Err(ProxyError::Malformed),
    }
}

fn parse(header: &[u8]) -> Result<Look, ProxyError> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(header, config) {
        Ok((header, length)) => {
            let ends = header
                .proxied_address()
                .map(|ends| Ends { client: canonical(ends.source), reached: canonical(ends.destination) });
            Ok(Look::Header { claim: ends.map_or(Claim::Own, Claim::Client), length })
        }
        // All of it is there.
        Err(_) => Err(ProxyError::Malformed),
    }
}

/// The header that says whose connection this is; `None` says that it is our own.
///
/// Two ends of different families are both written as IPv6, the IPv4 one mapped: a header has one family.
pub fn header(version: Version, ends: Option<Ends>) -> Vec<u8> {
    let header = match ends {
        Some(Ends { client, reached }) => {
            let (client, reached) = (canonical(client), canonical(reached));
            let mixed = client.is_ipv4() != reached.is_ipv4();
            let (client, reached) = if mixed { (mapped(client), mapped(reached)) } else { (client, reached) };
            ProxyHeader::with_address(ProxiedAddress::stream(client, reached))
        }
        None => ProxyHeader::with_local(),
    };
    let mut out = Vec::with_capacity(MAX_V1);
    let written: Result<(), Error> = match version {
        Version::V1 => header.encode_v1(&mut out),
        Version::V2 => header.encode_v2(&mut out),
    };
    debug_assert_eq!(written, Ok(()), "a stream between two ends of one family, without more, can be written");
    out
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddrV6::new(ip.to_ipv6_mapped(), address.port(), 0, 0).into(),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
