//! The client's socket in the command phase, with the RTMP session on it.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::opening::TELL;
use super::outcome::{Outcome, Side, Status};
use super::piece;
use super::sides::farewell;
use crate::admission::Login;
use crate::protocol::rtmp::server::{Progress, Request, ServerError, ServerSession, Stage};
use crate::tls::Stream;

/// Most bytes of a client that are kept while an upstream is dialled.
const EARLY: usize = 64 * 1024;

/// What a client has come to.
pub(super) enum Heard {
    /// connect, which waits for [`Client::accept`] or [`Client::refuse_connect`].
    Connect,
    /// publish or play.
    Request(Box<Request>),
}

/// A client that has not been passed on yet.
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) session: ServerSession,
    early: Vec<u8>,
    /// Read and not yet looked at; none: more is to be read first.
    first: Option<Vec<u8>>,
    /// Who it has proven to be.
    pub(super) login: Option<Login>,
}

impl Client {
    /// A client whose connection opened with `first`.
    pub(super) fn new(stream: Stream, first: Vec<u8>) -> Self {
        let mut session = ServerSession::new(&mut |bytes| rand::fill(bytes));
        session.pause_at_connect();
        Self { stream, session, early: Vec::new(), first: Some(first), login: None }
    }

    /// Talks until connect waits for an answer, or publish or play is complete.
    pub(super) async fn negotiate(&mut self) -> Result<Heard, Outcome> {
        loop {
            let progress = match self.first.take() {
                Some(first) => self.session.handle_input(&first),
                None => {
                    let session = &mut self.session;
                    heard(piece::read(&mut self.stream, |bytes| session.handle_input(bytes)).await)?
                }
            };
            let sent = self.flush().await;
            match progress {
                Err(e) => return Err(self.broke(&e).await),
                Ok(Progress::Connecting) => return Ok(Heard::Connect),
                Ok(Progress::Requested(request)) => return Ok(Heard::Request(request)),
                Ok(Progress::Refused) => {
                    farewell(&mut self.stream).await;
                    return Err(Outcome::new(Side::Relay, "refused", Status::Rejected));
                }
                Ok(Progress::More) => sent.map_err(lost)?,
            }
        }
    }

    /// Lets the client go on behind connect.
    pub(super) fn accept(&mut self) {
        self.session.accept_connect();
        // What came with connect in one segment waits in the session.
        self.first = Some(Vec::new());
    }

    /// Refuses connect in these words and closes.
    pub(super) async fn refuse_connect(&mut self, description: &[u8]) {
        self.session.refuse_connect(description);
        if let Ok(Ok(())) = timeout(TELL, self.flush()).await {
            farewell(&mut self.stream).await;
        }
    }

    /// Tells the client why it is refused, in the terms of how far it has come, and closes.
    pub(super) async fn refuse(&mut self, code: &str, text: &str) {
        self.session.refuse(code, text);
        if let Ok(Ok(())) = timeout(TELL, self.flush()).await {
            farewell(&mut self.stream).await;
        }
    }

    /// Goes through the handshake to connect, only to refuse it there.
    pub(super) async fn refuse_at_connect(&mut self, text: String) {
        self.session.refuse_at_connect(text);
        let _ = timeout(TELL, self.negotiate()).await;
    }

    /// Resolves when the client leaves. What it sends meanwhile is kept, within a bound; beyond it the client waits.
    pub(super) async fn leaves(&mut self) -> Outcome {
        while self.early.len() < EARLY {
            let early = &mut self.early;
            if let Err(outcome) = heard(piece::read(&mut self.stream, |bytes| early.extend_from_slice(bytes)).await) {
                return outcome;
            }
            piece::acknowledge(&self.stream);
        }
        std::future::pending().await
    }

    /// Hands to the session what came while an upstream was dialled.
    pub(super) fn take_early(&mut self) {
        let early = std::mem::take(&mut self.early);
        // Behind publish and play the session only keeps bytes, so there is no error to be had.
        let _ = self.session.handle_input(&early);
    }

    /// Sends what the session has to say; where that is nothing, what was heard is acknowledged.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let output = self.session.take_output();
        if output.is_empty() {
            piece::acknowledge(&self.stream);
            return Ok(());
        }
        self.stream.write_all(&output).await?;
        self.stream.flush().await
    }

    /// The client took too long for publish or play.
    pub(super) async fn too_slow(&mut self, limit: Duration) -> Outcome {
        let stage = self.session.stage();
        if matches!(stage, Stage::Connect | Stage::Commands) {
            self.refuse("", &format!("publish or play did not come within {} s", limit.as_secs_f32())).await;
        }
        let reason = if stage <= Stage::Echo { "handshake_timeout" } else { "command_timeout" };
        Outcome::new(Side::Client, reason, Status::Error)
    }

    async fn broke(&mut self, error: &ServerError) -> Outcome {
        // The session has put an answer into its output where the client can understand one.
        if self.session.stage() >= Stage::Connect {
            farewell(&mut self.stream).await;
        }
        Outcome::new(Side::Client, error.reason(), Status::Error).because(error)
    }
}

fn heard<T>(read: io::Result<Option<T>>) -> Result<T, Outcome> {
    read.map_err(lost)?.ok_or_else(|| Outcome::new(Side::Client, "client_left", Status::Error))
}

fn lost(error: io::Error) -> Outcome {
    Outcome::new(Side::Client, "client_left", Status::Error).because(error)
}
