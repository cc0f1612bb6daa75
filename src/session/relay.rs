//! The relay phase: both directions of a session, in one hand-written future.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::filter::{ClientFilter, UpstreamFilter};
use super::flow::{Ends, Flow, FlowError};
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::seat::Direction;
use crate::admission::Permit;
use crate::protocol::name::Action;
use crate::protocol::rtmp::amf0::Value;
use crate::protocol::rtmp::command::{self, Command, event, kind};
use crate::protocol::rtmp::joiner::{JoinError, OWN_CSID};
use crate::telemetry::State;
use crate::tls::Stream;
use crate::upstream::{Load, Publication};

/// How long the other side may take to end once one has.
const LINGER: Duration = Duration::from_secs(5);
/// How long a client is listened to after our FIN, before it is reset: librtmp and OBS do not see a FIN while they send.
const FAREWELL: Duration = Duration::from_secs(2);

/// What ended the relay phase.
enum End {
    /// The client has ended, and all of it has left.
    ClientClosed,
    /// The upstream has ended, and all of it has left.
    UpstreamClosed,
    /// The client's side failed.
    Client(FlowError),
    /// The upstream's side failed.
    Upstream(FlowError),
    /// Somebody else ended it.
    Told(Outcome),
}

/// A session whose bytes pass.
pub(super) struct Relay {
    pub(super) action: Action,
    /// Message stream ids as client and upstream know them.
    pub(super) client_stream_id: u32,
    pub(super) upstream_stream_id: u32,
    pub(super) client: Stream,
    pub(super) upstream: Stream,
    pub(super) up: Flow,
    pub(super) down: Flow,
    pub(super) client_filter: ClientFilter,
    pub(super) upstream_filter: UpstreamFilter,
    pub(super) place: Rc<Place>,
    /// The client's place among the connections.
    pub(super) _permit: Permit,
    /// Its place at the upstream, and what makes players find its stream there.
    pub(super) _at_upstream: (Load, Option<Publication>),
}

impl Relay {
    /// Passes bytes until one side ends, then ends the other in its own terms.
    pub(super) async fn run(mut self: Box<Self>) -> Outcome {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.place.cell.set_state(State::Closing);
        self.place.seat.stop_watch();
        // The rest is rare and short-lived: boxed, so that it costs the relay phase nothing.
        Box::pin(self.close(end)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(outcome) = self.place.seat.poll_ended(cx) {
            return Poll::Ready(End::Told(outcome));
        }
        let end = match self.poll_up(cx) {
            Poll::Ready(Ok(())) => End::ClientClosed,
            Poll::Ready(Err(e @ FlowError::Write(_))) => End::Upstream(e),
            Poll::Ready(Err(e)) => End::Client(e),
            Poll::Pending => match self.poll_down(cx) {
                Poll::Ready(Ok(())) => End::UpstreamClosed,
                Poll::Ready(Err(e @ FlowError::Write(_))) => End::Client(e),
                Poll::Ready(Err(e)) => End::Upstream(e),
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(end)
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FlowError>> {
        let mut ends = Ends {
            source: &mut self.client,
            sink: &mut self.upstream,
            filter: &mut self.client_filter,
            place: &self.place,
            traffic: &self.place.cell.to_upstream,
            total: &self.place.worker.traffic.to_upstream,
        };
        self.up.poll(cx, &mut ends)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FlowError>> {
        let mut ends = Ends {
            source: &mut self.upstream,
            sink: &mut self.client,
            filter: &mut self.upstream_filter,
            place: &self.place,
            traffic: &self.place.cell.to_client,
            total: &self.place.worker.traffic.to_client,
        };
        self.down.poll(cx, &mut ends)
    }

    async fn close(mut self: Box<Self>, end: End) -> Outcome {
        match end {
            End::ClientClosed => {
                self.end_upstream(false).await;
                Outcome::new(Side::Client, "client_closed", Status::Success)
            }
            End::Client(FlowError::Join(e)) => self.client_broke(e).await,
            End::Client(e) => {
                let reason = if self.took_nothing(&e, Direction::Down) { "client_not_reading" } else { "client_reset" };
                self.end_upstream(true).await;
                Outcome::new(Side::Client, reason, Status::Success).because(e)
            }
            End::UpstreamClosed => {
                self.end_client("the upstream has ended the stream").await;
                // For a player this is how a stream ends; a publisher has lost its origin.
                let status = if self.action == Action::Play { Status::Success } else { Status::Error };
                Outcome::new(Side::Upstream, "upstream_closed", status)
            }
            End::Upstream(e) if self.took_nothing(&e, Direction::Up) => {
                self.end_client(told("upstream_not_reading")).await;
                Outcome::new(Side::Upstream, "upstream_not_reading", Status::Error).because(e)
            }
            End::Upstream(e) => {
                // What it said before it failed may explain it.
                let _ = timeout(FAREWELL, std::future::poll_fn(|cx| self.poll_down(cx))).await;
                self.end_client("the connection to the upstream was lost").await;
                let reason = if matches!(e, FlowError::Join(_)) { "upstream_protocol_error" } else { "upstream_reset" };
                Outcome::new(Side::Upstream, reason, Status::Error).because(e)
            }
            End::Told(outcome) => {
                self.end_upstream(true).await;
                self.end_client(told(outcome.reason)).await;
                outcome
            }
        }
    }

    /// Whether the peer failed because it took nothing for `write_timeout`, as the kernel saw before the wheel did (TCP_USER_TIMEOUT).
    fn took_nothing(&self, error: &FlowError, towards: Direction) -> bool {
        match error {
            FlowError::Write(e) => e.kind() == io::ErrorKind::TimedOut,
            // The same news, when reading hears it first.
            FlowError::Read(e) => e.kind() == io::ErrorKind::TimedOut && self.place.seat.is_blocked(towards),
            FlowError::Join(_) => false,
        }
    }

    /// The client broke the protocol, or the filter refused what it asked.
    async fn client_broke(mut self: Box<Self>, error: JoinError) -> Outcome {
        let (outcome, action) = match (error, self.client_filter.take_ended()) {
            (JoinError::Ended, Some(ended)) => ended,
            (e, _) => {
                let reason = if let JoinError::Chunk(e) = &e { e.reason() } else { "message_too_long" };
                (Outcome::new(Side::Client, reason, Status::Success).because(e), self.action)
            }
        };
        self.end_upstream(true).await;
        let text = outcome.detail.clone().unwrap_or_default();
        let code = refusal_code(action);
        let status = command::on_status("error", code, &text).encode();
        self.down.conclude(&[(OWN_CSID, kind::COMMAND, self.client_stream_id, &status)]);
        self.finish_client().await;
        outcome
    }

    /// Ends the upstream's leg properly. `unannounced`: the client has not said deleteStream, so the relay does.
    async fn end_upstream(&mut self, unannounced: bool) {
        if unannounced {
            let id = Value::Number(f64::from(self.upstream_stream_id));
            let delete = Command::new("deleteStream", 0.0, vec![Value::Null, id]).encode();
            self.up.conclude(&[(OWN_CSID, kind::COMMAND, 0, &delete)]);
        }
        let _ = timeout(FAREWELL, std::future::poll_fn(|cx| self.poll_leave(cx, true))).await;
        let _ = timeout(FAREWELL, self.upstream.shutdown()).await;
        if !unannounced {
            // The upstream's last words still reach a client that only half-closed.
            let _ = timeout(LINGER, std::future::poll_fn(|cx| self.poll_down(cx))).await;
        }
    }

    /// Tells the client that the stream is over, as far as a message fits in where it stands.
    async fn end_client(&mut self, text: &str) {
        let id = self.client_stream_id;
        let whole = match self.action {
            Action::Play => {
                // GStreamer hears only the one, ffmpeg and librtmp only the other.
                let eof = command::user_control(event::STREAM_EOF, id);
                let unpublish = command::on_status("status", "NetStream.Play.UnpublishNotify", text).encode();
                self.down.conclude(&[(OWN_CSID, kind::USER_CONTROL, 0, &eof), (OWN_CSID, kind::COMMAND, id, &unpublish)])
            }
            Action::Publish => {
                let failed = command::on_status("error", "NetStream.Publish.Failed", text).encode();
                self.down.conclude(&[(OWN_CSID, kind::COMMAND, id, &failed)])
            }
        };
        if whole {
            self.finish_client().await;
        } else {
            // Inside a half-sent message only a reset is true.
            let _ = SockRef::from(self.client.tcp()).set_linger(Some(Duration::ZERO));
        }
    }

    async fn finish_client(&mut self) {
        if let Ok(Ok(())) = timeout(FAREWELL, std::future::poll_fn(|cx| self.poll_leave(cx, false))).await {
            farewell(&mut self.client).await;
        }
    }

    fn poll_leave(&mut self, cx: &mut Context<'_>, up: bool) -> Poll<io::Result<()>> {
        let (flow, source, sink) = if up {
            (&mut self.up, &mut self.client, &mut self.upstream)
        } else {
            (&mut self.down, &mut self.upstream, &mut self.client)
        };
        let place = &self.place;
        let (cell, all) = (&place.cell, &place.worker.traffic);
        let (traffic, total) = if up { (&cell.to_upstream, &all.to_upstream) } else { (&cell.to_client, &all.to_client) };
        flow.poll_leave(cx, &mut Ends { source, sink, filter: &mut self.client_filter, place, traffic, total })
    }
}

/// The onStatus code where no upstream could be had.
pub(super) fn failure_code(action: Action) -> &'static str {
    match action {
        Action::Publish => "NetStream.Publish.Failed",
        Action::Play => "NetStream.Play.Failed",
    }
}

/// The onStatus code of a refusal.
pub(super) fn refusal_code(action: Action) -> &'static str {
    match action {
        Action::Publish => "NetStream.Publish.Denied",
        Action::Play => "NetStream.Play.Failed",
    }
}

/// What a client is told where the relay ends its session.
pub(super) fn told(reason: &str) -> &'static str {
    match reason {
        "shutdown" => "the relay is shutting down",
        "idle_timeout" => "nothing was sent for too long",
        "player_idle_timeout" => "the stream was silent for too long",
        "client_not_reading" => "nothing was read for too long",
        "upstream_not_reading" => "the upstream takes no more",
        _ => "the session was ended by the relay",
    }
}

/// Half-closes, listens for a while without heeding, and leaves. A peer that still sends is then reset, which is the only thing that
/// stops some.
pub(super) async fn farewell(stream: &mut Stream) {
    let mut sink = [0; 4096];
    let drain = async {
        let _ = stream.shutdown().await;
        while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    let _ = timeout(FAREWELL, drain).await;
}

/// A poll function's future must be movable: everything in a relay is.
const _: fn() = || {
    fn unpin<T: Unpin>() {}
    unpin::<Pin<Box<Relay>>>();
};
