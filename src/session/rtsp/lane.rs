//! One direction of an RTSP session: interleaved frames pass as they are, several in one send; messages are taken out and handed over.
//!
//! A frame says how long it is, so the kernel is asked for all of it at once (`SO_RCVLOWAT`); the packets of one picture leave
//! together when the last of them, which has the marker bit, is there, or at the hold deadline.
//!
//! Invariants: nothing is read while the sink does not take what may leave. A buffer is lent only while bytes are in hand. What the
//! relay says itself stands between two frames.
//!
//! ```text
//!   0 ... start ......... leave ......... scanned ......... end ... capacity
//!         | may leave now | held, or cut  | cannot be told yet |
//! ```

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::protocol::rtsp::framing::{Channels, Framer, FramingError, MAX_LEFT, Piece};
use crate::protocol::rtsp::message::Message;
use crate::session::buffer::Buffer;
use crate::session::life::Place;
use crate::session::seat::Direction;
use crate::session::sockopt::set_receive_low_water;
use crate::telemetry::{Total, Traffic};
use crate::tls::Stream;

/// So many pictures in a row whose end came after the hold deadline, and the sender is no longer waited for.
const LATE: u8 = 3;

/// Why a direction stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// The source failed.
    #[error("reading: {0}")]
    Read(io::Error),
    /// The sink failed.
    #[error("writing: {0}")]
    Write(io::Error),
    /// The source broke the protocol.
    #[error(transparent)]
    Framing(#[from] FramingError),
}

/// What a direction came upon.
#[derive(Debug)]
pub(super) enum Step {
    /// A message; it does not pass by itself.
    Message(Box<Message>),
    /// The source has ended, and all of it has left.
    Ended,
}

/// What a lane works on, for one poll.
pub(super) struct Ends<'a> {
    pub(super) source: &'a mut Stream,
    pub(super) sink: &'a mut Stream,
    pub(super) channels: &'a Channels,
    pub(super) place: &'a Place,
    pub(super) traffic: &'a Traffic,
    /// The worker's counts of this direction.
    pub(super) total: &'a Total,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    direction: Direction,
    framer: Framer,
    /// Read before the lane began.
    first: Vec<u8>,
    buffer: Option<Buffer>,
    start: usize,
    leave: usize,
    scanned: usize,
    end: usize,
    /// What stands between `leave` and `scanned` belongs to messages and goes nowhere.
    cut: bool,
    /// What may leave ends at the end of a frame.
    whole: bool,
    /// What the relay says itself, to go at the next such end.
    own: Vec<u8>,
    own_sent: usize,
    /// The start of a frame, kept while no buffer is lent.
    stash: [u8; MAX_LEFT],
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
    /// Pictures in a row that were late.
    late: u8,
    eof: bool,
    failure: Option<FramingError>,
    /// Frames that have come whole, and those of them that have left.
    frames: u64,
    left: u64,
    /// When the first of the difference became whole.
    whole_at: Option<Instant>,
    /// They may leave.
    leaving: bool,
}

impl Lane {
    /// A lane that goes on from `framer`; `first` was read before, and not followed. `capacity` and `max_mark` in bytes.
    pub(super) fn new(direction: Direction, framer: Framer, first: Vec<u8>, capacity: usize, max_mark: u32) -> Self {
        Self {
            direction,
            framer,
            first,
            buffer: None,
            start: 0,
            leave: 0,
            scanned: 0,
            end: 0,
            cut: false,
            whole: true,
            own: Vec::new(),
            own_sent: 0,
            stash: [0; MAX_LEFT],
            stashed: 0,
            mark: 1,
            max_mark,
            capacity,
            drained: false,
            expired: false,
            late: 0,
            eof: false,
            failure: None,
            frames: 0,
            left: 0,
            whole_at: None,
            leaving: false,
        }
    }

    /// Says something of the relay's own towards the sink, as soon as no frame is half-sent.
    pub(super) fn say(&mut self, bytes: Vec<u8>) {
        if self.own.is_empty() { self.own = bytes } else { self.own.extend_from_slice(&bytes) }
    }

    /// Bytes of the relay's own that have not left.
    pub(super) fn unsaid(&self) -> usize {
        self.own.len() - self.own_sent
    }

    /// Passes bytes on until there is a message, or nothing more can be done now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, ends: &mut Ends<'_>) -> Poll<Result<Step, LaneError>> {
        if ends.place.seat.take_expired(self.direction) {
            self.expire();
        }
        loop {
            ready!(self.poll_leave(cx, ends)).map_err(LaneError::Write)?;
            if let Some(e) = self.failure {
                return Poll::Ready(Err(e.into()));
            }
            let before = self.scanned;
            if let Some(message) = self.scan(ends) {
                return Poll::Ready(Ok(Step::Message(message)));
            }
            if self.scanned > before || self.failure.is_some() {
                continue;
            }
            if self.eof {
                self.buffer = None;
                (self.start, self.leave, self.scanned, self.end) = (0, 0, 0, 0);
                return Poll::Ready(Ok(Step::Ended));
            }
            ready!(self.poll_read(cx, ends)).map_err(LaneError::Read)?;
        }
    }

    /// What was held for too long leaves as it is.
    fn expire(&mut self) {
        self.expired = true;
        if self.cut || self.leave == self.scanned {
            return;
        }
        self.leave = self.scanned;
        self.leaving = true;
        self.whole = self.framer.at_boundary();
        if self.whole && self.framer.in_picture() {
            self.late += 1;
            if self.late >= LATE {
                self.framer.distrust_markers();
            }
        }
    }

    /// Sends what may leave, without reading. Ready when it has left.
    pub(super) fn poll_leave(&mut self, cx: &mut Context<'_>, ends: &mut Ends<'_>) -> Poll<io::Result<()>> {
        loop {
            let of_own = self.own_sent > 0 || self.start == self.leave && self.whole;
            let piece = match &self.buffer {
                _ if of_own => &self.own[self.own_sent..],
                Some(buffer) => &buffer[self.start..self.leave],
                None => &[],
            };
            if piece.is_empty() {
                break;
            }
            let result = Pin::new(&mut *ends.sink).poll_write(cx, piece);
            ends.place.seat.set_blocked(self.direction, result.is_pending(), Instant::now);
            let sent = ready!(result)?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            ends.traffic.writes.add(1);
            ends.traffic.bytes.add(sent as u64);
            ends.total.add(sent as u64);
            if of_own {
                self.own_sent += sent;
            } else {
                self.start += sent;
            }
            if self.own_sent == self.own.len() {
                (self.own, self.own_sent) = (Vec::new(), 0);
            }
        }
        if self.cut {
            (self.start, self.leave, self.cut) = (self.scanned, self.scanned, false);
        }
        let flushed = Pin::new(&mut *ends.sink).poll_flush(cx);
        if flushed.is_pending() {
            ends.place.seat.set_blocked(self.direction, true, Instant::now);
        }
        ready!(flushed)?;
        if std::mem::take(&mut self.leaving)
            && let Some(since) = self.whole_at.take()
        {
            ends.total.left_after(since.elapsed(), self.frames - self.left);
            self.left = self.frames;
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
        if !self.first.is_empty() {
            let take = self.first.len().min(room.remaining());
            room.put_slice(&self.first[..take]);
            self.first.drain(..take);
            self.end += take;
            return Poll::Ready(Ok(()));
        }
        let size = room.remaining();
        let result = Pin::new(&mut *ends.source).poll_read(cx, &mut room);
        let read = room.filled().len();
        match result {
            Poll::Ready(Ok(())) if read == 0 => {
                self.eof = true;
                if !self.cut && self.leave < self.scanned {
                    // What will never be whole still belongs to the stream.
                    self.leave = self.scanned;
                    self.whole = self.framer.at_boundary();
                }
            }
            Poll::Ready(Ok(())) => {
                self.drained = read < size && ends.source.drained();
                self.end += read;
                ends.traffic.reads.add(1);
                let now = Instant::now();
                // RTSP has life in either direction: reports of receivers, keep-alives, media.
                ends.place.seat.touch(Direction::Up, now);
                ends.place.seat.touch(Direction::Down, now);
                ends.place.cell.touch(now);
                if self.direction == Direction::Up {
                    ends.place.cell.hear(now);
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

    /// Asks the kernel to wake us when the frame in progress is whole, and the wheel to wake us if that, or the rest of a picture, takes
    /// too long.
    fn set_mark(&mut self, ends: &mut Ends<'_>) -> io::Result<()> {
        let missing = if ends.place.worker.wheel.holds() && !self.expired { self.framer.missing() as u64 } else { 0 };
        let mark = u32::try_from(ends.source.wire_bytes_for(missing)).unwrap_or(u32::MAX).clamp(1, self.max_mark);
        if mark != self.mark {
            set_receive_low_water(ends.source.tcp().as_fd(), mark)?;
            self.mark = mark;
        }
        if missing > 0 || self.leave < self.scanned {
            ends.place.worker.wheel.hold(&ends.place.seat, self.direction, Instant::now());
        } else {
            ends.place.seat.release(self.direction);
        }
        Ok(())
    }

    /// Makes sure of a buffer with room for what the frame in progress lacks.
    fn make_room(&mut self, ends: &Ends<'_>) {
        let buffer = self.buffer.get_or_insert_with(|| {
            let mut buffer = ends.place.worker.pool.lend(self.capacity);
            buffer[..self.stashed].copy_from_slice(&self.stash[..self.stashed]);
            self.end = self.stashed;
            (self.start, self.leave, self.scanned, self.stashed) = (0, 0, 0, 0);
            buffer
        });
        let wanted = self.framer.missing() + MAX_LEFT;
        if self.start > 0 && self.capacity - self.end < wanted.max(self.capacity / 2) {
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
            && self.end - self.scanned <= MAX_LEFT
            && let Some(buffer) = self.buffer.take()
        {
            self.stashed = self.end - self.scanned;
            self.stash[..self.stashed].copy_from_slice(&buffer[self.scanned..self.end]);
            (self.start, self.leave, self.scanned, self.end) = (0, 0, 0, 0);
        }
    }

    /// Follows what was read, up to the next message at most, and decides how much of it may leave.
    fn scan(&mut self, ends: &mut Ends<'_>) -> Option<Box<Message>> {
        let buffer = self.buffer.as_ref()?;
        let piece = self.framer.next(&buffer[self.scanned..self.end], ends.channels);
        if self.framer.frames() > self.frames {
            ends.traffic.messages.add(self.framer.frames() - self.frames);
            self.frames = self.framer.frames();
            self.whole_at.get_or_insert_with(|| ends.place.seat.active(self.direction));
        }
        match piece {
            Ok(Piece::Nothing) => None,
            Ok(Piece::Frames { len, settled, .. }) => {
                self.follow(len, settled, ends);
                None
            }
            Ok(Piece::Taken { len }) => {
                self.cut_out(len);
                None
            }
            Ok(Piece::Message { len, message }) => {
                self.cut_out(len);
                Some(message)
            }
            Err(e) => {
                // What came before it is in order.
                self.cut_out(0);
                self.failure = Some(e);
                None
            }
        }
    }

    /// What was held leaves; the `len` bytes behind it do not.
    fn cut_out(&mut self, len: usize) {
        (self.leave, self.whole, self.cut, self.leaving) = (self.scanned, true, true, true);
        self.scanned += len;
    }

    fn follow(&mut self, len: usize, settled: usize, ends: &Ends<'_>) {
        self.leaving = settled > 0;
        let settled = if settled > 0 { self.scanned + settled } else { self.leave };
        self.scanned += len;
        if settled > self.leave {
            // What began behind a whole picture has a deadline of its own.
            ends.place.seat.release(self.direction);
            if !self.expired {
                self.late = 0;
            }
        }
        if self.must_leave(settled, ends) {
            (self.leave, self.leaving) = (self.scanned, true);
            self.whole = self.framer.at_boundary();
        } else {
            self.whole |= settled > self.leave;
            self.leave = settled;
        }
        self.expired = false;
    }

    /// Whether what is not whole leaves all the same.
    fn must_leave(&self, settled: usize, ends: &Ends<'_>) -> bool {
        if settled == self.scanned {
            return true;
        }
        let held = self.end - settled.max(self.start);
        let missing = self.framer.missing();
        self.expired
            || self.end == self.capacity
            || !ends.place.worker.wheel.holds()
            || held.saturating_add(missing).saturating_add(MAX_LEFT) > self.capacity
            || missing > self.max_mark as usize
            || !ends.place.worker.pool.stats().may_hold()
    }
}
