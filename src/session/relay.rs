//! The relay phase: both directions of a session, in one hand-written future.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;

use super::filter::ClientFilter;
use super::flow::{Ends, FlowError};
use super::hold::{Loss, Losses};
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::seat::Direction;
use super::sides::{ClientSide, FAREWELL, UpstreamSide};
use crate::admission::Permit;
use crate::admission::supervisor::Manner;
use crate::protocol::name::Action;
use crate::protocol::rtmp::command::{self, kind};
use crate::protocol::rtmp::joiner::JoinError;
use crate::telemetry::State;

/// Asks a client to connect anew (Enhanced RTMP v2, "Reconnect Request"); without `tcUrl`, to where it is connected.
const RECONNECT: &str = "NetConnection.Connect.ReconnectRequest";
/// How long the other side may take to end once one has.
const LINGER: Duration = Duration::from_secs(5);

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
    /// The upstream asked to be reconnected to.
    Reconnect,
    /// Somebody else ended it.
    Told(Outcome),
}

/// What comes of a relay phase.
pub(super) enum Passed {
    /// The session is over.
    Over(Outcome),
    /// The upstream is gone, and the client need not notice.
    Lost(Box<Relay>, Loss),
}

/// A session whose bytes pass.
pub(super) struct Relay {
    pub(super) client: ClientSide,
    pub(super) upstream: UpstreamSide,
    pub(super) client_filter: ClientFilter,
    pub(super) place: Rc<Place>,
    /// The client's place among the connections.
    pub(super) permit: Permit,
    /// How its upstreams have lasted.
    pub(super) losses: Losses,
}

impl Relay {
    /// Passes bytes until one side ends, then ends the other in its own terms, unless it is a publisher that outlives its upstream.
    pub(super) async fn run(mut self: Box<Self>) -> Passed {
        self.place.seat.set_heeds(true);
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.place.seat.set_heeds(false);
        // The rest is rare and short-lived: boxed, so that it costs the relay phase nothing.
        Box::pin(self.part(end)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(outcome) = self.place.seat.poll_ended(cx) {
            return Poll::Ready(End::Told(outcome));
        }
        if let Some(end) = self.place.seat.take_asked().and_then(|manner| self.heed(manner)) {
            return Poll::Ready(end);
        }
        if self.place.seat.take_lost() {
            return Poll::Ready(End::Upstream(FlowError::Write(io::ErrorKind::TimedOut.into())));
        }
        let end = match self.poll_up(cx) {
            Poll::Ready(Ok(())) => End::ClientClosed,
            Poll::Ready(Err(e @ FlowError::Write(_))) => End::Upstream(e),
            Poll::Ready(Err(e)) => match self.place.seat.take_closing() {
                Some(outcome) if matches!(e, FlowError::Join(JoinError::KeyFrame)) => End::Told(outcome),
                _ => End::Client(e),
            },
            Poll::Pending => match self.poll_down(cx) {
                Poll::Ready(Ok(())) => End::UpstreamClosed,
                Poll::Ready(Err(e @ FlowError::Write(_))) => End::Client(e),
                Poll::Ready(Err(e)) => End::Upstream(e),
                Poll::Pending if self.upstream.filter.reconnect_asked && self.may_hold() => End::Reconnect,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(end)
    }

    /// Does what the session was asked to do; `Some` where it ends now.
    fn heed(&mut self, manner: Manner) -> Option<End> {
        match manner {
            Manner::Reconnect => {
                let request = command::on_status("status", RECONNECT, "the relay is shutting down").encode();
                self.client.flow.say(kind::COMMAND, 0, request);
                None
            }
            Manner::AtKeyFrame(_) if self.client.action == Action::Publish && self.upstream.flow.stop_at_key_frame() => None,
            Manner::AtKeyFrame(_) | Manner::Now => self.place.seat.take_closing().map(End::Told),
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FlowError>> {
        let outlet = UpstreamSide::outlet(&mut self.upstream.stream, &self.place);
        let mut ends = Ends { source: &mut self.client.stream, filter: &mut self.client_filter, outlet };
        self.upstream.flow.poll(cx, &mut ends)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FlowError>> {
        let outlet = ClientSide::outlet(&mut self.client.stream, &self.place);
        let mut ends = Ends { source: &mut self.upstream.stream, filter: &mut self.upstream.filter, outlet };
        self.client.flow.poll(cx, &mut ends)
    }

    /// Hears what the upstream said before it failed, which may explain it.
    async fn hear_out(&mut self, patience: Duration) {
        let _ = timeout(patience, std::future::poll_fn(|cx| self.poll_down(cx))).await;
    }

    /// Whether the client can outlive its upstream: a publisher that goes on, of whose stream enough is kept, and whose upstream did not
    /// end it on purpose.
    fn may_hold(&self) -> bool {
        self.client.action == Action::Publish
            && self.place.shared.publish_hold.is_some()
            && !self.client_filter.is_over()
            && !self.upstream.filter.said_over
            && self.upstream.flow.may_be_taken_up()
            && self.client.flow.leaves_whole()
            && !self.place.seat.is_blocked(Direction::Down)
    }

    async fn part(mut self: Box<Self>, end: End) -> Passed {
        if let End::Upstream(FlowError::Read(_) | FlowError::Write(_)) = &end {
            self.hear_out(Duration::from_millis(50)).await;
        }
        let loss = match &end {
            End::UpstreamClosed => Some(Loss::died("it closed the connection")),
            End::Upstream(e @ (FlowError::Read(_) | FlowError::Write(_))) => Some(Loss::died(e)),
            End::Reconnect => Some(Loss::asked()),
            End::Upstream(FlowError::Join(_)) | End::ClientClosed | End::Client(_) | End::Told(_) => None,
        };
        if let Some(loss) = loss.filter(|_| self.may_hold()) {
            return Passed::Lost(self, loss);
        }
        self.place.cell.set_state(State::Closing);
        self.place.seat.stop_watch();
        Passed::Over(self.close(end).await)
    }

    async fn close(mut self: Box<Self>, end: End) -> Outcome {
        match end {
            End::ClientClosed => {
                self.end_upstream(false).await;
                // The upstream's last words still reach a client that only half-closed.
                self.hear_out(LINGER).await;
                Outcome::new(Side::Client, "client_closed", Status::Success)
            }
            End::Client(FlowError::Join(e)) => self.client_broke(e).await,
            End::Client(e) => {
                let reason = if self.took_nothing(&e, Direction::Down) { "client_not_reading" } else { "client_reset" };
                if matches!(e, FlowError::Write(_)) && reason == "client_reset" {
                    // What it said before it left is still in its socket, where the upstream was slow to take it.
                    let _ = timeout(LINGER, std::future::poll_fn(|cx| self.poll_up(cx))).await;
                }
                self.end_upstream(true).await;
                Outcome::new(Side::Client, reason, Status::Success).because(e)
            }
            End::UpstreamClosed | End::Reconnect => {
                self.end_client("the upstream has ended the stream").await;
                // For a player this is how a stream ends; a publisher has lost its origin.
                let status = if self.client.action == Action::Play { Status::Success } else { Status::Error };
                Outcome::new(Side::Upstream, "upstream_closed", status)
            }
            End::Upstream(e) if self.took_nothing(&e, Direction::Up) => {
                self.end_client(told("upstream_not_reading")).await;
                Outcome::new(Side::Upstream, "upstream_not_reading", Status::Error).because(e)
            }
            End::Upstream(e) => {
                self.hear_out(FAREWELL).await;
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

    /// Whether the peer failed because it took nothing for too long, as the kernel saw before the wheel did (TCP_USER_TIMEOUT), or the
    /// wheel before the kernel.
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
        let (outcome, action) = broken(error, &mut self.client_filter, self.client.action);
        self.end_upstream(true).await;
        let text = outcome.detail.clone().unwrap_or_default();
        self.client.refuse(&self.place, refusal_code(action), &text).await;
        outcome
    }

    /// Ends the upstream's leg properly. `unannounced`: the client has not said that its stream is over, so the relay does.
    async fn end_upstream(&mut self, unannounced: bool) {
        if unannounced {
            let published = self.client.action == Action::Publish;
            self.upstream.say_goodbye(published.then(|| self.client_filter.upstream_stream()));
        }
        self.upstream.end(&self.place).await;
        self.client_filter.release();
    }

    async fn end_client(&mut self, text: &str) {
        self.client_filter.release();
        self.client.end(&self.place, text).await;
    }
}

/// How a session ends whose client broke the protocol, or whose filter refused what it asked; and what that was.
pub(super) fn broken(error: JoinError, filter: &mut ClientFilter, action: Action) -> (Outcome, Action) {
    match (error, filter.take_ended()) {
        (JoinError::Ended, Some(ended)) => ended,
        (e, _) => {
            let reason = if let JoinError::Chunk(e) = &e { e.reason() } else { "message_too_long" };
            (Outcome::new(Side::Client, reason, Status::Success).because(e), action)
        }
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
        "shutdown" | "drained" => "the relay is shutting down",
        "token_revoked" => "authentication failed: the token is not known any more",
        "idle_timeout" => "nothing was sent for too long",
        "player_idle_timeout" => "the stream was silent for too long",
        "client_not_reading" => "nothing was read for too long",
        "upstream_not_reading" => "the upstream takes no more",
        "taken_over" => "another connection publishes this stream now",
        _ => "the session was ended by the relay",
    }
}

/// A poll function's future must be movable: everything in a relay is.
const _: fn() = || {
    fn unpin<T: Unpin>() {}
    unpin::<Pin<Box<Relay>>>();
};
