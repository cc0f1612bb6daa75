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

use super::client::Client;
use super::filter::{ClientFilter, UpstreamFilter};
use super::flow::Flow;
use super::introduce::{Introduction, introduce};
use super::opening::{self, Opened};
use super::outcome::{Outcome, Side, Status};
use super::preface;
use super::relay::{Relay, failure_code, refusal_code, told};
use super::report;
use super::seat::{Direction, Patience, Seat};
use super::worker::Worker;
use super::{Door, Shared};
use crate::admission::supervisor::Kick;
use crate::admission::{AuthError, Granted, Permit, Refusal};
use crate::protocol::name::{Action, Identity, NameError, Names, StreamName};
use crate::protocol::proxy::Ends;
use crate::protocol::rtmp::joiner::{Joiner, Start, StreamIds};
use crate::protocol::rtmp::replay::Renamer;
use crate::protocol::rtmp::server::Request;
use crate::telemetry::{SessionCell, State};
use crate::upstream::{Ask, CircuitPermit, Connected, Family, Link, Load, NoRoute, Publication, Seek, SeekError, Target};

/// Most that a low-water mark asks for, bytes; below half of the smallest usual receive buffer.
const MAX_MARK: u32 = 48 * 1024;

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

/// Runs the session. The cold part is boxed, and freed before bytes pass.
pub(super) async fn live(arrival: Box<Arrival>) -> Outcome {
    let prepared = Box::pin(prepare(arrival)).await;
    match prepared {
        Ok(relay) => Outcome { relayed: true, ..relay.run().await },
        Err(outcome) => outcome,
    }
}

/// Everything up to the switch.
async fn prepare(arrival: Box<Arrival>) -> Result<Box<Relay>, Outcome> {
    let Arrival { place, stream, at, door, kick } = *arrival;
    let failed = |e: std::io::Error| Outcome::new(Side::Relay, "socket", Status::Error).because(e);
    let tcp = TcpStream::from_std(stream).map_err(failed)?;
    preface::claimed(&tcp, &place, at).await?;
    let admitted = place.shared.gate.admit(Arc::clone(&place.cell), kick).await;
    let permit = match admitted {
        Ok(permit) => permit,
        Err(refusal) => return Err(turn_away(&place, tcp, refusal).await),
    };
    if permit.fills_address() {
        report::address_filled(&place);
    }
    let Opened { stream, first, .. } = opening::open(&place, tcp, door, at).await?;
    let mut client = Client::new(stream, first);
    let request = negotiated(&place, &mut client, at).await?;
    let wish = match judge(&place, &request) {
        Ok(wish) => wish,
        Err((code, text, outcome)) => {
            client.refuse(code, &text).await;
            return Err(outcome);
        }
    };
    let found = found(&place, &mut client, &request, &wish).await?;
    switch(place, client, *request, found, permit).await
}

/// Hears the client up to publish or play, under the one deadline that began with its socket.
async fn negotiated(place: &Place, client: &mut Client, at: Instant) -> Result<Box<Request>, Outcome> {
    let limit = place.shared.timeouts.preface;
    tokio::select! {
        biased;
        outcome = place.seat.ended() => {
            client.refuse("", told(outcome.reason)).await;
            Err(outcome)
        }
        request = timeout_at((at + limit).into(), client.negotiate()) => match request {
            Ok(request) => request,
            Err(_) => Err(client.too_slow(limit).await),
        },
    }
}

/// Looks for an upstream while the client waits; its leaving ends the search at once.
async fn found(place: &Place, client: &mut Client, request: &Request, wish: &Wish) -> Result<Found, Outcome> {
    place.cell.set_state(State::Dialing);
    let ends = preface::ends(place, client.stream.tcp());
    let found = tokio::select! {
        biased;
        outcome = place.seat.ended() => {
            Err((refusal_code(request.action).to_owned(), told(outcome.reason).to_owned(), outcome))
        }
        found = find_upstream(place, request, wish, ends) => found,
        outcome = client.leaves() => return Err(outcome),
    };
    match found {
        Ok(found) => Ok(found),
        Err((code, text, outcome)) => {
            client.refuse(&code, &text).await;
            Err(outcome)
        }
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

/// What an authorised client wants.
pub(super) struct Wish {
    pub(super) name: StreamName,
    /// What every room calls the stream by.
    pub(super) identity: Identity,
    pub(super) granted: Granted,
}

type Denial = (&'static str, String, Outcome);

/// Judges name and token.
fn judge(place: &Place, request: &Request) -> Result<Wish, Denial> {
    let bad_name = |e: NameError| {
        let code = if request.action == Action::Publish { "NetStream.Publish.BadName" } else { "NetStream.Play.StreamNotFound" };
        report::refused(place, "bad_name", &e.to_string());
        (code, e.to_string(), Outcome::new(Side::Relay, "bad_name", Status::Rejected).because(e))
    };
    let mut name = StreamName::parse(&request.app, &request.stream).map_err(bad_name)?;
    let granted = match place.shared.gate.authenticate(request.action, &mut name, &request.tokens) {
        Ok(granted) => granted,
        Err(refusal) => return Err(unauthorised(place, request.action, refusal)),
    };
    let identity = name.identity().map_err(bad_name)?;
    place.cell.learn(|facts| report::identify(place, facts, request.action, &identity, &granted));
    Ok(Wish { name, identity, granted })
}

fn unauthorised(place: &Place, action: Action, refusal: Refusal) -> Denial {
    let reason = if let Refusal::Auth(e) = &refusal { e.reason() } else { refusal.reason() };
    report::unauthorised(place, action, &refusal.to_string());
    let outcome = Outcome::new(Side::Relay, refusal.reason(), Status::Rejected).because(reason);
    (refusal_code(action), refusal.to_string(), outcome)
}

/// An upstream that took the publish or play.
pub(super) struct Found {
    target: Arc<Target>,
    connected: Connected,
    introduction: Box<Introduction>,
    renamer: Renamer,
    names: Names,
    load: Load,
    publication: Option<Publication>,
}

/// Code and words for the client, and the outcome.
type NotFound = (String, String, Outcome);

/// Walks through the candidates until one takes the publish or play.
async fn find_upstream(place: &Place, request: &Request, wish: &Wish, ends: Ends) -> Result<Found, NotFound> {
    let shared = &place.shared;
    let mut seek = seek(place, request, wish)?.for_client(ends);
    let mut report_step = report::steps(place);
    loop {
        let link = seek.next(&mut report_step).await.map_err(|error| sought_in_vain(place, request, &error))?;
        let Link { target, connected, permit, load, deadline } = link;
        report::connected(place, &target, &connected);
        let names = match target.address(&wish.name, &shared.forward) {
            Ok(names) => names,
            Err(e) => return Err(unaddressable(place, request, wish, &e.to_string())),
        };
        let renamer = Renamer::new(request, names.clone(), wish.granted.token_name.is_some());
        let mut connected = connected;
        match introduce(&mut connected.stream, request, &renamer, deadline).await {
            Ok(introduction) => {
                permit.success();
                shared.telemetry.metrics().upstream_handshaken(introduction.handshake);
                let introduction = Box::new(introduction);
                let publication = publication(place, request, wish, &target);
                return Ok(Found { target, connected, introduction, renamer, names, load, publication });
            }
            Err(failure) => {
                if let Some(not_found) = failed(place, request, &target, permit, failure, seek.made()) {
                    return Err(not_found);
                }
                seek.failed();
            }
        }
    }
}

/// Begins the search, along the routes.
fn seek(place: &Place, request: &Request, wish: &Wish) -> Result<Seek, NotFound> {
    let vhost = wish.name.vhost(&request.tc_url);
    let ask = Ask { family: Family::Rtmp, action: request.action, name: &wish.identity, vhost: &vhost, lost: None };
    place.shared.router.seek(&ask).map_err(|no_route| unrouted(place, request, no_route))
}

fn unrouted(place: &Place, request: &Request, no_route: NoRoute) -> NotFound {
    let text = no_route.to_string();
    report::refused(place, no_route.reason(), &text);
    let outcome = Outcome::new(Side::Relay, no_route.reason(), Status::Rejected);
    (refusal_code(request.action).to_owned(), text, outcome)
}

fn sought_in_vain(place: &Place, request: &Request, error: &SeekError) -> NotFound {
    // What policy forbids is refused; all else is the upstream's fault.
    let (side, status, text) = match error {
        SeekError::NoRoute(no_route) => return unrouted(place, request, *no_route),
        SeekError::Refused(_) => {
            let text = "the relay's configuration forbids this upstream, trying again will not help";
            (Side::Relay, Status::Rejected, text)
        }
        SeekError::GaveUp { .. } => (Side::Upstream, Status::Error, "the upstream cannot be reached, try again later"),
    };
    let outcome = Outcome::new(side, error.kind(), status).because(error);
    (failure_code(request.action).to_owned(), text.to_owned(), outcome)
}

/// From here on players find the stream at its origin.
fn publication(place: &Place, request: &Request, wish: &Wish, target: &Target) -> Option<Publication> {
    (request.action == Action::Publish).then(|| place.shared.router.publish(&wish.identity, target.id))
}

/// Judges a failed introduction: `Some` where another try would end the same.
fn failed(
    place: &Place,
    request: &Request,
    target: &Target,
    permit: CircuitPermit,
    failure: super::introduce::Failure,
    attempt: u32,
) -> Option<NotFound> {
    use super::introduce::Failure;
    match failure {
        Failure::Refused { code, text } => {
            // By command, not by failing: the upstream is well, and would say the same again.
            drop(permit);
            report::upstream_refused(place, target, &code);
            let code = if code.starts_with("NetStream.") { code } else { failure_code(request.action).to_owned() };
            let outcome = Outcome::new(Side::Upstream, "upstream_refused", Status::Error).because(&code);
            Some((code, text, outcome))
        }
        Failure::Broken { kind, text } => {
            permit.failure();
            report::dial_failed(place, target, kind, &text, attempt);
            None
        }
    }
}

fn unaddressable(place: &Place, request: &Request, wish: &Wish, text: &str) -> NotFound {
    let text = if wish.granted.app_was_token { AuthError::InPlaceOfApp.to_string() } else { text.to_owned() };
    report::refused(place, "bad_name", &text);
    let code = if request.action == Action::Publish { "NetStream.Publish.BadName" } else { "NetStream.Play.StreamNotFound" };
    let outcome = Outcome::new(Side::Relay, "bad_name", Status::Rejected).because(&text);
    (code.to_owned(), text, outcome)
}

/// Lets the client hear what the upstream said, and joins the two chunk streams.
async fn switch(
    place: Rc<Place>,
    mut client: Client,
    request: Request,
    found: Found,
    permit: Permit,
) -> Result<Box<Relay>, Outcome> {
    let Found { target, connected, introduction, renamer, names, load, publication } = found;
    let Introduction { forward, parts, .. } = *introduction;
    client.take_early();
    forward.iter().for_each(|message| client.session.forward(message));
    let told = tokio::time::timeout(place.shared.timeouts.write, client.flush()).await;
    if !matches!(told, Ok(Ok(()))) {
        return Err(Outcome::new(Side::Client, "client_left", Status::Error));
    }
    place.cell.learn(|facts| {
        facts.upstream = Some(target.label.clone());
        facts.upstream_addr = Some(connected.addr);
    });
    place.cell.set_state(State::Relaying);
    report::relaying(&place);
    let Client { stream: client, session, .. } = client;
    let server = session.into_parts();
    let stream_ids = parts.stream_ids;
    let up = Joiner::new(Start {
        sender: server.sender,
        chunk_size: parts.writer.chunk_size(),
        seen: parts.writer.into_seen(),
        stream_ids,
    });
    let down = Joiner::new(Start {
        sender: parts.sender,
        chunk_size: server.writer.chunk_size(),
        seen: server.writer.into_seen(),
        stream_ids: StreamIds { from: stream_ids.to, to: stream_ids.from },
    });
    let mut client_filter =
        ClientFilter::new(Rc::clone(&place), target, renamer, names.app, stream_ids, (request.app, request.tokens));
    let mut upstream_filter = UpstreamFilter { reconnect_asked: false };
    let mut up = Flow::new(Direction::Up, up, place.shared.buffers.read, max_mark(client.tcp()));
    up.feed(&server.rest, &mut client_filter);
    let mut down = Flow::new(Direction::Down, down, place.shared.buffers.write, max_mark(connected.stream.tcp()));
    down.feed(&parts.rest, &mut upstream_filter);
    place.seat.start_watch(patience(&place.shared, request.action), Instant::now());
    Ok(Box::new(Relay {
        action: request.action,
        client_stream_id: stream_ids.from,
        upstream_stream_id: stream_ids.to,
        client,
        upstream: connected.stream,
        up,
        down,
        client_filter,
        upstream_filter,
        place,
        _permit: permit,
        _at_upstream: (load, publication),
    }))
}

fn patience(shared: &Shared, action: Action) -> Patience {
    let publisher = action == Action::Publish;
    Patience {
        client_silent: publisher.then_some(shared.timeouts.idle),
        both_silent: if publisher { None } else { shared.timeouts.player_idle },
        write: shared.timeouts.write,
    }
}

/// A mark above half of the receive buffer would grow it for good.
fn max_mark(stream: &TcpStream) -> u32 {
    let half = SockRef::from(stream).recv_buffer_size().unwrap_or(0) / 2;
    u32::try_from(half).unwrap_or(MAX_MARK).clamp(1, MAX_MARK)
}
