//! An RTSP session, from its first bytes to its outcome.
//!
//! `visitor` is the client until it has named a stream it may have, `search` finds the upstream that takes it, `relay` leads the
//! conversation from there on, over two `lane`s for what flows between the messages.

mod claim;
mod lane;
mod relay;
mod search;
mod visitor;

use std::rc::Rc;
use std::time::Instant;

use tokio::time::timeout_at;

use self::claim::{Ghost, claim};
use self::lane::Lane;
use self::relay::Relay;
use self::search::{Answer, Found, Turned, Wish};
use self::visitor::Visitor;
use super::life::{Admitted, Place};
use super::opening::Opened;
use super::outcome::{Outcome, Side, Status};
use super::preface;
use super::relay::told;
use super::report;
use super::seat::Direction;
use super::switch::max_mark;
use crate::admission::{AuthError, Claim, Permit, Proof, Refusal};
use crate::protocol::name::{Action, NameError};
use crate::protocol::rtsp::front::Asked;
use crate::telemetry::State;

pub(super) use visitor::refuse;

/// Runs the session of an admitted client.
pub(super) async fn live(admitted: Admitted) -> Outcome {
    match Box::pin(prepare(admitted)).await {
        Ok(relay) => Outcome { relayed: true, ..relay.run().await },
        Err(outcome) => outcome,
    }
}

/// Everything up to the upstream's word.
async fn prepare(admitted: Admitted) -> Result<Box<Relay>, Outcome> {
    let Admitted { place, opened: Opened { stream, first, .. }, at, permit, kick } = admitted;
    let mut visitor = Visitor::new(stream, first);
    let (asked, wish) = welcomed(&place, &mut visitor, at).await?;
    let (claim, ghost) = claim(&place, &mut visitor, &asked, &wish, kick).await?;
    let (found, claim) = found(&place, &mut visitor, &asked, &wish, (claim, ghost)).await?;
    Ok(begin(place, visitor, asked.action, found, (permit, claim)))
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
                place.cell.learn(|facts| report::identify(place, facts, asked.action, &wish.identity, &wish.granted));
                if let Err(refusal) = place.shared.gate.still_good(wish.granted.token) {
                    let text = refusal.to_string();
                    report::unauthorised(place, asked.action, &text);
                    visitor.deny(&asked, 403, &text).await;
                    return Err(Outcome::new(Side::Relay, refusal.reason(), Status::Rejected).because(text));
                }
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

/// Looks for an upstream while the client waits. Who finds none does not keep the stream's name while it is told so.
async fn found(
    place: &Place,
    visitor: &mut Visitor,
    asked: &Asked,
    wish: &Wish,
    (claim, ghost): (Claim, Option<Ghost>),
) -> Result<(Found, Claim), Outcome> {
    place.cell.set_state(State::Dialing);
    let ends = preface::ends(place, visitor.tcp());
    let found = meanwhile(place, visitor, search::find(place, asked, wish, ends, ghost)).await;
    match found.unwrap_or_else(Err) {
        Ok(found) => Ok((found, claim)),
        Err(turned) => {
            drop(claim);
            Err(turned.end(visitor, asked).await)
        }
    }
}

/// Waits for `what` together with the client: its leaving, and whoever ends the session, end the wait at once.
async fn meanwhile<T>(place: &Place, visitor: &mut Visitor, what: impl Future<Output = T>) -> Result<T, Turned> {
    tokio::select! {
        biased;
        outcome = place.seat.ended() => Err(Turned::here(503, told(outcome.reason), outcome)),
        value = what => Ok(value),
        outcome = visitor.leaves() => Err(Turned { answer: Answer::Nobody, outcome, by: None }),
    }
}

/// From here on client and upstream are in conversation.
fn begin(place: Rc<Place>, visitor: Visitor, action: Action, found: Found, (permit, claim): (Permit, Claim)) -> Box<Relay> {
    let Found { target, connected, mut dialogue, framer, rest, load, publication } = found;
    place.cell.learn(|facts| {
        facts.upstream = Some(target.label.clone());
        facts.upstream_addr = Some(connected.addr);
    });
    claim.is_at(target.id.0);
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
        claim,
        _permit: permit,
        _at_upstream: (load, publication),
    })
}
