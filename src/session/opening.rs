//! What does a connection open with? Its first byte says whether it is private, the first ones within which protocol the client speaks,
//! before anything of it is judged.

use std::io;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use super::client::Client;
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::relay::farewell;
use super::{Door, Tls};
use crate::protocol::sniff::{self, Guess};
use crate::tls::Stream;

/// Read at a time, bytes.
pub(super) const PIECE: usize = 4096;
/// How long a client may take to take what it is told.
pub(super) const TELL: Duration = Duration::from_secs(2);

/// A client that has begun to speak.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// What it said, at least one byte.
    pub(super) first: Vec<u8>,
}

/// Waits for the client's first bytes, in private where it asks for that, under the deadline that began with its socket.
pub(super) async fn open(place: &Place, tcp: TcpStream, door: Door, at: Instant) -> Result<Opened, Outcome> {
    let deadline = at + place.shared.timeouts.preface;
    tokio::select! {
        biased;
        outcome = place.seat.ended() => Err(outcome),
        opened = timeout_at(deadline.into(), heard(place, tcp, door)) => {
            opened.unwrap_or_else(|_| Err(Outcome::new(Side::Client, "handshake_timeout", Status::Empty)))
        }
    }
}

async fn heard(place: &Place, tcp: TcpStream, door: Door) -> Result<Opened, Outcome> {
    let mut stream = private(place, tcp, door).await?;
    let first = hear(&mut stream).await?;
    match sniff::guess(&first) {
        guess if door.tls == Tls::Only && !stream.is_private() => {
            refuse(
                stream,
                first,
                "this port takes rtmps:// and rtsps:// only: the relay's operator has turned TLS on".to_owned(),
            )
            .await;
            let outcome = Outcome::new(Side::Client, "plain_on_tls_port", Status::Rejected);
            Err(outcome.because(format_args!("it spoke {}", guess.name())))
        }
        Guess::Rtmp => Ok(Opened { stream, first }),
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
        if let Ok(first) = hear(&mut stream).await {
            refuse(stream, first, text).await;
        }
    };
    let _ = timeout(TELL, told).await;
}

async fn refuse(mut stream: Stream, first: Vec<u8>, text: String) {
    match sniff::guess(&first) {
        Guess::Rtmp => Client::new(stream, first).refuse_at_connect(text).await,
        // TLS is the dearest step: never done for someone who may not come in.
        other => answer(&mut stream, other).await,
    }
}

/// Goes behind TLS where the door has it and the client begins it.
async fn private(place: &Place, tcp: TcpStream, door: Door) -> Result<Stream, Outcome> {
    let Some(server) = place.shared.tls.as_ref().filter(|_| door.tls != Tls::Off) else { return Ok(tcp.into()) };
    let mut first = [0];
    if tcp.peek(&mut first).await.map_err(lost)? == 0 {
        return Err(empty());
    }
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

async fn hear(stream: &mut Stream) -> Result<Vec<u8>, Outcome> {
    let mut piece = [0; PIECE];
    let read = stream.read(&mut piece).await.map_err(lost)?;
    // Clients write these messages in small pieces with Nagle on: an early acknowledgement saves 40 ms each.
    let _ = SockRef::from(stream.tcp()).set_tcp_quickack(true);
    match read {
        0 => Err(empty()),
        read => Ok(piece[..read].to_vec()),
    }
}

async fn answer(stream: &mut Stream, guess: Guess) {
    if let Some(answer) = guess.answer()
        && let Ok(Ok(())) = timeout(TELL, stream.write_all(answer.as_bytes())).await
    {
        farewell(stream).await;
    }
}
