//! Whose connection is this? The PROXY header, read before anything else and before anybody is asked.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::report;
use crate::admission::{Expect, Refusal};
use crate::protocol::proxy::{self, Claim, Ends, Look, MAX_HEADER, ProxyError};
use crate::telemetry;

/// Reads the PROXY header of a peer that is trusted to send one, and lets the session's cell know whose connection it is: its
/// [`client`](telemetry::SessionCell::client) is what admission is to judge. Of any other peer no byte is read.
///
/// The header is taken byte for byte: what follows it is left in the socket, TLS or not. `at` is the arrival, with which the time for
/// all that comes before publish or play begins.
///
/// # Errors
/// How the session ends: the header is missing (`proxy_missing`), broken (`proxy_malformed`) or late (`handshake_timeout`), or nothing came
/// at all, as from a load balancer that only looks whether somebody is here (`empty`).
pub(super) async fn claimed(stream: &TcpStream, place: &Place, at: Instant) -> Result<(), Outcome> {
    let socket = place.cell.client();
    let peer = socket.ip();
    let expect = place.shared.gate.expect_of(peer);
    if expect == Expect::NoHeader {
        return Ok(());
    }
    let limit = at + place.shared.timeouts.preface;
    match timeout_at(limit.into(), header(stream, socket)).await {
        Ok(Ok(Header::Client(ends))) => {
            place.cell.believe(telemetry::Claim { client: ends.client, reached: ends.reached });
            Ok(())
        }
        Ok(Ok(Header::Own)) => Ok(()),
        Ok(Ok(Header::None)) if expect == Expect::Maybe => Ok(()),
        Ok(Ok(Header::None)) => Err(refused(place, &Refusal::ProxyMissing { peer })),
        Ok(Err(failure)) => Err(failure.into()),
        Err(_) => {
            let status = if peek(stream, &mut [0]).is_ok_and(|there| there > 0) { Status::Error } else { Status::Empty };
            Err(Outcome::new(Side::Client, "handshake_timeout", status).because("the PROXY header did not come in time"))
        }
    }
}

/// Both ends of the client's connection: as its proxy told, else as the socket has them.
pub(super) fn ends(place: &Place, stream: &TcpStream) -> Ends {
    let client = place.cell.client();
    let reached = place.cell.reached().or_else(|| stream.local_addr().ok());
    // A socket whose own address cannot be had is about to fail anyway.
    Ends { client, reached: reached.unwrap_or(SocketAddr::new(client.ip(), 0)) }
}

/// How the session ends of a peer that sent a header, and is not trusted to.
pub(super) fn unbelieved(place: &Place) -> Outcome {
    refused(place, &Refusal::ProxyUntrusted { peer: place.cell.client().ip() })
}

fn refused(place: &Place, refusal: &Refusal) -> Outcome {
    let text = refusal.to_string();
    place.shared.gate.tally().count(refusal);
    report::refused(place, refusal.reason(), &text);
    Outcome::new(Side::Relay, refusal.reason(), Status::Rejected).because(text)
}

/// What a connection begins with.
enum Header {
    None,
    Own,
    Client(Ends),
}

/// Why there is no answer.
#[derive(Debug)]
enum Failure {
    /// The peer closed without a byte of a stream.
    Empty,
    /// The peer closed within the header.
    Cut,
    Broken(ProxyError),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Empty => Self::new(Side::Client, "empty", Status::Empty),
            Failure::Cut => Self::new(Side::Client, "client_left", Status::Error).because("it closed within the PROXY header"),
            Failure::Broken(error) => Self::new(Side::Client, "proxy_malformed", Status::Error).because(error),
        }
    }
}

async fn header(stream: &TcpStream, peer: SocketAddr) -> Result<Header, Failure> {
    let mut first = vec![0; MAX_HEADER];
    let (claim, length) = loop {
        match seen(stream, &mut first).await? {
            Look::Header { claim, length } => break (claim, length),
            Look::None => return Ok(Header::None),
            // `seen` waits for more.
            Look::More => {}
        }
    };
    // It was there when it was looked at: whoever is gone since has reset the connection, as checks do.
    take(stream, &mut first[..length]).await.map_err(|_| Failure::Empty)?;
    match claim {
        Claim::Client(ends) if ends.client != peer => Ok(Header::Client(ends)),
        // A check of the proxy itself (haproxy names its own end as the client): mostly there is nothing behind its header, and then
        // there was no client to be judged.
        Claim::Client(_) | Claim::Own => {
            arrived(stream, &mut [0], |_| Some(())).await?;
            Ok(Header::Own)
        }
    }
}

async fn seen(stream: &TcpStream, first: &mut [u8]) -> Result<Look, Failure> {
    arrived(stream, first, |first| match proxy::look(first) {
        Ok(Look::More) => None,
        look => Some(look),
    })
    .await?
    .map_err(Failure::Broken)
}

/// Waits, without taking anything, until what has arrived is enough for `judge`.
async fn arrived<T>(stream: &TcpStream, first: &mut [u8], judge: impl Fn(&[u8]) -> Option<T>) -> Result<T, Failure> {
    loop {
        let ready = stream.ready(Interest::READABLE).await.map_err(|_| Failure::Empty)?;
        let mut there = 0;
        // Within `try_io`, so that "not enough" clears the readiness: bytes that were only looked at would else be ready for ever.
        let judged = stream.try_io(Interest::READABLE, || {
            there = peek(stream, first)?;
            judge(&first[..there]).ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        match judged {
            Ok(enough) if there > 0 => return Ok(enough),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && there > 0 && ready.is_read_closed() => return Err(Failure::Cut),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && (there > 0 || !ready.is_read_closed()) => {}
            // Closed or reset: load balancers' checks do either.
            Ok(_) | Err(_) => return Err(Failure::Empty),
        }
    }
}

fn peek(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let (there, _) = recv(stream, into, RecvFlags::PEEK)?;
    Ok(there)
}

/// Takes exactly as many bytes as `into` holds, all of which have arrived.
async fn take(stream: &TcpStream, into: &mut [u8]) -> io::Result<()> {
    let mut taken = 0;
    while taken < into.len() {
        stream.readable().await?;
        match stream.try_read(&mut into[taken..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => taken += read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
