//! Whose connection is this? Said to an upstream in a PROXY header, before its first own byte and before TLS.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::config::ProxyProtocol;
use crate::protocol::proxy::{self, Ends, Version};

/// Writes the header that an upstream expects; nothing where it expects none. `ends` `None` is the relay's own connection, as a check of
/// whether somebody is there: LOCAL in version 2, UNKNOWN in version 1.
///
/// # Errors
/// What the socket said. A header fits into every send buffer, so that this does not wait for the upstream to read.
pub(super) async fn announce(stream: &mut TcpStream, expected: ProxyProtocol, ends: Option<Ends>) -> io::Result<()> {
    let version = match expected {
        ProxyProtocol::Off => return Ok(()),
        ProxyProtocol::V1 => Version::V1,
        ProxyProtocol::V2 => Version::V2,
    };
    stream.write_all(&proxy::header(version, ends)).await
}
