//! A client's socket until its stream has an upstream, with the relay's front on it.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::protocol::name::Action;
use crate::protocol::rtsp::framing::{Channels, Framer, FramingError, Piece};
use crate::protocol::rtsp::front::{Asked, Front, FrontError, Heard};
use crate::protocol::rtsp::message::Message;
use crate::session::opening::TELL;
use crate::session::outcome::{Outcome, Side, Status};
use crate::session::piece;
use crate::session::sides::farewell;
use crate::tls::Stream;

/// Most bytes of a client that are kept while an upstream is dialled.
pub(super) const EARLY: usize = 64 * 1024;

/// See the module.
pub(super) struct Visitor {
    stream: Stream,
    front: Front,
    framer: Framer,
    /// Read, and not followed yet.
    bytes: Vec<u8>,
    action: Action,
    showed_nothing: bool,
}

/// Tells a client that may not come in why, as the answer to its first request.
pub(in crate::session) async fn refuse(stream: Stream, first: Vec<u8>, code: u16, text: String) {
    let mut visitor = Visitor::new(stream, first);
    visitor.front.refuse_all(code, text);
    let told = async {
        let Ok(message) = visitor.hear().await else { return };
        // Answered whatever it was.
        let _ = visitor.front.handle(message);
        if visitor.flush().await.is_ok() {
            farewell(&mut visitor.stream).await;
        }
    };
    let _ = timeout(TELL, told).await;
}

impl Visitor {
    /// A client whose connection opened with `first`.
    pub(super) fn new(stream: Stream, first: Vec<u8>) -> Self {
        let front = Front::new(stream.is_private(), &mut |bytes| rand::fill(bytes));
        let (framer, action) = (Framer::default(), Action::Play);
        Self { stream, front, framer, bytes: first, action, showed_nothing: true }
    }

    /// The socket, for its addresses.
    pub(super) fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// The nonce of its Digest challenge.
    pub(super) fn nonce(&self) -> &str {
        self.front.nonce()
    }

    /// Whether it was asked for a token.
    pub(super) fn challenged(&self) -> bool {
        self.front.challenged()
    }

    /// Whether it has never shown one.
    pub(super) fn showed_nothing(&self) -> bool {
        self.showed_nothing
    }

    /// What it asked for last.
    pub(super) fn action(&self) -> Action {
        self.action
    }

    /// Talks until a stream is named.
    pub(super) async fn negotiate(&mut self) -> Result<Box<Asked>, Outcome> {
        loop {
            let message = self.hear().await?;
            let heard = self.front.handle(message);
            let sent = self.flush().await;
            match heard {
                Err(e) => return Err(self.broke(e).await),
                Ok(Heard::Asked(asked)) => {
                    self.action = asked.action;
                    return Ok(asked);
                }
                Ok(Heard::Answered) => sent.map_err(lost)?,
            }
        }
    }

    /// Asks for a token; `false` where that was done often enough. `missing`: none was shown.
    pub(super) async fn challenge(&mut self, asked: &Asked, text: &str, missing: bool) -> Result<bool, Outcome> {
        self.showed_nothing &= missing;
        let again = self.front.challenge(asked, text);
        self.flush().await.map_err(lost)?;
        if !again {
            farewell(&mut self.stream).await;
        }
        Ok(again)
    }

    /// Answers a request for a stream for good, and closes.
    pub(super) async fn deny(&mut self, asked: &Asked, code: u16, text: &str) {
        self.front.deny(asked, code, text);
        let answer = self.front.take_output();
        self.tell(&answer).await;
    }

    /// Says `bytes` and closes.
    pub(super) async fn tell(&mut self, bytes: &[u8]) {
        let told = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        if let Ok(Ok(())) = timeout(TELL, told).await {
            farewell(&mut self.stream).await;
        }
    }

    /// Resolves when the client leaves. What it sends meanwhile is kept, within a bound; beyond it the client waits.
    pub(super) async fn leaves(&mut self) -> Outcome {
        while self.bytes.len() < EARLY {
            if self.read().await.is_err() {
                return Outcome::new(Side::Client, "client_left", Status::Error);
            }
        }
        std::future::pending().await
    }

    /// The socket, where its stream of bytes stands, and what was read behind that.
    pub(super) fn into_parts(self) -> (Stream, Framer, Vec<u8>) {
        (self.stream, self.framer, self.bytes)
    }

    /// The next message.
    async fn hear(&mut self) -> Result<Message, Outcome> {
        loop {
            // Nothing has been set up: no frame may come.
            let len = match self.framer.next(&self.bytes, &Channels::default()) {
                Ok(Piece::Nothing) => {
                    self.read().await?;
                    continue;
                }
                Ok(Piece::Message { len, message }) => {
                    self.bytes.drain(..len);
                    return Ok(*message);
                }
                Ok(Piece::Taken { len } | Piece::Frames { len, .. }) => len,
                Err(e) => return Err(self.unreadable(e).await),
            };
            self.bytes.drain(..len);
        }
    }

    async fn read(&mut self) -> Result<(), Outcome> {
        let bytes = &mut self.bytes;
        let read = piece::read(&mut self.stream, |piece| bytes.extend_from_slice(piece)).await.map_err(lost)?;
        piece::acknowledge(&self.stream);
        read.ok_or_else(|| Outcome::new(Side::Client, "client_left", Status::Error))
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.front.take_output()).await?;
        self.stream.flush().await
    }

    async fn unreadable(&mut self, error: FramingError) -> Outcome {
        let error = self.front.broke(error);
        let _ = self.flush().await;
        self.broke(error).await
    }

    async fn broke(&mut self, error: FrontError) -> Outcome {
        // What can be said stands in the front's output, and was sent.
        farewell(&mut self.stream).await;
        Outcome::new(Side::Client, error.reason(), Status::Error).because(error)
    }
}

fn lost(error: io::Error) -> Outcome {
    Outcome::new(Side::Client, "client_left", Status::Error).because(error)
}
