//! The life of one session, from the accepted socket to its outcome, in the four orders that are never swapped: admission before
//! a byte is read, authentication before an upstream is dialled, the guard before each connect, the upstream's word before
//! ours.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::Recipient;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::client::{Client, Heard};
use super::find::{Again, Asked, Found, bad_name_code, find};
use super::hold::hold;
use super::login;
use super::opening::{self, Opened, Speaks};
use super::outcome::{Outcome, Side, Status};
use super::preface;
use super::relay::{Passed, Relay, refusal_code, told};
use super::report;
use super::rtsp;
use super::seat::Seat;
use super::switch::switch;
use super::takeover;
use super::worker::Worker;
use super::{Door, Shared};
use crate::admission::supervisor::Kick;
use crate::admission::{Claim, Login, Permit, Proof, Refusal};
use crate::protocol::name::{Action, NameError, StreamName};
use crate::protocol::rtmp::server::Request;
use crate::telemetry::{SessionCell, State};

/// One session's surroundings, shared by all that belongs to it and freed with the last of that.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) cell: Arc<SessionCell>,
    pub(super) seat: Rc<Seat>,
    pub(super) worker: Rc<Worker>,
    /// The place under the hard cap and on the worker.
    pub(super) _slot: Box<dyn Send>,
}

/// A session that begins. Boxed as one, so that the future of a relaying session carries none of it.
pub(super) struct Arrival {
    pub(super) place: Rc<Place>,
    pub(super) stream: std::net::TcpStream,
    pub(super) at: Instant,
    pub(super) door: Door,
    pub(super) kick: Recipient<Kick>,
}

/// Runs the session. The cold parts are boxed, and freed before bytes pass.
pub(super) async fn live(arrival: Box<Arrival>) -> Outcome {
    let mut relay = match Box::pin(begun(arrival)).await {
        Ok(relay) => relay,
        Err(outcome) => return outcome,
    };
    loop {
        let passed = match relay.run().await {
            Passed::Over(outcome) => Err(outcome),
            Passed::Lost(orphaned, loss) => Box::pin(hold(orphaned, loss)).await,
        };
        match passed {
            Ok(again) => relay = again,
            Err(outcome) => return Outcome { relayed: true, ..outcome },
        }
    }
}

/// Everything before the bytes of an RTMP stream pass; of an RTSP session, everything.
async fn begun(arrival: Box<Arrival>) -> Result<Box<Relay>, Outcome> {
    let admitted = Box::pin(admitted(arrival)).await?;
    if admitted.opened.speaks == Speaks::Rtsp {
        return Err(Box::pin(rtsp::live(admitted)).await);
    }
    Box::pin(prepare(admitted)).await
}

/// A client that may be here and has begun to speak.
pub(super) struct Admitted {
    pub(super) place: Rc<Place>,
    pub(super) opened: Opened,
    pub(super) at: Instant,
    pub(super) permit: Permit,
    pub(super) kick: Recipient<Kick>,
}

/// Asks whether the client may be here, and hears what it speaks.
async fn admitted(arrival: Box<Arrival>) -> Result<Admitted, Outcome> {
    let Arrival { place, stream, at, door, kick } = *arrival;
    let failed = |e: std::io::Error| Outcome::new(Side::Relay, "socket", Status::Error).because(e);
    let tcp = TcpStream::from_std(stream).map_err(failed)?;
    preface::claimed(&tcp, &place, at).await?;
    let admitted = place.shared.gate.admit(Arc::clone(&place.cell), kick.clone()).await;
    let permit = match admitted {
        Ok(permit) => permit,
        Err(refusal) => return Err(turn_away(&place, tcp, refusal).await),
    };
    if permit.fills_address() {
        report::address_filled(&place);
    }
    let opened = opening::open(&place, tcp, door, at).await?;
    Ok(Admitted { place, opened, at, permit, kick })
}

/// Everything up to the switch.
async fn prepare(admitted: Admitted) -> Result<Box<Relay>, Outcome> {
    let Admitted { place, opened: Opened { stream, first, .. }, at, permit, kick } = admitted;
    let mut client = Client::new(stream, first);
    let request = match negotiated(&place, &mut client, at).await {
        Ok(request) => request,
        Err(Unheard::Ended(outcome)) => return Err(outcome),
        Err(Unheard::Refused(refused)) => return Err(refused.tell(&place, client, permit).await),
    };
    let asked = match judge(&place, *request, client.login.take()) {
        Ok(asked) => asked,
        Err((code, text, outcome)) => {
            client.refuse(code, &text).await;
            return Err(outcome);
        }
    };
    let claim = takeover::visitor(&place, &asked.granted, kick);
    let (claim, again) = claimed(&place, &mut client, &asked, claim).await?;
    let (found, claimed) = found(&place, &mut client, &asked, &again, claim).await?;
    switch(place, client, asked, found, (permit, claimed)).await
}

/// Why there is no publish or play.
enum Unheard {
    Ended(Outcome),
    /// The client was asked who it is, or could not prove it, and is to be told.
    Refused(Box<login::Refused>),
}

/// Hears the client up to publish or play, under the one deadline that began with its socket.
async fn negotiated(place: &Place, client: &mut Client, at: Instant) -> Result<Box<Request>, Unheard> {
    let limit = place.shared.timeouts.preface;
    let heard = tokio::select! {
        biased;
        outcome = place.seat.ended() => {
            client.refuse("", told(outcome.reason)).await;
            return Err(Unheard::Ended(outcome));
        }
        request = timeout_at((at + limit).into(), heard(place, client)) => request,
    };
    match heard {
        Ok(request) => request,
        Err(_) => Err(Unheard::Ended(client.too_slow(limit).await)),
    }
}

async fn heard(place: &Place, client: &mut Client) -> Result<Box<Request>, Unheard> {
    loop {
        match client.negotiate().await.map_err(Unheard::Ended)? {
            Heard::Request(request) => return Ok(request),
            Heard::Connect => login::judge(place, client).map_err(|refused| Unheard::Refused(Box::new(refused)))?,
        }
    }
}

/// Gets the right to publish while the client waits, if that is what it asked for.
async fn claimed(place: &Place, client: &mut Client, asked: &Asked, mut claim: Claim) -> Result<(Claim, Again), Outcome> {
    let action = asked.request.action;
    if action != Action::Publish {
        return Ok((claim, Again::default()));
    }
    match with_client(place, client, takeover::take(place, &mut claim, &asked.identity)).await {
        Ok(Ok(again)) => Ok((claim, again)),
        Ok(Err(refusal)) => {
            client.refuse(bad_name_code(action), &refusal.to_string()).await;
            Err(Outcome::new(Side::Relay, refusal.reason(), Status::Rejected))
        }
        Err(cut) => {
            drop(claim);
            Err(cut.end(client, action).await)
        }
    }
}

/// Looks for an upstream while the client waits. Who finds none does not keep the stream's name while it is told so.
async fn found(
    place: &Place,
    client: &mut Client,
    asked: &Asked,
    again: &Again,
    claimed: Claim,
) -> Result<(Found, Claim), Outcome> {
    place.cell.set_state(State::Dialing);
    let ends = preface::ends(place, client.stream.tcp());
    match with_client(place, client, find(place, asked, again, ends)).await {
        Ok(Ok(found)) => Ok((found, claimed)),
        Ok(Err(not_found)) => {
            drop(claimed);
            client.refuse(&not_found.code, &not_found.text).await;
            Err(not_found.outcome)
        }
        Err(cut) => {
            drop(claimed);
            Err(cut.end(client, asked.request.action).await)
        }
    }
}

/// Something waited for together with the client was cut short.
enum Cut {
    /// Somebody else ended the session.
    Told(Outcome),
    /// The client has left.
    Left(Outcome),
}

impl Cut {
    /// Tells the client, if it is there.
    async fn end(self, client: &mut Client, action: Action) -> Outcome {
        match self {
            Self::Told(outcome) => {
                client.refuse(refusal_code(action), told(outcome.reason)).await;
                outcome
            }
            Self::Left(outcome) => outcome,
        }
    }
}

/// Waits for `what` together with the client: its leaving, and whoever ends the session, end the wait at once.
async fn with_client<T>(place: &Place, client: &mut Client, what: impl Future<Output = T>) -> Result<T, Cut> {
    tokio::select! {
        biased;
        outcome = place.seat.ended() => Err(Cut::Told(outcome)),
        value = what => Ok(value),
        outcome = client.leaves() => Err(Cut::Left(outcome)),
    }
}

async fn turn_away(place: &Place, tcp: TcpStream, refusal: Refusal) -> Outcome {
    let text = refusal.to_string();
    report::refused(place, refusal.reason(), &text);
    if matches!(refusal, Refusal::MaxPerIp { hint: true, .. }) {
        report::address_filled(place);
    }
    match place.shared.gate.teller().try_begin() {
        Some(_telling) => opening::turn_away(tcp, text.clone()).await,
        None => {
            let _ = SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO));
        }
    }
    Outcome::new(Side::Relay, refusal.reason(), Status::Rejected).because(text)
}

type Denial = (&'static str, String, Outcome);

/// Judges name and token.
fn judge(place: &Place, request: Request, login: Option<Login>) -> Result<Asked, Denial> {
    let action = request.action;
    let bad_name = |e: NameError| {
        report::refused(place, "bad_name", &e.to_string());
        let outcome = Outcome::new(Side::Relay, "bad_name", Status::Rejected).because(e);
        (bad_name_code(action), e.to_string(), outcome)
    };
    let mut name = StreamName::of_rtmp(&request.app, &request.stream).map_err(bad_name)?;
    let proof = login.as_ref().map(Proof::Login);
    let granted = match place.shared.gate.authenticate(action, &mut name, &request.tokens, proof) {
        Ok(granted) => granted,
        Err(refusal) => return Err(unauthorised(place, action, refusal)),
    };
    let identity = name.identity().map_err(bad_name)?;
    place.cell.learn(|facts| {
        report::identify(place, facts, action, &identity, &granted);
        facts.reconnects = request.reconnects;
    });
    if let Err(refusal) = place.shared.gate.still_good(granted.token) {
        return Err(unauthorised(place, action, refusal));
    }
    Ok(Asked { request, name, identity, granted, login })
}

fn unauthorised(place: &Place, action: Action, refusal: Refusal) -> Denial {
    let reason = if let Refusal::Auth(e) = &refusal { e.reason() } else { refusal.reason() };
    report::unauthorised(place, action, &refusal.to_string());
    let outcome = Outcome::new(Side::Relay, refusal.reason(), Status::Rejected).because(reason);
    (refusal_code(action), refusal.to_string(), outcome)
}
