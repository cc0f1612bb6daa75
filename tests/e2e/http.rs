//! One HTTP GET over a plain socket: enough for /status, /metrics and nginx's /stat.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The body of `GET path`, if the answer is a 200.
pub fn get(address: &str, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no end of the HTTP head"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("GET {path}: {}", head.lines().next().unwrap_or_default()))),
    }
}
