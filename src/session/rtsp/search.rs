//! Which upstream takes this stream? The way through the candidates, and the first request at each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout_at};

use super::claim::Ghost;
use super::visitor::Visitor;
use crate::admission::{AuthError, Granted};
use crate::protocol::name::{Action, Identity, StreamName};
use crate::protocol::proxy::Ends;
use crate::protocol::rtsp::dialogue::{Dialogue, Trust, Word};
use crate::protocol::rtsp::framing::{Framer, Piece};
use crate::protocol::rtsp::front::Asked;
use crate::protocol::rtsp::login::Login;
use crate::protocol::rtsp::url::Address;
use crate::session::life::Place;
use crate::session::outcome::{Outcome, Side, Status};
use crate::session::piece;
use crate::session::report;
use crate::tls::Stream;
use crate::upstream::{Ask, Connected, Family, Link, Load, NoRoute, Publication, Seek, SeekError, Target, TargetId};

/// The wait between two searches.
const AGAIN: Duration = Duration::from_millis(250);

/// What an authorised client wants.
pub(super) struct Wish {
    pub(super) name: StreamName,
    /// What every room calls the stream by.
    pub(super) identity: Identity,
    pub(super) granted: Granted,
}

/// An upstream that took the stream.
pub(super) struct Found {
    pub(super) target: Arc<Target>,
    pub(super) connected: Connected,
    pub(super) dialogue: Box<Dialogue>,
    /// Where its stream of bytes stands, and what was read behind that.
    pub(super) framer: Framer,
    pub(super) rest: Vec<u8>,
    pub(super) load: Load,
    pub(super) publication: Option<Publication>,
}

/// What a client whose stream has no upstream is told.
pub(super) enum Answer {
    /// A code and a reason phrase of ours.
    Ours(u16, String),
    /// The upstream's answer, in the client's names.
    Theirs(Vec<u8>),
    /// It has left.
    Nobody,
}

/// No upstream took the stream.
pub(super) struct Turned {
    pub(super) answer: Answer,
    pub(super) outcome: Outcome,
    /// The upstream that said no.
    pub(super) by: Option<TargetId>,
}

impl Turned {
    /// Turned away by the relay.
    pub(super) fn here(code: u16, text: &str, outcome: Outcome) -> Self {
        Self { answer: Answer::Ours(code, text.to_owned()), outcome, by: None }
    }

    /// Tells the client, and closes.
    pub(super) async fn end(self, visitor: &mut Visitor, asked: &Asked) -> Outcome {
        match self.answer {
            Answer::Ours(code, text) => visitor.deny(asked, code, &text).await,
            Answer::Theirs(bytes) => visitor.tell(&bytes).await,
            Answer::Nobody => {}
        }
        self.outcome
    }
}

/// Searches; where the upstream of a publication that was taken over says no, again for a while.
pub(super) async fn find(place: &Place, asked: &Asked, wish: &Wish, ends: Ends, ghost: Option<Ghost>) -> Result<Found, Turned> {
    loop {
        let turned = match find_once(place, asked, wish, ends).await {
            Ok(found) => return Ok(found),
            Err(turned) => turned,
        };
        if !ghost.is_some_and(|ghost| turned.by == Some(ghost.at) && Instant::now() < ghost.until) {
            return Err(turned);
        }
        sleep(AGAIN).await;
    }
}

/// Walks through the candidates until one takes the stream.
async fn find_once(place: &Place, asked: &Asked, wish: &Wish, ends: Ends) -> Result<Found, Turned> {
    let shared = &place.shared;
    let mut seek = seek(place, asked, wish)?.for_client(ends);
    let mut report_step = report::steps(place);
    loop {
        let link = seek.next(&mut report_step).await.map_err(|error| sought_in_vain(place, &error))?;
        let Link { target, connected, permit, load, deadline } = link;
        report::connected(place, &target, &connected);
        let mut connected = connected;
        let mut dialogue = Box::new(dialogue(place, asked, wish, &target)?);
        match introduce(&mut connected.stream, asked, &mut dialogue, deadline).await {
            Ok((framer, rest)) => {
                if let Some(Word::Refused(code)) = dialogue.word() {
                    // By command, not by failing: the upstream is well, and would say the same again.
                    permit.refused();
                    return Err(refused(place, &target, *code, dialogue.take_to_client()));
                }
                permit.success();
                let publication = (asked.action == Action::Publish).then(|| shared.router.publish(&wish.identity, target.id));
                return Ok(Found { target, connected, dialogue, framer, rest, load, publication });
            }
            Err((kind, text)) => {
                permit.failure(kind, &text);
                report::dial_failed(place, &target, kind, &text, seek.made());
                seek.failed();
            }
        }
    }
}

/// Begins the search, along the routes.
fn seek(place: &Place, asked: &Asked, wish: &Wish) -> Result<Seek, Turned> {
    let vhost = wish.name.vhost(&asked.url.to_bytes());
    let ask = Ask { family: Family::Rtsp, action: asked.action, name: &wish.identity, vhost: &vhost, lost: None };
    place.shared.router.seek(&ask).map_err(|no_route| unrouted(place, no_route))
}

fn unrouted(place: &Place, no_route: NoRoute) -> Turned {
    let text = no_route.to_string();
    report::refused(place, no_route.reason(), &text);
    Turned::here(404, &text, Outcome::new(Side::Relay, no_route.reason(), Status::Rejected))
}

fn sought_in_vain(place: &Place, error: &SeekError) -> Turned {
    // What policy forbids is refused; all else is the upstream's fault.
    let (side, status, code, text) = match error {
        SeekError::NoRoute(no_route) => return unrouted(place, *no_route),
        SeekError::Refused(_) => {
            let text = "The relay's configuration forbids this upstream, trying again will not help";
            (Side::Relay, Status::Rejected, 502, text)
        }
        SeekError::GaveUp { .. } => (Side::Upstream, Status::Error, 503, "The upstream cannot be reached, try again later"),
    };
    Turned::here(code, text, Outcome::new(side, error.kind(), status).because(error))
}

fn refused(place: &Place, target: &Target, code: u16, answer: Vec<u8>) -> Turned {
    let code = code.to_string();
    report::upstream_refused(place, target, &code);
    let outcome = Outcome::new(Side::Upstream, "upstream_refused", Status::Error).because(code);
    Turned { answer: Answer::Theirs(answer), outcome, by: Some(target.id) }
}

fn dialogue(place: &Place, asked: &Asked, wish: &Wish, target: &Target) -> Result<Dialogue, Turned> {
    let located = target.locate(&wish.name, &place.shared.forward);
    let located = located.map_err(|e| e.to_string()).and_then(|located| {
        // A token cannot stand for an app that nobody else names.
        let app_is_open = wish.granted.app_was_token && !target.url.fixes_app();
        if app_is_open { Err(AuthError::InPlaceOfApp.to_string()) } else { Ok(located) }
    });
    let url = located.map_err(|text| {
        report::refused(place, "bad_name", &text);
        Turned::here(404, &text, Outcome::new(Side::Relay, "bad_name", Status::Rejected).because(&text))
    })?;
    let trust = match target.url.login() {
        Some(login) => Trust::Own(Login { user: login.user().to_owned(), password: login.password().clone() }),
        None if wish.granted.token_name.is_none() => Trust::Client,
        None => Trust::Nobody,
    };
    let upstream = Address { origin: url.origin, path: url.path, query: url.query };
    Ok(Dialogue::new(asked.action, asked.url.clone(), upstream, trust))
}

/// Why an upstream does not speak RTSP as it should: one word of a bounded set, and words for the log.
type Broken = (&'static str, String);

/// Says the client's first request to the upstream, until it has answered it.
async fn introduce(
    stream: &mut Stream,
    asked: &Asked,
    dialogue: &mut Dialogue,
    deadline: Instant,
) -> Result<(Framer, Vec<u8>), Broken> {
    // It was a request already, so there is no error to be had.
    let _ = dialogue.handle_client(asked.message.clone(), &mut |bytes| rand::fill(bytes));
    timeout_at(deadline.into(), talk(stream, dialogue)).await.unwrap_or_else(|_| {
        let method = String::from_utf8_lossy(asked.method()).into_owned();
        Err(("handshake_timeout", format!("no answer to {method} within dial_timeout")))
    })
}

async fn talk(stream: &mut Stream, dialogue: &mut Dialogue) -> Result<(Framer, Vec<u8>), Broken> {
    let lost = |text: String| ("handshake", text);
    let (mut framer, mut bytes) = (Framer::default(), Vec::new());
    while dialogue.word().is_none() {
        let output = dialogue.take_to_upstream();
        stream.write_all(&output).await.map_err(|e| lost(e.to_string()))?;
        stream.flush().await.map_err(|e| lost(e.to_string()))?;
        let read = piece::read(stream, |piece| bytes.extend_from_slice(piece)).await.map_err(|e| lost(e.to_string()))?;
        if read.is_none() {
            return Err(lost("the upstream closed the connection without an answer".to_owned()));
        }
        piece::acknowledge(stream);
        while dialogue.word().is_none() {
            let len = match framer.next(&bytes, dialogue.channels()).map_err(|e| ("protocol", e.to_string()))? {
                Piece::Nothing => break,
                Piece::Taken { len } | Piece::Frames { len, .. } => len,
                Piece::Message { len, message } => {
                    dialogue.handle_upstream(*message, &mut |bytes| rand::fill(bytes));
                    len
                }
            };
            bytes.drain(..len);
        }
    }
    Ok((framer, bytes))
}
