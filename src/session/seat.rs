//! What others on the worker may do to a running session: end it, and tell it that time has passed.
//!
//! A session has no timer of its own. One wheel a worker looks at all of them once a second for idleness, and keeps the short
//! deadlines of held messages, which all have the same length, in the order in which they were made.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::outcome::{Outcome, Side, Status};
use crate::admission::supervisor::Manner;
use crate::telemetry::{KEY_FRAME_LATE, SILENT, Seen, Streams, WorkerTraffic};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client to the upstream.
    Up = 0,
    /// From the upstream to the client.
    Down = 1,
}

/// A message in progress is waited for until a deadline.
#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    /// Changes with every hold; an entry of the wheel with another one is stale.
    number: u32,
    held: bool,
    expired: bool,
}

#[derive(Debug)]
struct Lane {
    hold: Cell<Hold>,
    active: Cell<Instant>,
    blocked: Cell<Option<Instant>>,
}

impl Lane {
    fn new(now: Instant) -> Self {
        Self { hold: Cell::default(), active: Cell::new(now), blocked: Cell::new(None) }
    }
}

/// Deadlines of the relay phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The client must send within.
    pub(super) client_silent: Option<Duration>,
    /// Bytes must move in either direction within.
    pub(super) both_silent: Option<Duration>,
    /// A peer must take something within.
    pub(super) write: Duration,
}

/// The place of one session on its worker.
#[derive(Debug)]
pub(super) struct Seat {
    waker: RefCell<Option<Waker>>,
    ended: RefCell<Option<Outcome>>,
    lanes: [Lane; 2],
    patience: Cell<Option<Patience>>,
    /// The client's last key frame.
    key_frame: Cell<Option<Instant>>,
    /// The client has been counted as silent.
    stalled: Cell<bool>,
    /// How long the upstream may take nothing before it counts as lost, where the client outlives it.
    stall: Cell<Option<Duration>>,
    lost: Cell<bool>,
    /// Whether the session heeds what it is asked, see [`Self::ask`].
    heeds: Cell<bool>,
    asked: Cell<Option<Manner>>,
    /// As what it ends at the latest when, where it was asked to.
    closing: RefCell<Option<Box<(Instant, Outcome)>>>,
}

impl Seat {
    pub(super) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            waker: RefCell::default(),
            ended: RefCell::default(),
            lanes: [Lane::new(now), Lane::new(now)],
            patience: Cell::new(None),
            key_frame: Cell::new(None),
            stalled: Cell::new(false),
            stall: Cell::new(None),
            lost: Cell::new(false),
            heeds: Cell::new(false),
            asked: Cell::new(None),
            closing: RefCell::default(),
        })
    }

    /// Ends the session as `outcome`, in this manner where the session heeds such a thing, and else at once.
    pub(super) fn ask(&self, manner: Manner, outcome: Outcome, now: Instant) {
        match manner {
            Manner::AtKeyFrame(within) if self.heeds.get() => {
                self.closing.replace(Some(Box::new((now + within, outcome))));
            }
            // Nobody is asked before it is known that he can be.
            Manner::Reconnect => {}
            Manner::Now | Manner::AtKeyFrame(_) => return self.end(outcome),
        }
        self.asked.set(Some(manner));
        self.wake();
    }

    /// From now on, or no longer, the session looks at [`Self::take_asked`].
    pub(super) fn set_heeds(&self, heeds: bool) {
        self.heeds.set(heeds);
        if !heeds && let Some(closing) = self.closing.take() {
            // What it was asked to do in its own time is to be done now.
            self.end(closing.1);
        }
    }

    /// What the session was asked; asking forgets it.
    pub(super) fn take_asked(&self) -> Option<Manner> {
        self.asked.take()
    }

    /// As what the session ends that has come to the end that it was asked for.
    pub(super) fn take_closing(&self) -> Option<Outcome> {
        self.closing.take().map(|closing| closing.1)
    }

    /// Ends the session; the first reason stands.
    pub(super) fn end(&self, outcome: Outcome) {
        self.ended.borrow_mut().get_or_insert(outcome);
        self.wake();
    }

    /// Whether the session is to end, and as what.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.ended.borrow().clone() {
            return Poll::Ready(outcome);
        }
        self.remember(cx);
        Poll::Pending
    }

    /// Resolves when the session is to end.
    pub(super) async fn ended(&self) -> Outcome {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// From now on silence counts.
    pub(super) fn start_watch(&self, patience: Patience, now: Instant) {
        self.lanes.iter().for_each(|lane| lane.active.set(now));
        self.patience.set(Some(patience));
    }

    /// Silence no longer counts: the session is closing, under deadlines of its own.
    pub(super) fn stop_watch(&self) {
        self.patience.set(None);
    }

    /// An upstream that takes nothing for so long is lost, which does not end the session: see [`Self::take_lost`].
    pub(super) fn lose_upstream_after(&self, stall: Duration) {
        self.stall.set(Some(stall));
    }

    /// Whether the upstream is lost; asking forgets it.
    pub(super) fn take_lost(&self) -> bool {
        self.lost.take()
    }

    pub(super) fn touch(&self, direction: Direction, now: Instant) {
        self.lanes[direction as usize].active.set(now);
    }

    /// When something last came from there.
    pub(super) fn active(&self, direction: Direction) -> Instant {
        self.lanes[direction as usize].active.get()
    }

    /// A key frame has begun in what came last.
    pub(super) fn key_frame(&self, direction: Direction) {
        if direction == Direction::Up {
            self.key_frame.set(Some(self.active(direction)));
        }
    }

    /// The sink takes nothing (since), or takes again.
    pub(super) fn set_blocked(&self, direction: Direction, blocked: bool, now: impl FnOnce() -> Instant) {
        let cell = &self.lanes[direction as usize].blocked;
        match (blocked, cell.get()) {
            (true, None) => cell.set(Some(now())),
            (false, Some(_)) => cell.set(None),
            _ => {}
        }
    }

    /// Whether the sink takes nothing at this time.
    pub(super) fn is_blocked(&self, direction: Direction) -> bool {
        self.lanes[direction as usize].blocked.get().is_some()
    }

    /// Whether the deadline of the message in progress has passed; asking forgets it.
    pub(super) fn take_expired(&self, direction: Direction) -> bool {
        let cell = &self.lanes[direction as usize].hold;
        let hold = cell.get();
        if hold.expired {
            cell.set(Hold { expired: false, ..hold });
        }
        hold.expired
    }

    /// No message is in progress.
    pub(super) fn release(&self, direction: Direction) {
        let cell = &self.lanes[direction as usize].hold;
        let hold = cell.get();
        if hold.held {
            cell.set(Hold { number: hold.number.wrapping_add(1), held: false, expired: hold.expired });
        }
    }

    fn expire(&self, direction: Direction, number: u32) {
        let cell = &self.lanes[direction as usize].hold;
        let hold = cell.get();
        if hold.held && hold.number == number {
            cell.set(Hold { number: number.wrapping_add(1), held: false, expired: true });
            self.wake();
        }
    }

    /// Ends the session where it has been silent or stuck for too long.
    fn check(&self, now: Instant) {
        if self.closing.borrow().as_ref().is_some_and(|closing| now >= closing.0) {
            return self.take_closing().map_or((), |outcome| self.end(outcome));
        }
        let Some(patience) = self.patience.get() else { return };
        let [up, down] = &self.lanes;
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.stall.get().is_some_and(|stall| up.blocked.get().is_some_and(|at| since(at) >= stall)) {
            self.lost.set(true);
            return self.wake();
        }
        let stuck = |lane: &Lane| lane.blocked.get().is_some_and(|at| since(at) >= patience.write);
        let over = |limit: Option<Duration>, silent: Duration| limit.is_some_and(|limit| silent >= limit);
        let outcome = if stuck(down) {
            Outcome::new(Side::Client, "client_not_reading", Status::Success)
        } else if stuck(up) {
            Outcome::new(Side::Upstream, "upstream_not_reading", Status::Error)
        } else if up.blocked.get().is_none() && over(patience.client_silent, since(up.active.get())) {
            Outcome::new(Side::Client, "idle_timeout", Status::Success)
        } else if over(patience.both_silent, since(up.active.get().max(down.active.get()))) {
            Outcome::new(Side::Client, "player_idle_timeout", Status::Success)
        } else {
            return;
        };
        self.end(outcome);
    }
}

impl Seat {
    /// Adds this session to what is seen of all; true where a publisher has just fallen silent.
    fn look(&self, now: Instant, seen: &mut Seen) -> bool {
        let Some(patience) = self.patience.get() else { return false };
        // A limit on the client's silence is what makes a publisher.
        if patience.client_silent.is_none() {
            seen.players += 1;
            return false;
        }
        let silent = now.saturating_duration_since(self.active(Direction::Up)) >= SILENT;
        seen.publishers += 1;
        seen.silent += u64::from(silent);
        if let Some(at) = self.key_frame.get() {
            let age = now.saturating_duration_since(at);
            seen.without_key_frame += u64::from(age >= KEY_FRAME_LATE);
            seen.oldest_key_frame = seen.oldest_key_frame.max(age);
        }
        !self.stalled.replace(silent) && silent
    }
}

struct Entry {
    deadline: Instant,
    seat: Weak<Seat>,
    direction: Direction,
    number: u32,
}

impl Entry {
    /// Whether its message has left, or its session is gone.
    fn is_stale(&self) -> bool {
        self.seat.upgrade().is_none_or(|seat| {
            let hold = seat.lanes[self.direction as usize].hold.get();
            !hold.held || hold.number != self.number
        })
    }
}

/// The deadlines of one worker.
pub(super) struct Wheel {
    holds: RefCell<VecDeque<Entry>>,
    hold: Cell<Duration>,
    held: Notify,
    seats: RefCell<Vec<Weak<Seat>>>,
}

/// Coarseness of hold deadlines: one wake serves all that end within.
const HOLD_TICK: Duration = Duration::from_millis(2);
/// Coarseness of idle deadlines.
const IDLE_TICK: Duration = Duration::from_secs(1);

impl Wheel {
    /// `hold`: how long a message may be held.
    pub(super) fn new(hold: Duration) -> Rc<Self> {
        Rc::new(Self { holds: RefCell::default(), hold: Cell::new(hold), held: Notify::new(), seats: RefCell::default() })
    }

    /// Watches over `seat` while it lives.
    pub(super) fn add(&self, seat: &Rc<Seat>) {
        self.seats.borrow_mut().push(Rc::downgrade(seat));
    }

    /// Changes how long a message may be held, also of those that are held now: deadlines stay in order.
    pub(super) fn configure(&self, hold: Duration, now: Instant) {
        self.hold.set(hold);
        self.holds.borrow_mut().iter_mut().for_each(|entry| entry.deadline = entry.deadline.min(now + hold));
        self.held.notify_one();
    }

    /// Whether messages are held at all.
    pub(super) fn holds(&self) -> bool {
        !self.hold.get().is_zero()
    }

    /// A message is in progress; its deadline starts unless one is running.
    pub(super) fn hold(&self, seat: &Rc<Seat>, direction: Direction, now: Instant) {
        let cell = &seat.lanes[direction as usize].hold;
        let hold = cell.get();
        if hold.held {
            return;
        }
        cell.set(Hold { held: true, ..hold });
        let mut holds = self.holds.borrow_mut();
        if holds.is_empty() {
            self.held.notify_one();
        }
        holds.push_back(Entry { deadline: now + self.hold.get(), seat: Rc::downgrade(seat), direction, number: hold.number });
    }

    /// Serves the hold deadlines, for ever.
    pub(super) async fn serve_holds(self: Rc<Self>) {
        loop {
            match self.next() {
                None => self.held.notified().await,
                Some(deadline) => {
                    tokio::select! {
                        // Never early: a half frame must not leave before its deadline.
                        () = tokio::time::sleep_until((deadline + HOLD_TICK).into()) => self.expire(Instant::now()),
                        // Deadlines may have changed.
                        () = self.held.notified() => {}
                    }
                }
            }
        }
    }

    /// The next deadline that somebody still waits for. Most messages are whole long before theirs: nothing wakes for those.
    fn next(&self) -> Option<Instant> {
        let mut holds = self.holds.borrow_mut();
        while holds.front().is_some_and(Entry::is_stale) {
            holds.pop_front();
        }
        holds.front().map(|entry| entry.deadline)
    }

    fn expire(&self, until: Instant) {
        loop {
            let entry = {
                let mut holds = self.holds.borrow_mut();
                if holds.front().is_none_or(|entry| entry.deadline > until) {
                    return;
                }
                holds.pop_front()
            };
            if let Some((seat, entry)) = entry.and_then(|e| Some((e.seat.upgrade()?, e))) {
                seat.expire(entry.direction, entry.number);
            }
        }
    }

    /// Serves the idle deadlines, for ever, and notes in `streams` how all sessions stand.
    pub(super) async fn serve_idle(self: Rc<Self>, traffic: Arc<WorkerTraffic>) {
        let mut tick = tokio::time::interval(IDLE_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look(Instant::now(), &traffic.streams);
        }
    }

    fn look(&self, now: Instant, streams: &Streams) {
        let mut seen = Seen::default();
        self.seats.borrow_mut().retain(|seat| {
            seat.upgrade().is_some_and(|seat| {
                streams.stalls.add(u64::from(seat.look(now, &mut seen)));
                seat.check(now);
                true
            })
        });
        streams.show(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn watched(patience: Patience) -> (Rc<Seat>, Instant) {
        let now = Instant::now();
        let seat = Seat::new(now);
        seat.start_watch(patience, now);
        (seat, now)
    }

    fn reason(seat: &Seat) -> Option<&'static str> {
        seat.ended.borrow().as_ref().map(|o| o.reason)
    }

    #[test]
    fn a_publisher_that_sends_nothing_is_ended_and_a_blocked_upstream_is_not_its_fault() {
        let patience = Patience { client_silent: Some(30 * S), both_silent: None, write: 60 * S };
        let (seat, start) = watched(patience);
        seat.touch(Direction::Down, start + 29 * S);
        seat.check(start + 29 * S);
        assert_eq!(reason(&seat), None);
        seat.set_blocked(Direction::Up, true, || start);
        seat.check(start + 31 * S);
        assert_eq!(reason(&seat), None, "it cannot send while nobody takes it");
        seat.check(start + 60 * S);
        assert_eq!(reason(&seat), Some("upstream_not_reading"));
    }

    #[test]
    fn an_upstream_that_may_be_replaced_is_lost_earlier_and_ends_nothing() {
        let (seat, start) = watched(Patience { client_silent: None, both_silent: None, write: 60 * S });
        seat.lose_upstream_after(5 * S);
        seat.set_blocked(Direction::Up, true, || start);
        seat.check(start + 4 * S);
        assert!(!seat.take_lost());
        seat.check(start + 5 * S);
        assert!(seat.take_lost() && !seat.take_lost());
        assert_eq!(reason(&seat), None);
    }

    #[test]
    fn a_player_is_ended_only_by_its_own_limit() {
        let (seat, start) = watched(Patience { client_silent: None, both_silent: None, write: 60 * S });
        seat.check(start + 100_000 * S);
        assert_eq!(reason(&seat), None);
        let (seat, start) = watched(Patience { client_silent: None, both_silent: Some(5 * S), write: 60 * S });
        seat.touch(Direction::Down, start + 4 * S);
        seat.check(start + 8 * S);
        assert_eq!(reason(&seat), None);
        seat.check(start + 9 * S);
        assert_eq!(reason(&seat), Some("player_idle_timeout"));
    }

    #[test]
    fn a_publisher_that_falls_silent_is_one_stall_until_it_speaks_again() {
        let wheel = Wheel::new(Duration::ZERO);
        let (publisher, start) = watched(Patience { client_silent: Some(30 * S), both_silent: None, write: 60 * S });
        let player = Seat::new(start);
        player.start_watch(Patience { client_silent: None, both_silent: None, write: 60 * S }, start);
        let negotiating = Seat::new(start);
        [&publisher, &player, &negotiating].into_iter().for_each(|seat| wheel.add(seat));
        let streams = Streams::default();
        let look = |seconds| {
            wheel.look(start + seconds * S, &streams);
            (streams.now(), streams.stalls.get())
        };
        let seen = Seen { publishers: 1, players: 1, ..Seen::default() };
        assert_eq!(look(1), (seen, 0));
        assert_eq!(look(2), (Seen { silent: 1, ..seen }, 1));
        assert_eq!(look(3), (Seen { silent: 1, ..seen }, 1), "the same silence");
        publisher.touch(Direction::Up, start + 4 * S);
        publisher.key_frame(Direction::Up);
        assert_eq!(look(5), (Seen { oldest_key_frame: S, ..seen }, 1));
        assert_eq!(look(6), (Seen { silent: 1, oldest_key_frame: 2 * S, ..seen }, 2));
        publisher.touch(Direction::Up, start + 14 * S);
        let late = Seen { without_key_frame: 1, oldest_key_frame: 10 * S, ..seen };
        assert_eq!(look(14), (late, 2), "it sends, and no picture can begin");
        drop(publisher);
        assert_eq!(look(15), (Seen { players: 1, ..Seen::default() }, 2));
    }

    #[test]
    fn a_shorter_hold_applies_to_what_is_held_already() {
        let wheel = Wheel::new(S);
        let now = Instant::now();
        let (old, new) = (Seat::new(now), Seat::new(now));
        wheel.hold(&old, Direction::Up, now);
        wheel.configure(Duration::from_millis(20), now);
        wheel.hold(&new, Direction::Up, now);
        wheel.expire(now + Duration::from_millis(20));
        assert!(old.take_expired(Direction::Up) && new.take_expired(Direction::Up));
    }

    #[test]
    fn a_hold_expires_once_and_a_released_one_never() {
        let wheel = Wheel::new(Duration::from_millis(20));
        let now = Instant::now();
        let seat = Seat::new(now);
        wheel.hold(&seat, Direction::Up, now);
        wheel.hold(&seat, Direction::Up, now + S);
        assert_eq!(wheel.holds.borrow().len(), 1, "one deadline a message");
        assert_eq!(wheel.next(), Some(now + Duration::from_millis(20)));
        seat.release(Direction::Up);
        assert_eq!(wheel.next(), None, "nobody wakes for what has left");
        wheel.expire(now + S);
        assert!(!seat.take_expired(Direction::Up));
        wheel.hold(&seat, Direction::Up, now + S);
        wheel.expire(now + S);
        assert!(!seat.take_expired(Direction::Up), "not before its time");
        wheel.expire(now + 2 * S);
        assert!(seat.take_expired(Direction::Up));
        assert!(!seat.take_expired(Direction::Up));
    }
}
