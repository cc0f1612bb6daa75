//! One direction of the relay phase: the frame-aligned pump.
//!
//! It reads what is there, follows it with the [`Joiner`], and lets it leave at message boundaries: where a message is incomplete it is
//! held, and the source's `SO_RCVLOWAT` is set to what is missing, so that the kernel wakes the session once, when the message is
//! whole. Then one send. What is too long to hold leaves in large pieces; what stalls leaves at the hold deadline.
//!
//! Invariants: nothing is read while the sink does not take what may leave (back-pressure). A buffer is lent only while bytes
//! are in hand. The low-water mark is raised only behind a short read, when tokio's cached readiness is cleared.
//!
//! ```text
//!   0 ... start ......... leave ......... scanned ......... end ... capacity
//!         | may leave now | held          | header not whole |
//! ```

mod handover;

pub(super) use handover::Left;

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::Buffer;
use super::life::Place;
use super::seat::Direction;
use super::sockopt::set_receive_low_water;
use crate::protocol::rtmp::joiner::{Filter, JoinError, Joiner, OWN_CSID, Outgoing};
use crate::telemetry::{Total, Traffic};
use crate::tls::Stream;

/// Longest header that may be left over, bytes: 3 basic, 11 message, 4 extended timestamp.
const MAX_HEADER: usize = 18;

/// Why a direction stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlowError {
    /// The source failed, in the middle of what it sent.
    #[error("reading: {0}")]
    Read(io::Error),
    /// The sink failed.
    #[error("writing: {0}")]
    Write(io::Error),
    /// The source broke the protocol, or the filter ended the session.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// What a flow works on, for one poll.
pub(super) struct Ends<'a> {
    pub(super) source: &'a mut Stream,
    pub(super) filter: &'a mut dyn Filter,
    pub(super) outlet: Outlet<'a>,
}

/// Where a flow leads.
pub(super) struct Outlet<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) place: &'a Place,
    pub(super) traffic: &'a Traffic,
    /// The worker's counts of this direction.
    pub(super) total: &'a Total,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flow {
    direction: Direction,
    joiner: Joiner,
    buffer: Option<Buffer>,
    start: usize,
    leave: usize,
    scanned: usize,
    end: usize,
    /// What goes behind `leave`, where the output differs from what was read.
    patched: Vec<u8>,
    patched_sent: usize,
    /// What was read between `leave` and `scanned` has been withheld or stands in `patched`.
    differs: bool,
    /// What may leave ends at a message boundary.
    leaves_whole: bool,
    /// The start of a header, kept while no buffer is lent.
    stash: [u8; MAX_HEADER],
    stashed: usize,
    mark: u32,
    /// Highest mark that does not grow the receive buffer, bytes.
    max_mark: u32,
    /// Bytes in hand at most.
    capacity: usize,
    /// The last read took all there was.
    drained: bool,
    /// The deadline has passed: the next bytes pass as they come.
    expired: bool,
    eof: bool,
    failure: Option<JoinError>,
    /// Messages that have come whole, and those of them that have left.
    media: u64,
    left: u64,
    /// When the first of the difference became whole.
    whole_at: Option<Instant>,
    /// They may leave.
    leaving: bool,
    key_frames: u64,
    /// It ends before the next key frame.
    stops: bool,
    /// A message of our own that waits until no other is in progress.
    own: Option<Box<Own>>,
}

/// A message of our own.
#[derive(Debug)]
struct Own {
    kind: u8,
    stream_id: u32,
    payload: Vec<u8>,
}

impl Flow {
    /// A flow that goes on from `joiner`; `rest` was read before. `capacity` and `max_mark` in bytes.
    pub(super) fn new(direction: Direction, joiner: Joiner, capacity: usize, max_mark: u32) -> Self {
        Self {
            direction,
            joiner,
            buffer: None,
            start: 0,
            leave: 0,
            scanned: 0,
            end: 0,
            patched: Vec::new(),
            patched_sent: 0,
            differs: false,
            leaves_whole: true,
            stash: [0; MAX_HEADER],
            stashed: 0,
            mark: 1,
            max_mark,
            capacity,
            drained: false,
            expired: false,
            eof: false,
            failure: None,
            media: 0,
            left: 0,
            whole_at: None,
            leaving: false,
            key_frames: 0,
            stops: false,
            own: None,
        }
    }

    /// Takes bytes that were read before the switch. Everything of them leaves at once.
    pub(super) fn feed(&mut self, rest: &[u8], filter: &mut dyn Filter) {
        // What precedes the first read is rare and short: it goes through the patched queue, so that it needs no buffer.
        let mut out = Outgoing::default();
        let result = self.joiner.advance(rest, filter, &mut out);
        let taken = *result.as_ref().unwrap_or(&rest.len());
        self.failure = result.err();
        self.patched.extend_from_slice(&rest[..out.pass]);
        self.patched.append(&mut out.patched);
        self.differs = true;
        self.leaves_whole = self.joiner.at_message_boundary();
        let header = &rest[taken..];
        self.stashed = header.len().min(MAX_HEADER);
        self.stash[..self.stashed].copy_from_slice(&header[..self.stashed]);
    }

    /// Ends the direction with messages of our own, (csid, type, message stream id, payload) each: what is held is dropped, and they
    /// go behind the last whole message. `false`, and nothing said, where a message is half-sent.
    pub(super) fn conclude(&mut self, messages: &[(u32, u8, u32, &[u8])]) -> bool {
        if !self.leaves_whole {
            return false;
        }
        if !self.differs {
            (self.scanned, self.end, self.differs) = (self.leave, self.leave, true);
        }
        for (csid, kind, stream_id, payload) in messages {
            self.joiner.inject(&mut self.patched, *csid, *kind, *stream_id, payload);
        }
        true
    }

    /// Says a message of our own as soon as no other is in progress. One at a time: a second takes the place of one that still waits.
    pub(super) fn say(&mut self, kind: u8, stream_id: u32, payload: Vec<u8>) {
        self.own = Some(Box::new(Own { kind, stream_id, payload }));
    }

    /// From now on it ends before the next key frame, with [`JoinError::KeyFrame`]. `false` where there is no video.
    pub(super) fn stop_at_key_frame(&mut self) -> bool {
        self.stops = self.joiner.has_video();
        self.stops
    }

    /// Puts the message of our own behind what has left, where that is possible now.
    fn interject(&mut self) -> bool {
        let at_rest = self.leave == self.scanned && !self.differs && self.joiner.at_message_boundary();
        let Some(Own { kind, stream_id, payload }) = self.own.take_if(|_| at_rest).map(|own| *own) else { return false };
        self.joiner.inject(&mut self.patched, OWN_CSID, kind, stream_id, &payload);
        (self.differs, self.leaves_whole) = (true, true);
        true
    }

    /// Passes bytes on until nothing more can be done now. Ready with `Ok` once the source has ended and all of it has left.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, ends: &mut Ends<'_>) -> Poll<Result<(), FlowError>> {
        if ends.outlet.place.seat.take_expired(self.direction) {
            self.expired = true;
            if !self.differs && self.leave < self.scanned {
                self.leave = self.scanned;
                self.leaves_whole = false;
                self.leaving = true;
            }
        }
        loop {
            ready!(self.poll_leave(cx, &mut ends.outlet)).map_err(FlowError::Write)?;
            if let Some(e) = self.failure {
                return Poll::Ready(Err(e.into()));
            }
            if self.own.is_some() && self.interject() {
                continue;
            }
            if self.eof {
                self.buffer = None;
                (self.start, self.leave, self.scanned, self.end) = (0, 0, 0, 0);
                return Poll::Ready(Ok(()));
            }
            match self.poll_read(cx, ends) {
                Poll::Ready(Ok(())) => self.scan(ends),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(FlowError::Read(e))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sends what may leave, without reading. Ready when it has left.
    pub(super) fn poll_leave(&mut self, cx: &mut Context<'_>, outlet: &mut Outlet<'_>) -> Poll<io::Result<()>> {
        while let Some(piece) = piece(&self.buffer, self.start, self.leave, &self.patched[self.patched_sent..]) {
            let result = Pin::new(&mut *outlet.stream).poll_write(cx, piece);
            outlet.place.seat.set_blocked(self.direction, result.is_pending(), Instant::now);
            let sent = ready!(result)?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            outlet.traffic.writes.add(1);
            outlet.traffic.bytes.add(sent as u64);
            outlet.total.add(sent as u64);
            if self.start < self.leave {
                self.start += sent;
            } else {
                self.patched_sent += sent;
            }
        }
        let flushed = Pin::new(&mut *outlet.stream).poll_flush(cx);
        if flushed.is_pending() {
            outlet.place.seat.set_blocked(self.direction, true, Instant::now);
        }
        ready!(flushed)?;
        if self.differs {
            (self.patched, self.patched_sent, self.differs) = (Vec::new(), 0, false);
            (self.start, self.leave) = (self.scanned, self.scanned);
        }
        if std::mem::take(&mut self.leaving)
            && let Some(since) = self.whole_at.take()
        {
            outlet.total.left_after(since.elapsed(), self.media - self.left);
            self.left = self.media;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, ends: &mut Ends<'_>) -> Poll<io::Result<()>> {
        if self.drained {
            self.set_mark(ends)?;
        }
        self.make_room(ends);
        let Some(buffer) = &mut self.buffer else { return Poll::Pending };
        let mut room = ReadBuf::new(&mut buffer[self.end..self.capacity]);
        let size = room.remaining();
        let result = Pin::new(&mut *ends.source).poll_read(cx, &mut room);
        let read = room.filled().len();
        match result {
            Poll::Ready(Ok(())) if read == 0 => self.eof = true,
            Poll::Ready(Ok(())) => {
                self.drained = read < size && ends.source.drained();
                self.end += read;
                ends.outlet.traffic.reads.add(1);
                let now = Instant::now();
                ends.outlet.place.seat.touch(self.direction, now);
                ends.outlet.place.cell.touch(now);
                if self.direction == Direction::Up {
                    ends.outlet.place.cell.hear(now);
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if !self.drained {
                    // Only now is it known that there is no more.
                    self.drained = true;
                    self.set_mark(ends)?;
                }
                self.give_back();
            }
        }
        result
    }

    /// Asks the kernel to wake us when the message in progress is whole, and the wheel to wake us if that takes too long.
    fn set_mark(&mut self, ends: &mut Ends<'_>) -> io::Result<()> {
        let missing = if ends.outlet.place.worker.wheel.holds() && !self.expired { self.joiner.missing() } else { 0 };
        let mark = u32::try_from(ends.source.wire_bytes_for(missing)).unwrap_or(u32::MAX).clamp(1, self.max_mark);
        if mark != self.mark {
            set_receive_low_water(ends.source.tcp().as_fd(), mark)?;
            self.mark = mark;
        }
        if missing > 0 || self.leave < self.scanned {
            ends.outlet.place.worker.wheel.hold(&ends.outlet.place.seat, self.direction, Instant::now());
        } else {
            ends.outlet.place.seat.release(self.direction);
        }
        Ok(())
    }

    /// Makes sure of a buffer with room for what the message in progress lacks.
    fn make_room(&mut self, ends: &Ends<'_>) {
        let buffer = self.buffer.get_or_insert_with(|| {
            let mut buffer = ends.outlet.place.worker.pool.lend(self.capacity);
            buffer[..self.stashed].copy_from_slice(&self.stash[..self.stashed]);
            self.end = self.stashed;
            (self.start, self.leave, self.scanned, self.stashed) = (0, 0, 0, 0);
            buffer
        });
        if self.start == 0 {
            return;
        }
        let wanted = usize::try_from(self.joiner.missing()).unwrap_or(usize::MAX).saturating_add(MAX_HEADER);
        if self.capacity - self.end < wanted.max(self.capacity / 2) {
            buffer.copy_within(self.start..self.end, 0);
            self.leave -= self.start;
            self.scanned -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Gives the buffer back when no byte needs it.
    fn give_back(&mut self) {
        if self.start == self.scanned
            && self.end - self.scanned <= MAX_HEADER
            && let Some(buffer) = self.buffer.take()
        {
            self.stashed = self.end - self.scanned;
            self.stash[..self.stashed].copy_from_slice(&buffer[self.scanned..self.end]);
            (self.start, self.leave, self.scanned, self.end) = (0, 0, 0, 0);
        }
    }

    /// Follows what was read and decides how much of it may leave.
    fn scan(&mut self, ends: &mut Ends<'_>) {
        let Some(buffer) = &self.buffer else { return };
        if self.eof {
            if self.direction == Direction::Up {
                // What will never be whole still belongs to the stream.
                (self.leave, self.scanned) = (self.end, self.end);
            }
            // A client is told why its stream ends, which must not stand inside a message: what is held of one stays here.
            return;
        }
        let mut out = Outgoing::default();
        if self.stops {
            self.joiner.stop_at_key_frame(self.leaves_whole);
        }
        let result = self.joiner.advance(&buffer[self.scanned..self.end], ends.filter, &mut out);
        if self.joiner.media() > self.media {
            ends.outlet.traffic.messages.add(self.joiner.media() - self.media);
            self.media = self.joiner.media();
            self.whole_at.get_or_insert_with(|| ends.outlet.place.seat.active(self.direction));
        }
        if self.joiner.key_frames() > self.key_frames {
            self.key_frames = self.joiner.key_frames();
            ends.outlet.place.seat.key_frame(self.direction);
        }
        // Without a boundary in what was read, whatever was held before stays held.
        let whole = if out.whole > 0 { self.scanned + out.whole } else { self.leave };
        let pass = self.scanned + out.pass;
        if out.whole > 0 {
            // A message that began behind one that is whole now has a deadline of its own.
            ends.outlet.place.seat.release(self.direction);
        }
        let taken = *result.as_ref().unwrap_or(&out.pass);
        self.failure = result.err();
        self.scanned += taken;
        if pass < self.scanned || !out.patched.is_empty() {
            self.leave = pass;
            self.patched = out.patched;
            self.differs = true;
            self.leaves_whole = self.joiner.at_message_boundary();
        } else if self.failure == Some(JoinError::KeyFrame) && taken == 0 {
            // Its header, which came before it, stays here with it.
        } else if self.must_leave(whole, ends) {
            self.leave = self.scanned;
            self.leaves_whole = self.joiner.at_message_boundary();
        } else {
            self.leaves_whole |= out.whole > 0;
            self.leave = whole;
        }
        // One that is whole inside another that is not waits for it.
        self.leaving = self.differs || out.whole > 0 || self.leave == self.scanned;
        self.expired = false;
    }

    /// Whether a message that is not whole leaves all the same.
    fn must_leave(&self, whole: usize, ends: &Ends<'_>) -> bool {
        if whole == self.scanned {
            return true;
        }
        let held = self.end - whole.max(self.start);
        let missing = usize::try_from(self.joiner.missing()).unwrap_or(usize::MAX);
        self.expired
            || self.end == self.capacity
            || !ends.outlet.place.worker.wheel.holds()
            || self.failure.is_some()
            || held.saturating_add(missing).saturating_add(MAX_HEADER) > self.capacity
            || missing > self.max_mark as usize
            || !ends.outlet.place.worker.pool.stats().may_hold()
    }
}

/// What is to be sent next.
fn piece<'a>(buffer: &'a Option<Buffer>, start: usize, leave: usize, patched: &'a [u8]) -> Option<&'a [u8]> {
    match buffer {
        Some(buffer) if start < leave => Some(&buffer[start..leave]),
        _ => (!patched.is_empty()).then_some(patched),
    }
}
