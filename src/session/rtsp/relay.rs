//! A running RTSP session: the conversation of both sides, and what flows between its messages, in one hand-written future.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::lane::{Ends, Lane, LaneError, Step};
use crate::admission::{Claim, Permit};
use crate::protocol::name::Action;
use crate::protocol::rtsp::dialogue::{Dialogue, DialogueError, Phase};
use crate::session::life::Place;
use crate::session::outcome::{Outcome, Side, Status};
use crate::session::relay::told;
use crate::session::seat::{Direction, Patience};
use crate::session::sides::farewell;
use crate::telemetry::State;
use crate::tls::Stream;
use crate::upstream::{Load, Publication};

/// How long the other side may take to end once one has.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long an upstream may take for what a client has said before it left.
const LINGER: Duration = Duration::from_secs(5);
/// A side that does not take so many bytes of what the relay says is not listened to meanwhile.
const UNSAID: usize = 64 * 1024;

/// What ended the session.
enum End {
    /// The client has ended, and all of it has left.
    ClientClosed,
    /// The upstream has ended, and all of it has left.
    UpstreamClosed,
    /// The client's side failed.
    Client(LaneError),
    /// The upstream's side failed.
    Upstream(LaneError),
    /// The client asked for too much, and was told.
    Broke(DialogueError),
    /// Somebody else ended it.
    Told(Outcome),
}

/// A session whose stream has an upstream.
pub(super) struct Relay {
    pub(super) action: Action,
    pub(super) client: Stream,
    pub(super) upstream: Stream,
    pub(super) up: Lane,
    pub(super) down: Lane,
    pub(super) dialogue: Box<Dialogue>,
    /// The phase by which silence is judged now.
    pub(super) patience: Option<Phase>,
    pub(super) place: Rc<Place>,
    /// The right to publish, where it is a publisher's session.
    pub(super) claim: Claim,
    /// The client's place among the connections.
    pub(super) _permit: Permit,
    /// Its place at the upstream, and what makes players find its stream there.
    pub(super) _at_upstream: (Load, Option<Publication>),
}

impl Relay {
    /// Passes what comes until one side ends, then ends the other.
    pub(super) async fn run(mut self: Box<Self>) -> Outcome {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.place.cell.set_state(State::Closing);
        self.place.seat.stop_watch();
        // The rest is rare and short-lived: boxed, so that it costs the session nothing before.
        Box::pin(self.close(end)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(outcome) = self.place.seat.poll_ended(cx) {
            return Poll::Ready(End::Told(outcome));
        }
        loop {
            self.watch();
            // Each side is heard only while the other takes what is said to it on that account.
            let (hears_client, hears_upstream) = (self.down.unsaid() < UNSAID, self.up.unsaid() < UNSAID);
            match self.poll_lane(cx, Direction::Up, hears_client) {
                Poll::Ready(Ok(Step::Message(message))) => {
                    let heard = self.dialogue.handle_client(*message, &mut |bytes| rand::fill(bytes));
                    self.speak();
                    if let Err(e) = heard {
                        return Poll::Ready(End::Broke(e));
                    }
                    continue;
                }
                Poll::Ready(Ok(Step::Ended)) => return Poll::Ready(End::ClientClosed),
                Poll::Ready(Err(e @ LaneError::Write(_))) => return Poll::Ready(End::Upstream(e)),
                Poll::Ready(Err(e)) => return Poll::Ready(End::Client(e)),
                Poll::Pending => {}
            }
            match self.poll_lane(cx, Direction::Down, hears_upstream) {
                Poll::Ready(Ok(Step::Message(message))) => {
                    self.dialogue.handle_upstream(*message, &mut |bytes| rand::fill(bytes));
                    self.speak();
                }
                Poll::Ready(Ok(Step::Ended)) => return Poll::Ready(End::UpstreamClosed),
                Poll::Ready(Err(e @ LaneError::Write(_))) => return Poll::Ready(End::Client(e)),
                Poll::Ready(Err(e)) => return Poll::Ready(End::Upstream(e)),
                Poll::Pending if !hears_client && self.down.unsaid() < UNSAID => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_lane(&mut self, cx: &mut Context<'_>, direction: Direction, hears: bool) -> Poll<Result<Step, LaneError>> {
        let (lane, mut ends) = self.ends(direction);
        if hears {
            return lane.poll(cx, &mut ends);
        }
        match lane.poll_leave(cx, &mut ends) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(LaneError::Write(e))),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn ends(&mut self, direction: Direction) -> (&mut Lane, Ends<'_>) {
        let place = &self.place;
        let (cell, all) = (&place.cell, &place.worker.traffic);
        let channels = self.dialogue.channels();
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        match direction {
            Direction::Up => {
                let (traffic, total) = (&cell.to_upstream, &all.to_upstream);
                (&mut self.up, Ends { source: client, sink: upstream, channels, place, traffic, total })
            }
            Direction::Down => {
                let (traffic, total) = (&cell.to_client, &all.to_client);
                (&mut self.down, Ends { source: upstream, sink: client, channels, place, traffic, total })
            }
        }
    }

    /// Hands to both sides what the conversation has for them.
    fn speak(&mut self) {
        self.up.say(self.dialogue.take_to_upstream());
        self.down.say(self.dialogue.take_to_client());
    }

    /// Silence is judged by how far the stream is: a paused one may be silent for ever, and so may a player's.
    fn watch(&mut self) {
        let phase = self.dialogue.phase();
        if self.patience.replace(phase) == Some(phase) {
            return;
        }
        let timeouts = &self.place.shared.timeouts;
        let (client_silent, both_silent) = match (phase, self.action) {
            (Phase::Setup, _) | (Phase::Flowing, Action::Publish) => (Some(timeouts.idle), None),
            (Phase::Flowing, Action::Play) => (None, timeouts.player_idle),
            (Phase::Paused, _) => (None, None),
        };
        self.place.seat.start_watch(Patience { client_silent, both_silent, write: timeouts.write }, Instant::now());
    }

    async fn close(mut self: Box<Self>, end: End) -> Outcome {
        let outcome = |side, reason, status| Outcome::new(side, reason, status);
        // Who has said TEARDOWN leaves as it likes; some do not even read the answer.
        let over = self.dialogue.over();
        match end {
            End::ClientClosed => {
                self.end_upstream().await;
                outcome(Side::Client, "client_closed", Status::Success)
            }
            End::Client(LaneError::Framing(e)) => {
                self.dialogue.tell_broken(e);
                self.end_both().await;
                outcome(Side::Client, e.reason(), Status::Success).because(e)
            }
            End::Broke(e) => {
                self.end_both().await;
                outcome(Side::Client, e.reason(), Status::Success).because(e)
            }
            End::Client(e) => {
                let not_reading = self.took_nothing(&e, Direction::Down);
                if matches!(e, LaneError::Write(_)) && !not_reading {
                    let _ = timeout(LINGER, std::future::poll_fn(|cx| self.poll_rest(cx))).await;
                }
                let over = over || self.dialogue.over();
                self.end_upstream().await;
                let reason = match () {
                    () if over => "client_closed",
                    () if not_reading => "client_not_reading",
                    () => "client_reset",
                };
                outcome(Side::Client, reason, Status::Success).because(e)
            }
            End::UpstreamClosed | End::Upstream(_) if over => {
                self.end_client(502, "The upstream has ended the session").await;
                outcome(Side::Client, "client_closed", Status::Success)
            }
            End::UpstreamClosed => {
                self.end_client(502, "The upstream has ended the stream").await;
                // For a player this is how a stream ends; a publisher has lost its origin.
                let ended = self.action == Action::Play && self.dialogue.phase() != Phase::Setup;
                outcome(Side::Upstream, "upstream_closed", if ended { Status::Success } else { Status::Error })
            }
            End::Upstream(e) => {
                let not_reading = self.took_nothing(&e, Direction::Up);
                self.end_client(502, "The connection to the upstream was lost").await;
                let reason = match &e {
                    LaneError::Framing(_) => "upstream_protocol_error",
                    _ if not_reading => "upstream_not_reading",
                    LaneError::Read(_) | LaneError::Write(_) => "upstream_reset",
                };
                outcome(Side::Upstream, reason, Status::Error).because(e)
            }
            End::Told(outcome) => {
                self.dialogue.abandon(503, told(outcome.reason));
                self.end_both().await;
                outcome
            }
        }
    }

    /// Whether the peer failed because it took nothing for `write_timeout`, as the kernel saw before the wheel did (TCP_USER_TIMEOUT).
    fn took_nothing(&self, error: &LaneError, towards: Direction) -> bool {
        match error {
            LaneError::Write(e) => e.kind() == io::ErrorKind::TimedOut,
            LaneError::Read(e) => e.kind() == io::ErrorKind::TimedOut && self.place.seat.is_blocked(towards),
            LaneError::Framing(_) => false,
        }
    }

    async fn end_both(&mut self) {
        self.end_upstream().await;
        self.end_client(502, "The session has ended").await;
    }

    /// Says TEARDOWN where the client has not, and listens for the upstream's last words.
    async fn end_upstream(&mut self) {
        self.dialogue.tear_down(&mut |bytes| rand::fill(bytes));
        self.speak();
        let left = std::future::poll_fn(|cx| {
            let (lane, mut ends) = self.ends(Direction::Up);
            lane.poll_leave(cx, &mut ends)
        });
        let _ = timeout(FAREWELL, left).await;
        let _ = timeout(FAREWELL, self.upstream.shutdown()).await;
        let _ = timeout(FAREWELL, std::future::poll_fn(|cx| self.poll_last(cx))).await;
        // The upstream knows that the stream is over: whoever waits for its name may have it.
        self.claim.release();
    }

    /// What a client said before it left is still in its socket, where the upstream was slow to take it. Ready once that has been heard.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.poll_lane(cx, Direction::Up, true) {
                Poll::Ready(Ok(Step::Message(message))) => {
                    if self.dialogue.handle_client(*message, &mut |bytes| rand::fill(bytes)).is_err() {
                        return Poll::Ready(());
                    }
                    self.up.say(self.dialogue.take_to_upstream());
                    // It takes no more answers.
                    drop(self.dialogue.take_to_client());
                }
                Poll::Ready(Ok(Step::Ended) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// What the upstream still says reaches a client that only half-closed. Ready once it has ended, or the client takes no more.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.poll_lane(cx, Direction::Down, true) {
                Poll::Ready(Ok(Step::Message(message))) => {
                    self.dialogue.handle_upstream(*message, &mut |bytes| rand::fill(bytes));
                    self.speak();
                }
                Poll::Ready(Ok(Step::Ended) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Answers whoever waits, and closes. RTSP/1.0 has no word for a stream that is over but the end of the connection.
    async fn end_client(&mut self, code: u16, text: &str) {
        self.dialogue.abandon(code, text);
        self.speak();
        let left = std::future::poll_fn(|cx| {
            let (lane, mut ends) = self.ends(Direction::Down);
            lane.poll_leave(cx, &mut ends)
        });
        if let Ok(Ok(())) = timeout(FAREWELL, left).await {
            farewell(&mut self.client).await;
        }
    }
}
