//! Is the relay well? The probe for containers that have no other program to ask with.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::config::ListenAddr;

/// For the connection, and for each read and write. A relay that needs longer is not well.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of an answer, bytes; /health needs a hundred.
const MAX_ANSWER: u64 = 64 * 1024;

/// Asks `url` and returns what it answers.
///
/// # Errors
/// No answer in time, or another than 200.
pub fn health(url: &str) -> anyhow::Result<String> {
    let (host, path) = parts(url)?;
    let (code, body) = get(&host, path).with_context(|| format!("{url} does not answer"))?;
    if code != 200 {
        bail!("{url} answers {code}: {}", body.trim());
    }
    Ok(body)
}

/// Where the relay that listens for HTTP at `address` answers /health to this machine.
pub fn health_url(address: ListenAddr) -> String {
    let host = address.host.filter(|host| !host.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    format!("http://{}/health", SocketAddr::new(host, address.port))
}

/// `host:port` and path of `url`.
fn parts(url: &str) -> anyhow::Result<(String, &str)> {
    let rest =
        url.strip_prefix("http://").ok_or_else(|| anyhow!("{url}: an address like http://localhost:8080/health is wanted"))?;
    let (host, path) = rest.find('/').map_or((rest, "/health"), |at| rest.split_at(at));
    // The colons of an IPv6 address stand in brackets.
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    Ok((if has_port { host.to_owned() } else { format!("{host}:80") }, path))
}

fn get(host: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut socket = connect(host)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("that is no HTTP"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| anyhow!("that is no HTTP"))?;
    Ok((code, body.to_owned()))
}

fn connect(host: &str) -> anyhow::Result<TcpStream> {
    let mut last = anyhow!("{host} has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_leave_out_what_goes_without_saying() {
        for (url, host, path) in [
            ("http://localhost:8080/ready", "localhost:8080", "/ready"),
            ("http://relay:8080", "relay:8080", "/health"),
            ("http://relay", "relay:80", "/health"),
            ("http://[::1]:8080/", "[::1]:8080", "/"),
            ("http://[::1]/", "[::1]:80", "/"),
        ] {
            assert_eq!(parts(url).unwrap(), (host.to_owned(), path), "{url}");
        }
        assert!(parts("https://relay/").is_err());
    }

    #[test]
    fn the_address_to_ask_is_the_one_that_is_listened_on() {
        let url = |address: &str| health_url(address.parse().unwrap());
        assert_eq!(url(":8080"), "http://127.0.0.1:8080/health");
        assert_eq!(url("0.0.0.0:9090"), "http://127.0.0.1:9090/health");
        assert_eq!(url("[::1]:9090"), "http://[::1]:9090/health");
        assert_eq!(url("192.0.2.1:9090"), "http://192.0.2.1:9090/health");
    }
}
