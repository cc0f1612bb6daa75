//! From two command phases to one stream: lets the client hear what the upstream said, and joins the two chunk streams.

use std::rc::Rc;
use std::time::Instant;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::client::Client;
use super::filter::{ClientFilter, Upstream, UpstreamFilter};
use super::find::{Asked, Found};
use super::flow::Flow;
use super::hold::Losses;
use super::introduce::Introduction;
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::relay::Relay;
use super::seat::{Direction, Patience};
use super::sides::{ClientSide, UpstreamSide};
use super::{Shared, report};
use crate::admission::{Claim, Permit};
use crate::protocol::name::Action;
use crate::protocol::rtmp::command::kind;
use crate::protocol::rtmp::joiner::{Joiner, Start, StreamIds};
use crate::telemetry::State;
use crate::upstream::{Connected, Target};

/// Most that a low-water mark asks for, bytes; below half of the smallest usual receive buffer.
const MAX_MARK: u32 = 48 * 1024;

/// Joins the client to the upstream that was `found`.
pub(super) async fn switch(
    place: Rc<Place>,
    mut client: Client,
    mut asked: Asked,
    found: Found,
    (permit, claim): (Permit, Claim),
) -> Result<Box<Relay>, Outcome> {
    let Found { target, connected, introduction, renamer, names, visit } = found;
    let Introduction { forward, parts, .. } = *introduction;
    client.take_early();
    forward.iter().for_each(|message| client.session.forward(message));
    // Before the client knows: who is told and then looks at /status finds it there.
    place.cell.set_state(State::Relaying);
    meet(&place, &target, &connected, &claim);
    let told = tokio::time::timeout(place.shared.timeouts.write, client.flush()).await;
    if !matches!(told, Ok(Ok(()))) {
        return Err(Outcome::new(Side::Client, "client_left", Status::Error));
    }
    report::relaying(&place);
    let action = asked.request.action;
    let held = holds(&place.shared, action);
    // Only for another upstream is it said again, and that one is told the chunk size of its day.
    asked.request.recorded.retain(|message| held && message.header.kind != kind::SET_CHUNK_SIZE);
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
        stream_ids: reversed(stream_ids),
    });
    let at = Upstream { target, renamer, app: names.app, stream_ids };
    let mut client_filter = ClientFilter::new(Rc::clone(&place), Rc::new(asked), claim, at);
    let mut upstream_filter = UpstreamFilter::default();
    let mut up = Flow::new(Direction::Up, up, place.shared.buffers.read, max_mark(client.tcp()));
    if held {
        up.keep();
    }
    up.feed(&server.rest, &mut client_filter);
    let mut down = Flow::new(Direction::Down, down, place.shared.buffers.write, max_mark(connected.stream.tcp()));
    down.feed(&parts.rest, &mut upstream_filter);
    place.seat.start_watch(patience(&place.shared, action), Instant::now());
    Ok(Box::new(Relay {
        client: ClientSide { action, stream: client, flow: down, stream_id: stream_ids.from },
        upstream: UpstreamSide {
            stream: connected.stream,
            flow: up,
            stream_id: stream_ids.to,
            filter: upstream_filter,
            _visit: visit,
        },
        client_filter,
        place,
        permit,
        losses: Losses::default(),
    }))
}

/// The stream goes to this upstream from now on.
pub(super) fn meet(place: &Place, target: &Target, connected: &Connected, claim: &Claim) {
    place.cell.learn(|facts| {
        facts.upstream = Some(target.label.clone());
        facts.upstream_addr = Some(connected.addr);
    });
    claim.is_at(target.id.0);
    if claim.name().is_some() && place.shared.publish_hold.is_some() {
        let stall = place.shared.timeouts.stall.min(place.shared.timeouts.write);
        place.seat.lose_upstream_after(stall);
        // The kernel is the one that sees what it has sent and nobody acknowledges. It knows this option since 2.6.37.
        let _ = SockRef::from(connected.stream.tcp()).set_tcp_user_timeout(Some(stall));
    }
}

/// Message stream ids the other way round.
pub(super) fn reversed(ids: StreamIds) -> StreamIds {
    StreamIds { from: ids.to, to: ids.from }
}

/// Whether such a session outlives its upstream.
fn holds(shared: &Shared, action: Action) -> bool {
    action == Action::Publish && shared.publish_hold.is_some()
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
pub(super) fn max_mark(stream: &TcpStream) -> u32 {
    let half = SockRef::from(stream).recv_buffer_size().unwrap_or(0) / 2;
    u32::try_from(half).unwrap_or(MAX_MARK).clamp(1, MAX_MARK)
}
