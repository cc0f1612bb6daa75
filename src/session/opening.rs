//! What does a connection open with? The first bytes say which protocol the client speaks, before anything of it is judged.

use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};

use super::client::Client;
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::relay::farewell;
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

/// Waits for the client's first bytes, under the deadline that began with its socket.
pub(super) async fn open(place: &Place, stream: Stream, at: Instant) -> Result<Opened, Outcome> {
    let deadline = at + place.shared.timeouts.preface;
    tokio::select! {
        biased;
        outcome = place.seat.ended() => Err(outcome),
        opened = timeout_at(deadline.into(), heard(stream)) => {
            opened.unwrap_or_else(|_| Err(Outcome::new(Side::Client, "handshake_timeout", Status::Empty)))
        }
    }
}

async fn heard(mut stream: Stream) -> Result<Opened, Outcome> {
    let first = hear(&mut stream).await?;
    match sniff::guess(&first) {
        Guess::Rtmp => Ok(Opened { stream, first }),
        other => {
            answer(&mut stream, other).await;
            Err(Outcome::new(Side::Client, other.reason(), Status::Error))
        }
    }
}

/// Tells a client that may not come in why, in the terms of what it speaks, as far as that can be said before it is known.
pub(super) async fn turn_away(mut stream: Stream, text: String) {
    let told = async {
        let Ok(first) = hear(&mut stream).await else { return };
        match sniff::guess(&first) {
            Guess::Rtmp => Client::new(stream, first).refuse_at_connect(text).await,
            other => answer(&mut stream, other).await,
        }
    };
    let _ = timeout(TELL, told).await;
}

async fn hear(stream: &mut Stream) -> Result<Vec<u8>, Outcome> {
    let mut piece = [0; PIECE];
    let lost = |e| Outcome::new(Side::Client, "client_left", Status::Error).because(e);
    let read = stream.read(&mut piece).await.map_err(lost)?;
    // Clients write these messages in small pieces with Nagle on: an early acknowledgement saves 40 ms each.
    let _ = SockRef::from(stream.tcp()).set_tcp_quickack(true);
    match read {
        0 => Err(Outcome::new(Side::Client, "empty", Status::Empty)),
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
