//! An RTSP session, from its first bytes to its outcome.
//!
//! `visitor` is the client until it has named a stream it may have, `search` finds the upstream that takes it, `relay` leads the
//! conversation from there on, over two `lane`s for what flows between the messages.

mod lane;
mod relay;
mod search;
mod visitor;

use std::rc::Rc;
use std::time::Instant;

use tokio::time::timeout_at;

use self::lane::Lane;
use self::relay::Relay;
use self::search::{Found, Turned, Wish};
use self::visitor::Visitor;
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::preface;
use super::relay::told;
use super::report;
use super::seat::Direction;
use super::switch::max_mark;
use crate::admission::{AuthError, Permit, Proof, Refusal};
use crate::protocol::name::{Action, NameError};
use crate::protocol::rtsp::front::Asked;
use crate::telemetry::State;
use crate::tls::Stream;

pub(super) use visitor::refuse;

/// Runs the session of an admitted client that began with `first`; `at` is when its socket was accepted.
pub(super) async fn live(place: Rc<Place>, stream: Stream, first: Vec<u8>, at: Instant, permit: Permit) -> Outcome {
    match Box::pin(prepare(place, stream, first, at, permit)).await {
        Ok(relay) => Outcome { relayed: true, ..relay.run().await },
        Err(outcome) => outcome,
    }
}

/// Everything up to the upstream's word.
async fn prepare(place: Rc<Place>, stream: Stream, first: Vec<u8>, at: Instant, permit: Permit) -> Result<Box<Relay>, Outcome> {
    let mut visitor = Visitor::new(stream, first);
    let (asked, wish) = welcomed(&place, &mut visitor, at).await?;
    let found = found(&place, &mut visitor, &asked, &wish).await?;
    Ok(begin(place, visitor, asked.action, found, permit))
}

/// Hears the client up to a stream that it may have, under the one deadline that began with its socket.
async fn welcomed(place: &Place, visitor: &mut Visitor, at: Instant) -> Result<(Box<Asked>, Wish), Outcome> {
    let limit = place.shared.timeouts.preface;
    let welcomed = tokio::select! {
        biased;
        outcome = place.seat.ended() => return Err(outcome),
        welcomed = timeout_at((at + limit).into(), welcome(place, visitor)) => {
            welcomed.unwrap_or_else(|_| Err(Outcome::new(Side::Client, "command_timeout", Status::Error)))
        }
    };
    // Who was asked for a token and leaves without one was refused, however it left.
    welcomed.map_err(|outcome| {
        let left = matches!(outcome.reason, "client_left" | "command_timeout");
        if left && visitor.challenged() { unauthorised(place, visitor) } else { outcome }
    })
}

async fn welcome(place: &Place, visitor: &mut Visitor) -> Result<(Box<Asked>, Wish), Outcome> {
    loop {
        let asked = visitor.negotiate().await?;
        match judge(place, visitor, &asked) {
            Ok(wish) => {
                place.cell.learn(|facts| report::identify(place, facts, "rtsp", asked.action, &wish.identity, &wish.granted));
                return Ok((asked, wish));
            }
            Err(Denial::Name(e)) => {
                report::refused(place, "bad_name", &e.to_string());
                visitor.deny(&asked, 404, &e.to_string()).await;
                return Err(Outcome::new(Side::Relay, "bad_name", Status::Rejected).because(e));
            }
            Err(Denial::Token(refusal)) => {
                let missing = matches!(refusal, Refusal::Auth(AuthError::Missing));
                // How every login begins; counted only where it goes no further.
                let text = if missing {
                    "A token is needed: as the password, or as ?token= in the URL".to_owned()
                } else {
                    report::unauthorised(place, asked.action, &refusal.to_string());
                    refusal.to_string()
                };
                if !visitor.challenge(&asked, &text, missing).await? {
                    return Err(unauthorised(place, visitor));
                }
            }
        }
    }
}

fn unauthorised(place: &Place, visitor: &Visitor) -> Outcome {
    if visitor.showed_nothing() {
        let refusal = Refusal::Auth(AuthError::Missing);
        place.shared.gate.tally().count(&refusal);
        report::unauthorised(place, visitor.action(), &refusal.to_string());
    }
    Outcome::new(Side::Relay, "auth", Status::Rejected)
}

enum Denial {
    Name(NameError),
    Token(Refusal),
}

/// Judges name and token.
fn judge(place: &Place, visitor: &Visitor, asked: &Asked) -> Result<Wish, Denial> {
    let mut name = asked.url.stream().map_err(Denial::Name)?;
    let shown = &asked.credentials;
    let knows = |secret: &[u8]| shown.proves(asked.method(), visitor.nonce(), secret);
    let proof = shown.user().map(|user| Proof::Of { user, knows: &knows });
    let granted = place.shared.gate.challenge(asked.action, &mut name, &shown.tokens, proof).map_err(Denial::Token)?;
    let identity = name.identity().map_err(Denial::Name)?;
    Ok(Wish { name, identity, granted })
}

/// Looks for an upstream while the client waits; its leaving ends the search at once.
async fn found(place: &Place, visitor: &mut Visitor, asked: &Asked, wish: &Wish) -> Result<Found, Outcome> {
    place.cell.set_state(State::Dialing);
    let ends = preface::ends(place, visitor.tcp());
    let found = tokio::select! {
        biased;
        outcome = place.seat.ended() => Err(Turned::here(503, told(outcome.reason), outcome)),
        found = search::find(place, asked, wish, ends) => found,
        outcome = visitor.leaves() => return Err(outcome),
    };
    match found {
        Ok(found) => Ok(found),
        Err(Turned { answer, outcome }) => {
            match answer {
                search::Answer::Ours(code, text) => visitor.deny(asked, code, &text).await,
                search::Answer::Theirs(bytes) => visitor.tell(&bytes).await,
            }
            Err(outcome)
        }
    }
}

/// From here on client and upstream are in conversation.
fn begin(place: Rc<Place>, visitor: Visitor, action: Action, found: Found, permit: Permit) -> Box<Relay> {
    let Found { target, connected, mut dialogue, framer, rest, load, publication } = found;
    place.cell.learn(|facts| {
        facts.upstream = Some(target.label.clone());
        facts.upstream_addr = Some(connected.addr);
    });
    place.cell.set_state(State::Relaying);
    report::relaying(&place);
    let (client, client_framer, early) = visitor.into_parts();
    let upstream = connected.stream;
    let buffers = place.shared.buffers;
    let mut up = Lane::new(Direction::Up, client_framer, early, buffers.read, max_mark(client.tcp()));
    let mut down = Lane::new(Direction::Down, framer, rest, buffers.write, max_mark(upstream.tcp()));
    up.say(dialogue.take_to_upstream());
    down.say(dialogue.take_to_client());
    Box::new(Relay {
        action,
        client,
        upstream,
        up,
        down,
        dialogue,
        patience: None,
        place,
        _permit: permit,
        _at_upstream: (load, publication),
    })
}
