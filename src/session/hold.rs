//! A publisher whose upstream is gone: its client keeps its connection and is told nothing, what it sends is held, and another
//! upstream is looked for, until one takes the stream or it has been too long.
//!
//! The new upstream hears what the client said when it came, renamed; metadata and the newest headers; then what is held, or
//! what comes, from a key frame on, in the client's own time. The client's chunk stream goes on through a new [`Joiner`]. Towards
//! the client nothing changes: what the new upstream says is cut to the chunk size that the client knows already, for ffmpeg answers
//! a new one with its own, and nginx-rtmp loses its place where that is smaller than before.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, sleep_until, timeout};

use super::collector::{Collector, Said, Share, collect};
use super::filter::{ClientFilter, Upstream, UpstreamFilter};
use super::find::{Again, Found, NotFound, find};
use super::flow::{Flow, FlowError, Left};
use super::introduce::Introduction;
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::preface;
use super::relay::{Relay, broken, refusal_code, told};
use super::report;
use super::seat::Direction;
use super::sides::{ClientSide, FAREWELL, UpstreamSide, farewell, goodbye};
use super::sockopt::set_receive_low_water;
use super::switch::{max_mark, meet, reversed};
use crate::admission::Permit;
use crate::config::PublishHold;
use crate::protocol::name::Action;
use crate::protocol::rtmp::chunk::Writer;
use crate::protocol::rtmp::command::kind;
use crate::protocol::rtmp::joiner::{JoinError, Joiner, OWN_CSID, Start};
use crate::telemetry::{OpenConnection, State};
use crate::tls::Stream;

/// Whoever loses an upstream sooner than this after it was found waits before it looks for the next: origins that take a stream and
/// die of it must not be tried a thousand times a second.
const STEADY: Duration = Duration::from_secs(10);
/// The first such wait; each further one is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a session's upstreams have lasted so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    /// When the last one was found, if it was not the first.
    resumed: Option<Instant>,
    /// How many in a row were lost soon.
    quick: u32,
}

impl Losses {
    /// Another one is lost at `now`: how long to wait before the search.
    fn next(&mut self, now: Instant) -> Duration {
        let soon = self.resumed.is_some_and(|at| now.saturating_duration_since(at) < STEADY);
        self.quick = if soon { self.quick + 1 } else { 0 };
        match self.quick {
            0 => Duration::ZERO,
            quick => (PAUSE * 2_u32.saturating_pow(quick - 1)).min(LONGEST_PAUSE),
        }
    }
}

/// How an upstream was lost.
#[derive(Debug)]
pub(super) struct Loss {
    /// What happened, for the log.
    text: String,
    /// It asked for it, and is told goodbye.
    asked: bool,
}

impl Loss {
    /// Without a word.
    pub(super) fn died(how: impl ToString) -> Self {
        Self { text: how.to_string(), asked: false }
    }

    /// It asked to be reconnected to.
    pub(super) fn asked() -> Self {
        Self { text: "it asked to be reconnected to".to_owned(), asked: true }
    }
}

/// Why a hold ends without an upstream.
pub(super) enum Over {
    /// The client has ended.
    ClientClosed,
    /// The client's connection failed.
    ClientLost(std::io::Error),
    /// The client broke the protocol, or asked for what is refused.
    ClientBroke(JoinError),
    /// No upstream will take it.
    NotFound(NotFound),
    /// It has been too long.
    Expired,
    /// So much of the stream would have to be kept that it cannot be taken up.
    Unkept,
    /// Somebody else ended it.
    Told(Outcome),
}

/// A client without an upstream.
struct Orphan {
    client: ClientSide,
    filter: ClientFilter,
    place: Rc<Place>,
    permit: Permit,
    collector: Collector,
    settings: PublishHold,
    losses: Losses,
    began: Instant,
    _counted: OpenConnection,
}

/// Holds the publisher until its stream passes again.
pub(super) async fn hold(relay: Box<Relay>, loss: Loss) -> Result<Box<Relay>, Outcome> {
    let (mut orphan, mut dead) = orphan(relay)?;
    report::held(&orphan.place, orphan.filter.target(), &loss.text);
    if loss.asked {
        dead.leave().await;
    }
    drop(dead);
    match orphan.wait().await {
        Ok(found) => Ok(orphan.resume(found)),
        Err(over) => Err(Outcome { held: true, ..orphan.end(over).await }),
    }
}

/// What is left of an upstream's side.
struct Dead {
    stream: Stream,
    pending: Vec<u8>,
    ends_whole: bool,
    left: bool,
}

impl Dead {
    /// Ends the leg in order.
    async fn leave(&mut self) {
        let leave = async {
            if self.ends_whole {
                self.stream.write_all(&self.pending).await?;
                self.stream.flush().await?;
            }
            self.stream.shutdown().await
        };
        self.left = matches!(timeout(FAREWELL, leave).await, Ok(Ok(())));
    }
}

impl Drop for Dead {
    /// With a reset, unless it was left in order: what the kernel still has for it must not keep our ghost alive there.
    fn drop(&mut self) {
        if !self.left {
            let _ = SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Takes the session apart.
fn orphan(relay: Box<Relay>) -> Result<(Orphan, Dead), Outcome> {
    let Relay { client, upstream, client_filter: filter, place, permit, losses } = *relay;
    let UpstreamSide { stream, flow, stream_id, .. } = upstream;
    let Left { sender, rest, mut pending, ends_whole, chunk_size } = flow.into_left();
    let mut writer = Writer::default();
    writer.set_chunk_size(chunk_size);
    for payload in goodbye(stream_id, Some(filter.upstream_stream())) {
        writer.write(&mut pending, OWN_CSID, 0, kind::COMMAND, 0, &payload);
    }
    // Whoever has no settings or kept nothing is not held.
    let impossible = || Outcome::new(Side::Upstream, "upstream_closed", Status::Error);
    let (Some(settings), Some(keep)) = (place.shared.publish_hold, sender.keep) else { return Err(impossible()) };
    let share = Share::new(Arc::clone(&place.shared.held_bytes), settings);
    let collector = Collector::new(sender.sender, *keep, rest, share);
    // The mark of a message that was waited for is not ours.
    let _ = set_receive_low_water(client.stream.tcp().as_fd(), 1);
    place.seat.take_lost();
    place.seat.release(Direction::Up);
    place.seat.set_blocked(Direction::Up, false, Instant::now);
    place.cell.set_state(State::Holding);
    place.cell.holds.add(1);
    let counted = place.shared.telemetry.metrics().publisher_held();
    let orphan = Orphan { client, filter, place, permit, collector, settings, losses, began: Instant::now(), _counted: counted };
    Ok((orphan, Dead { stream, pending, ends_whole, left: false }))
}

impl Orphan {
    /// Looks for an upstream while the client goes on.
    async fn wait(&mut self) -> Result<Found, Over> {
        let Self { client, filter, place, collector, settings, losses, began, .. } = self;
        let pause = losses.next(*began);
        let deadline = *began + settings.max_time;
        let lost = filter.target().id;
        let asked = Rc::clone(filter.asked());
        let ends = preface::ends(place, client.stream.tcp());
        let again = Again {
            lost: Some(lost),
            ghosts: filter.lived_at().to_vec(),
            // The deadline below is the one that ends it.
            ghosts_until: Some(deadline + settings.max_time),
            unreachable_until: Some(deadline + settings.max_time),
        };
        let search = async {
            sleep(pause).await;
            find(place, &asked, &again, ends).await
        };
        tokio::select! {
            biased;
            outcome = place.seat.ended() => Err(Over::Told(outcome)),
            found = search => found.map_err(Over::NotFound),
            over = collect(&mut client.stream, collector, filter, place) => Err(over),
            () = sleep_until(deadline.into()) => Err(Over::Expired),
        }
    }

    /// Joins the client to the upstream that was found.
    fn resume(self, found: Found) -> Box<Relay> {
        let Self { mut client, mut filter, place, permit, collector, settings, losses, began, .. } = self;
        let Found { target, connected, introduction, renamer, names, visit } = found;
        // What it says on its way in, the client has heard from the first one.
        let Introduction { parts, .. } = *introduction;
        let stream_ids = parts.stream_ids;
        let (held, dropped) = (collector.held().bytes(), collector.held().dropped());
        let Said { bytes: said, sender, writer, rest, resumed } = collector.say(parts.writer, stream_ids);
        meet(&place, &target, &connected, filter.claim());
        report::resumed(&place, &target, began.elapsed(), held, dropped);
        filter.moved(Upstream { target, renamer, app: names.app, stream_ids });
        let chunk_size = writer.chunk_size();
        let mut up = Joiner::new(Start { sender, seen: writer.into_seen(), chunk_size, stream_ids });
        up.keep(Box::new(resumed.keep));
        up.resume(resumed.begun, settings.max_bytes);
        let mut up = Flow::new(Direction::Up, up, place.shared.buffers.read, max_mark(client.stream.tcp()));
        up.lead_with(said);
        up.feed(&rest, &mut filter);

        let Left { pending, chunk_size, .. } = client.flow.into_left();
        let seen = Vec::new();
        let mut down = Joiner::new(Start { sender: parts.sender, seen, chunk_size, stream_ids: reversed(stream_ids) });
        down.cut_anew();
        let mut down = Flow::new(Direction::Down, down, place.shared.buffers.write, max_mark(connected.stream.tcp()));
        let mut upstream_filter = UpstreamFilter::default();
        down.lead_with(pending);
        down.feed(&parts.rest, &mut upstream_filter);
        client.flow = down;
        place.cell.set_state(State::Relaying);
        let upstream =
            UpstreamSide { stream: connected.stream, flow: up, stream_id: stream_ids.to, filter: upstream_filter, _visit: visit };
        let losses = Losses { resumed: Some(Instant::now()), ..losses };
        Box::new(Relay { client, upstream, client_filter: filter, place, permit, losses })
    }

    /// Tells the client why there is no upstream, and closes.
    async fn end(mut self, over: Over) -> Outcome {
        let Self { client, filter, place, began, collector, settings, .. } = &mut self;
        place.cell.set_state(State::Closing);
        place.seat.stop_watch();
        filter.release();
        let (how, dropped) = (over.word(), collector.held().dropped());
        report::hold_over(place, how, began.elapsed(), dropped);
        match over {
            Over::ClientClosed => {
                farewell(&mut client.stream).await;
                Outcome::new(Side::Client, "client_closed", Status::Success)
            }
            Over::ClientLost(e) => Outcome::new(Side::Client, "client_reset", Status::Success).because(FlowError::Read(e)),
            Over::ClientBroke(e) => {
                let (outcome, action) = broken(e, filter, Action::Publish);
                let text = outcome.detail.clone().unwrap_or_default();
                client.refuse(place, refusal_code(action), &text).await;
                outcome
            }
            Over::NotFound(NotFound { code, text, outcome, .. }) => {
                client.refuse(place, &code, &text).await;
                outcome
            }
            Over::Expired => {
                let most = humantime::format_duration(settings.max_time);
                let text = format!("the upstream went away, and none took the stream within {most}");
                client.end(place, &text).await;
                Outcome::new(Side::Upstream, "hold_expired", Status::Error).because(text)
            }
            Over::Unkept => {
                let text = "the upstream went away, and the stream's headers are too long to begin anew";
                client.end(place, text).await;
                Outcome::new(Side::Upstream, "upstream_closed", Status::Error).because(text)
            }
            Over::Told(outcome) => {
                client.end(place, told(outcome.reason)).await;
                outcome
            }
        }
    }
}

impl Over {
    /// The label of the metric.
    fn word(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotFound(_) | Self::Unkept => "refused",
            Self::ClientClosed | Self::ClientLost(_) | Self::ClientBroke(_) | Self::Told(_) => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_loses_upstreams_soon_waits_longer_each_time_and_who_had_a_steady_one_not_at_all() {
        let now = Instant::now();
        let mut losses = Losses::default();
        assert_eq!(losses.next(now), Duration::ZERO, "the first upstream may be as short as it likes");
        let mut waits = Vec::new();
        for _ in 0..8 {
            losses.resumed = Some(now);
            waits.push(losses.next(now + STEADY / 2).as_millis());
        }
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        losses.resumed = Some(now);
        assert_eq!(losses.next(now + STEADY), Duration::ZERO);
        losses.quick = u32::MAX - 1;
        assert_eq!(losses.next(now), LONGEST_PAUSE);
    }
}
