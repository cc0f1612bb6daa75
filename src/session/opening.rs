//! What does a connection open with? Its first byte says whether it is private, the first ones within which protocol the client speaks,
//! before anything of it is judged.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use super::client::Client;
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::rtsp;
use super::sides::farewell;
use super::{Door, Tls};
use super::{piece, preface};
use crate::protocol::sniff::{self, Guess};
use crate::tls::Stream;

/// How long a client may take to take what it is told.
pub(super) const TELL: Duration = Duration::from_secs(2);

/// A client that has begun to speak.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// What it said, at least one byte.
    pub(super) first: Vec<u8>,
    pub(super) speaks: Speaks,
}

/// What the relay can speak with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Rtmp,
    Rtsp,
}

impl Opened {
    fn new(place: &Place, stream: Stream, first: Vec<u8>, speaks: Speaks) -> Self {
        let scheme = match (speaks, stream.is_private()) {
            (Speaks::Rtmp, false) => "rtmp",
            (Speaks::Rtmp, true) => "rtmps",
            (Speaks::Rtsp, false) => "rtsp",
            (Speaks::Rtsp, true) => "rtsps",
        };
        place.cell.learn(|facts| facts.protocol = Some(scheme));
        Self { stream, first, speaks }
    }
}

/// Waits for the client's first bytes, in private where it asks for that, under the deadline that began with its socket.
pub(super) async fn open(place: &Place, tcp: TcpStream, door: Door, at: Instant) -> Result<Opened, Outcome> {
    let deadline = at + place.shared.timeouts.preface;
    let spoke = Cell::new(false);
    tokio::select! {
        biased;
        outcome = place.seat.ended() => Err(outcome),
        opened = timeout_at(deadline.into(), heard(place, tcp, door, &spoke)) => opened.unwrap_or_else(|_| {
            let status = if spoke.get() { Status::Error } else { Status::Empty };
            Err(Outcome::new(Side::Client, "handshake_timeout", status))
        }),
    }
}

async fn heard(place: &Place, tcp: TcpStream, door: Door, spoke: &Cell<bool>) -> Result<Opened, Outcome> {
    let mut stream = private(place, tcp, door, spoke).await?;
    let first = hear(&mut stream, spoke).await?;
    match sniff::guess(&first) {
        Guess::Proxy => Err(preface::unbelieved(place)),
        guess if door.tls == Tls::Only && !stream.is_private() => {
            let text = "this port takes rtmps:// and rtsps:// only: the relay's operator has turned TLS on";
            refuse(stream, first, 403, text.to_owned()).await;
            let outcome = Outcome::new(Side::Client, "plain_on_tls_port", Status::Rejected);
            Err(outcome.because(format_args!("it spoke {}", guess.name())))
        }
        Guess::Rtmp => Ok(Opened::new(place, stream, first, Speaks::Rtmp)),
        Guess::Rtsp => Ok(Opened::new(place, stream, first, Speaks::Rtsp)),
        other => {
            answer(&mut stream, other).await;
            Err(Outcome::new(Side::Client, other.reason(), Status::Error))
        }
    }
}

/// Tells a client that may not come in why, in the terms of what it speaks, as far as that can be said before it is known.
pub(super) async fn turn_away(tcp: TcpStream, text: String) {
    let told = async {
        let mut stream = tcp.into();
        if let Ok(first) = hear(&mut stream, &Cell::new(false)).await {
            refuse(stream, first, 503, text).await;
        }
    };
    let _ = timeout(TELL, told).await;
}

/// `code`: what RTSP calls it.
async fn refuse(mut stream: Stream, first: Vec<u8>, code: u16, text: String) {
    match sniff::guess(&first) {
        Guess::Rtmp => Client::new(stream, first).refuse_at_connect(text).await,
        Guess::Rtsp => rtsp::refuse(stream, first, code, text).await,
        // TLS is the dearest step: never done for someone who may not come in.
        other => answer(&mut stream, other).await,
    }
}

/// Goes behind TLS where the door has it and the client begins it.
async fn private(place: &Place, tcp: TcpStream, door: Door, spoke: &Cell<bool>) -> Result<Stream, Outcome> {
    let Some(server) = place.shared.tls.as_ref().filter(|_| door.tls != Tls::Off) else { return Ok(tcp.into()) };
    let mut first = [0];
    // Closed or reset: load balancers' checks do either.
    if !tcp.peek(&mut first).await.is_ok_and(|there| there > 0) {
        return Err(empty());
    }
    spoke.set(true);
    if sniff::guess(&first) != Guess::Tls {
        return Ok(tcp.into());
    }
    server.accept(tcp).await.map_err(|e| Outcome::new(Side::Client, e.reason(), Status::Error).because(e))
}

fn lost(error: io::Error) -> Outcome {
    Outcome::new(Side::Client, "client_left", Status::Error).because(error)
}

fn empty() -> Outcome {
    Outcome::new(Side::Client, "empty", Status::Empty)
}

/// Reads until it is clear what the client speaks.
async fn hear(stream: &mut Stream, spoke: &Cell<bool>) -> Result<Vec<u8>, Outcome> {
    let mut first = Vec::new();
    loop {
        match piece::read(stream, |bytes| first.extend_from_slice(bytes)).await {
            Ok(Some(_)) => {}
            // Closed or reset: load balancers' checks do either.
            Ok(None) | Err(_) if first.is_empty() => return Err(empty()),
            Ok(None) => return Err(Outcome::new(Side::Client, "client_left", Status::Error)),
            Err(e) => return Err(lost(e)),
        }
        spoke.set(true);
        match sniff::guess(&first) {
            Guess::More => piece::acknowledge(stream),
            // It is answered now, or acknowledged where it is not whole.
            Guess::Rtmp => return Ok(first),
            _ => {
                piece::acknowledge(stream);
                return Ok(first);
            }
        }
    }
}

async fn answer(stream: &mut Stream, guess: Guess) {
    if let Some(answer) = guess.answer()
        && let Ok(Ok(())) = timeout(TELL, stream.write_all(answer.as_bytes())).await
    {
        farewell(stream).await;
    }
}
