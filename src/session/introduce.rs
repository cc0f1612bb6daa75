//! Does the upstream take this publish or play? The command phase on an upstream's connection.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::time::{timeout, timeout_at};

use super::piece;
use crate::protocol::name::Action;
use crate::protocol::rtmp::adobe::{self, Asked, LoginError};
use crate::protocol::rtmp::chunk::Message;
use crate::protocol::rtmp::client::{Answer, ClientParts, ClientSession};
use crate::protocol::rtmp::replay::Renamer;
use crate::protocol::rtmp::server::Request;
use crate::tls::Stream;
use crate::upstream::{Connected, DialError};

/// How long a play waits for the upstream's word before it is passed on without one: a player may wait for a stream to begin.
const PLAY_GRACE: Duration = Duration::from_secs(1);

/// Longest code of an upstream's refusal that is passed on and logged, characters: the longest known ones have half of that.
const MAX_CODE: usize = 64;

/// An upstream that has said yes.
pub(super) struct Introduction {
    /// What it said on the way, for the client.
    pub(super) forward: Vec<Message>,
    /// Its side of the switch.
    pub(super) parts: ClientParts,
    /// What the RTMP handshake took; none where it was over already.
    pub(super) handshake: Option<Duration>,
}

/// Why an upstream does not take the publish or play.
#[derive(Debug)]
pub(super) enum Failure {
    /// It said so, or closed after the handshake, which is how nginx-rtmp says so.
    Refused {
        /// Its code, or nothing.
        code: String,
        /// Words for the client, in the client's names.
        text: String,
    },
    /// The connection had been waiting for a client, and ended, or was silent, before the upstream had said anything on it.
    Stale,
    /// It asks who we are, or has heard it: the answer belongs on another connection.
    Asks(Asked),
    /// It does not let us in.
    Login(LoginError),
    /// There was no other connection.
    Dial(DialError),
    /// It does not speak RTMP as it should, or not in time.
    Broken {
        /// One word of a bounded set.
        kind: &'static str,
        /// Words for the log.
        text: String,
    },
}

/// Says to the upstream what the client said, until it takes or refuses the publish or play.
pub(super) async fn introduce(
    connected: &mut Connected,
    request: &Request,
    renamer: &Renamer,
    deadline: Instant,
) -> Result<Introduction, Failure> {
    let (script, spare) = (renamer.replay(request), connected.spare.take());
    let waited = spare.is_some();
    let mut session = match spare {
        Some(behind) => ClientSession::over(script, request.stream_id, behind),
        None => ClientSession::new(script, request.stream_id, &mut |bytes| rand::fill(bytes)),
    };
    let began = Instant::now();
    let mut talk = Talk { stream: &mut connected.stream, session: &mut session, heard: None, handshaken: None };
    let result = timeout_at(deadline.into(), talk.through(renamer, request.action)).await;
    let Talk { heard, handshaken, .. } = talk;
    match result {
        Ok(Ok(())) => {
            let forward = session.take_forward();
            let handshake = handshaken.filter(|_| !waited).map(|then| then - began);
            Ok(Introduction { forward, parts: session.into_parts(), handshake })
        }
        Ok(Err(Failure::Refused { code, .. })) if waited && code.is_empty() && heard.is_none() => Err(Failure::Stale),
        Ok(Err(failure)) => Err(failure),
        Err(_) if waited && heard.is_none() => Err(Failure::Stale),
        Err(_) => {
            let stage = if session.handshaken() { "publish or play" } else { "the RTMP handshake" };
            let text = format!("no answer to {stage} within dial_timeout");
            Err(Failure::Broken { kind: "handshake_timeout", text })
        }
    }
}

/// What is said and heard on the way.
struct Talk<'a> {
    stream: &'a mut Stream,
    session: &'a mut ClientSession,
    /// When the upstream said its first.
    heard: Option<Instant>,
    handshaken: Option<Instant>,
}

impl Talk<'_> {
    async fn through(&mut self, renamer: &Renamer, action: Action) -> Result<(), Failure> {
        let Self { stream, session, heard: first, handshaken } = self;
        loop {
            if let Err(e) = say(stream, &session.take_output()).await {
                return Err(lost(session, &e.to_string()));
            }
            let patience = if action == Action::Play && session.asked() { PLAY_GRACE } else { Duration::MAX };
            let heard = timeout(patience, piece::read(stream, |bytes| session.handle_input(bytes))).await;
            let Ok(heard) = heard else { return Ok(()) };
            let answer = match heard {
                Ok(None) => return Err(lost(session, "the upstream closed the connection")),
                Ok(Some(answer)) => answer,
                Err(e) => return Err(lost(session, &e.to_string())),
            };
            first.get_or_insert_with(Instant::now);
            if session.handshaken() {
                handshaken.get_or_insert_with(Instant::now);
            }
            match answer {
                Ok(Answer::More) => {}
                Ok(Answer::Started) => return Ok(()),
                Ok(Answer::Refused { code, description }) => {
                    if let Some(asked) = (!session.asked()).then(|| adobe::asked(&description)).flatten() {
                        return Err(Failure::Asks(asked));
                    }
                    let code = as_code(&renamer.unname(&code));
                    return Err(Failure::Refused { code, text: renamer.unname(&description) });
                }
                Err(e) => return Err(Failure::Broken { kind: "protocol", text: e.to_string() }),
            }
        }
    }
}

/// A code is a word; an upstream could send anything, and this is logged.
fn as_code(said: &str) -> String {
    said.chars().filter(char::is_ascii_graphic).take(MAX_CODE).collect()
}

async fn say(stream: &mut Stream, output: &[u8]) -> io::Result<()> {
    if output.is_empty() {
        piece::acknowledge(stream);
        return Ok(());
    }
    stream.write_all(output).await?;
    stream.flush().await
}

fn lost(session: &ClientSession, text: &str) -> Failure {
    if session.handshaken() {
        Failure::Refused { code: String::new(), text: "the upstream refused the stream by closing the connection".to_owned() }
    } else {
        Failure::Broken { kind: "handshake", text: text.to_owned() }
    }
}
