//! Pure: lets an output begin, or go on after a change, in the middle of someone else's chunk stream.
//!
//! Bytes pass as they are wherever the receiver understands them as the sender meant them. Where it would not, because it never
//! saw the header that a later one refers to, or saw another, the header is written anew: the absolute timestamp as format 0, or the
//! explicit delta as format 1 or 2. A chunk stream is *clean* again once the sender itself starts a message on it with a header
//! that means the same to both. Payloads of media are never looked at, let alone re-chunked.
//!
//! Commands, Set Chunk Size and window sizes are withheld until they are whole and shown to a [`Filter`]; other messages overtake nothing:
//! a withheld message is written where its last byte stood.
//!
//! Invariant: the chunk size towards the receiver is the sender's, up to [`MAX_FORWARD_CHUNK`]. Only a stream of small messages can be
//! cut anew instead ([`Joiner::cut_anew`]), so that its receiver hears nothing of another sender's chunk size.

mod withheld;

pub(super) use withheld::clamped_chunk_size;

use super::chunk::{MAX_PARTIAL, Seen, Written, write_continuation, write_header, write_payload};
use super::command::kind;
use super::keep::Keep;
use super::tracker::{ChunkError, Header, Limits, Step, Tracker};

/// Largest chunk size that is passed on; nginx-rtmp ignores a larger one and loses its place. A longer message then ends the
/// session by name.
pub const MAX_FORWARD_CHUNK: u32 = 10_485_760;
/// Longest command or control message while media flows.
pub const MAX_WITHHELD: u32 = 64 * 1024;
/// Milliseconds of stream that are left out at most while a key frame is waited for: encoders that refresh pictures bit by bit send none.
pub const MAX_AWAITED: u32 = 20_000;
/// Chunk stream for messages of our own: no client or server uses it, and all tried ones read it.
pub const OWN_CSID: u32 = 31;

/// What becomes of a withheld message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It goes on with this payload.
    Replace(Vec<u8>),
    /// The receiver never hears of it.
    Drop,
    /// The session ends here; the filter knows why.
    End,
}

/// Judges commands and control messages on their way.
pub trait Filter {
    /// A whole message.
    fn message(&mut self, header: &Header, payload: &[u8]) -> Verdict;
}

/// Why a stream cannot be passed on further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The sender broke the chunk stream.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A command longer than [`MAX_WITHHELD`].
    #[error("a command of {0} bytes is longer than the 65536 allowed")]
    LongCommand(u32),
    /// A message that would need a larger chunk than the receiver was told of.
    #[error("a message of {0} bytes in chunks above 10485760 bytes cannot be passed on")]
    LongChunk(u32),
    /// The filter said so.
    #[error("ended by the filter")]
    Ended,
    /// A key frame begins, of which nothing has been passed on; see [`Joiner::stop_at_key_frame`].
    #[error("ended before a key frame")]
    KeyFrame,
}

/// What [`Joiner::advance`] makes of its input: `pass` bytes of it as they are, then `patched`.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Leading bytes of the input that pass.
    pub pass: usize,
    /// Of these, how many end at a message boundary, where nothing is left half-sent.
    pub whole: usize,
    /// What follows them, where the output differs from the input.
    pub patched: Vec<u8>,
    diverged: bool,
}

impl Outgoing {
    fn put(&mut self, input: &[u8], from: usize, to: usize) {
        if self.diverged {
            self.patched.extend_from_slice(&input[from..to]);
        } else {
            self.pass = to;
        }
    }

    fn differ(&mut self) -> &mut Vec<u8> {
        self.diverged = true;
        &mut self.patched
    }
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Verbatim,
    /// The header was written anew; continuation chunks carry this extended timestamp, or none.
    Promoted(Option<u32>),
    Withheld,
    /// The receiver never hears of it.
    Skipped,
}

#[derive(Debug)]
struct Lane {
    seen: Option<Seen>,
    clean: bool,
    mode: Mode,
}

/// Message stream ids: what the sender says and what the receiver knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamIds {
    /// The sender's.
    pub from: u32,
    /// The receiver's.
    pub to: u32,
}

/// How to go on in the middle: the sender's state, and what the receiver has seen so far.
#[derive(Debug)]
pub struct Start {
    /// The sender's chunk stream, and its unfinished messages with what has come of them; one that is missing there is not
    /// passed on.
    pub sender: (Tracker, Vec<(usize, Vec<u8>)>),
    /// The last header on each chunk stream that the receiver has had.
    pub seen: Vec<Seen>,
    /// The chunk size that the receiver expects.
    pub chunk_size: u32,
    /// Message stream ids, where they differ.
    pub stream_ids: StreamIds,
}

/// See the module.
#[derive(Debug)]
pub struct Joiner {
    tracker: Tracker,
    lanes: Vec<Lane>,
    /// What the receiver knows of chunk streams that the sender has not used since.
    seen: Vec<Seen>,
    withheld: Vec<(usize, Vec<u8>)>,
    stream_ids: Option<StreamIds>,
    chunk_size: u32,
    media: u64,
    key_frames: u64,
    keep: Option<Box<Keep>>,
    /// Media is left out until a message comes that the stream can begin with; then since which timestamp, once that is known.
    awaits_begin: bool,
    awaits_since: Option<u32>,
    cuts_anew: bool,
    /// Most bytes of withheld messages, and of one that the stream might begin with.
    max_partial: usize,
    /// The next key frame is the end; whether of what was followed before, the half of a message may still be kept back.
    stops: Option<bool>,
}

/// What is left of a sender when its receiver is gone.
#[derive(Debug)]
pub struct Sender {
    /// Its chunk stream, and the unfinished messages of which the receiver had nothing.
    pub sender: (Tracker, Vec<(usize, Vec<u8>)>),
    /// What is kept of the stream, where anything was to be.
    pub keep: Option<Box<Keep>>,
}

impl Joiner {
    /// Goes on from `start`.
    pub fn new(start: Start) -> Self {
        let Start { sender: (mut tracker, withheld), seen, chunk_size, stream_ids } = start;
        tracker.set_limits(Limits::MEDIA);
        let mut joiner = Self {
            tracker,
            lanes: Vec::new(),
            seen,
            stream_ids: (stream_ids.from != stream_ids.to).then_some(stream_ids),
            chunk_size,
            media: 0,
            key_frames: 0,
            withheld: Vec::new(),
            keep: None,
            awaits_begin: false,
            awaits_since: None,
            cuts_anew: false,
            max_partial: MAX_PARTIAL,
            stops: None,
        };
        let unfinished: Vec<usize> = joiner.tracker.unfinished().map(|(slot, _)| slot).collect();
        for slot in unfinished {
            joiner.lane(slot).mode = Mode::Skipped;
        }
        for (slot, payload) in withheld {
            joiner.lane(slot).mode = Mode::Withheld;
            joiner.withheld.push((slot, payload));
        }
        joiner
    }

    /// From now on what lasts is kept, so that another receiver can be found in the place of this one.
    pub fn keep(&mut self, keep: Box<Keep>) {
        self.keep = Some(keep);
    }

    /// The receiver has been told what is kept, and no media yet, unless `begun`: then media is left out until a message comes that
    /// the stream can begin with, or for [`MAX_AWAITED`]. A message of up to `longest` bytes may be in hand for it.
    pub fn resume(&mut self, begun: bool, longest: usize) {
        (self.awaits_begin, self.awaits_since) = (!begun, None);
        self.max_partial = MAX_PARTIAL.saturating_add(longest);
    }

    /// All messages, of at most [`MAX_WITHHELD`] bytes each, are joined and cut anew to the chunk size that the receiver knows; it
    /// hears nothing of the sender's.
    pub fn cut_anew(&mut self) {
        self.cuts_anew = true;
    }

    /// Whether video has passed or passes.
    pub fn has_video(&self) -> bool {
        (0..self.lanes.len()).any(|slot| self.tracker.header(slot).kind == kind::VIDEO)
    }

    /// From now on the output ends before the next key frame, with [`JoinError::KeyFrame`]. To be said again before each
    /// [`Self::advance`]: `unsent`, whether of a message in progress nothing has left. One that is half-sent already, or begins inside
    /// another, is let through, and the next one is waited for.
    pub fn stop_at_key_frame(&mut self, unsent: bool) {
        self.stops = Some(unsent);
    }

    /// What is kept, where anything was to be.
    pub fn kept(&self) -> Option<&Keep> {
        self.keep.as_deref()
    }

    /// The chunk size that the receiver expects, bytes.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Lets go of the receiver.
    pub fn into_sender(self) -> Sender {
        let Self { tracker, mut withheld, mut keep, .. } = self;
        withheld.extend(keep.iter_mut().flat_map(|keep| keep.take_unfinished()));
        withheld.retain(|(slot, _)| tracker.unfinished().any(|(i, _)| i == *slot));
        // All that matters of these is still to come, whatever the receiver had heard of their headers.
        for slot in tracker.only_headed() {
            if withheld.iter().all(|(s, _)| *s != slot) {
                withheld.push((slot, Vec::new()));
            }
        }
        Sender { sender: (tracker, withheld), keep }
    }

    /// Audio, video and data messages that have passed whole.
    pub fn media(&self) -> u64 {
        self.media
    }

    /// Key frames of video that have begun to pass.
    pub fn key_frames(&self) -> u64 {
        self.key_frames
    }

    /// Wire bytes until the messages in progress are whole; 0 at a boundary.
    pub fn missing(&self) -> u64 {
        self.tracker.missing()
    }

    /// Whether a message of our own may be placed here.
    pub fn at_chunk_boundary(&self) -> bool {
        !self.tracker.in_chunk()
    }

    /// Whether no message is half-sent. Of one that is withheld nothing has been.
    pub fn at_message_boundary(&self) -> bool {
        let unsent = |lane: &Lane| matches!(lane.mode, Mode::Withheld | Mode::Skipped);
        self.tracker.unfinished().all(|(slot, _)| self.lanes.get(slot).is_some_and(unsent))
    }

    /// Follows `input` and says in `out` (which must be new) what goes on in its place. Returns how many bytes were taken; the
    /// rest, at most 17, is a header that is not whole.
    ///
    /// # Errors
    /// [`JoinError`]; what `out` holds by then may still be sent.
    pub fn advance(&mut self, input: &[u8], filter: &mut dyn Filter, out: &mut Outgoing) -> Result<usize, JoinError> {
        let mut at = 0;
        loop {
            match self.tracker.next(&input[at..])? {
                Step::NeedMore => return Ok(at),
                Step::Header { slot, length, first } => {
                    if first && self.stops.is_some() {
                        self.stop(slot, input.get(at + length))?;
                    }
                    if first {
                        self.start(slot, &input[..at + length], at, out)?;
                    } else {
                        self.go_on(slot, &input[..at + length], at, out);
                    }
                    at += length;
                }
                Step::Payload { slot, length, front, last } => {
                    if front && at == 0 && self.stops == Some(true) && matches!(self.lane(slot).mode, Mode::Verbatim) {
                        // Its header came with an earlier read, and was kept back.
                        self.stop(slot, input.first())?;
                    }
                    if front && self.tracker.header(slot).kind == kind::VIDEO {
                        self.key_frames += u64::from(input[at..at + length].first().is_some_and(is_key_frame));
                    }
                    match self.lane(slot).mode {
                        Mode::Withheld => self.collect(slot, &input[at..at + length], last, filter, out)?,
                        Mode::Skipped => drop(out.differ()),
                        Mode::Verbatim | Mode::Promoted(_) => {
                            let header = self.tracker.header(slot);
                            if let Some(keep) = &mut self.keep {
                                keep.passes(slot, header, &input[at..at + length], front, last);
                            }
                            out.put(input, at, at + length);
                            self.media += u64::from(last && is_media(header.kind));
                        }
                    }
                    at += length;
                    if last && self.tracker.open() == 0 && !out.diverged {
                        out.whole = out.pass;
                    }
                }
            }
        }
    }

    /// Appends a message of our own. Only at a chunk boundary, see [`Self::at_chunk_boundary`].
    pub fn inject(&mut self, out: &mut Vec<u8>, csid: u32, kind: u8, stream_id: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let seen = Seen { csid, timestamp: 0, length, kind, stream_id };
        let written = Written { fmt: 0, time: 0, seen };
        write_header(out, &written);
        write_payload(out, &written, self.chunk_size, payload);
        // Whoever uses the chunk stream next must not lean on what was there before.
        for (slot, lane) in self.lanes.iter_mut().enumerate() {
            if self.tracker.header(slot).csid == csid {
                lane.seen = Some(seen);
                lane.clean = false;
            }
        }
        self.seen.retain(|s| s.csid != csid);
        self.seen.push(seen);
    }

    /// Ends before the message on `slot`, which begins with the byte `first`, if that is a key frame and no other message is half-sent.
    fn stop(&mut self, slot: usize, first: Option<&u8>) -> Result<(), JoinError> {
        let Header { kind, length, .. } = *self.tracker.header(slot);
        let begins = kind == kind::VIDEO && length > 0 && first.is_some_and(is_key_frame);
        let mode = std::mem::replace(&mut self.lane(slot).mode, Mode::Skipped);
        if begins && self.at_message_boundary() {
            return Err(JoinError::KeyFrame);
        }
        self.lane(slot).mode = mode;
        Ok(())
    }

    fn lane(&mut self, slot: usize) -> &mut Lane {
        while self.lanes.len() <= slot {
            let csid = self.tracker.header(self.lanes.len()).csid;
            let seen = self.seen.iter().find(|s| s.csid == csid).copied();
            self.lanes.push(Lane { seen, clean: false, mode: Mode::Verbatim });
        }
        &mut self.lanes[slot]
    }

    fn mapped(&self, stream_id: u32) -> u32 {
        match self.stream_ids {
            Some(StreamIds { from, to }) if from == stream_id => to,
            _ => stream_id,
        }
    }

    fn start(&mut self, slot: usize, input: &[u8], at: usize, out: &mut Outgoing) -> Result<(), JoinError> {
        let header = *self.tracker.header(slot);
        if self.is_withheld(header.kind) {
            if self.may_begin_with(header.kind) && header.length as usize > self.max_partial {
                self.lane(slot).mode = Mode::Skipped;
                self.lane(slot).clean = false;
                out.differ();
                return Ok(());
            }
            self.lane(slot).mode = Mode::Withheld;
            if header.length > MAX_WITHHELD && !self.may_begin_with(header.kind) {
                return Err(JoinError::LongCommand(header.length));
            }
            self.withheld.retain(|(s, _)| *s != slot);
            self.withheld.push((slot, Vec::new()));
            out.differ();
            return Ok(());
        }
        if header.length > MAX_FORWARD_CHUNK && self.tracker.chunk_size() > MAX_FORWARD_CHUNK {
            return Err(JoinError::LongChunk(header.length));
        }
        match self.plan(slot, header.length) {
            None => {
                self.lane(slot).mode = Mode::Verbatim;
                out.put(input, at, input.len());
            }
            Some(written) => {
                // A format 0 header with another stream id is the only one that leaves the receiver knowing all.
                self.lane(slot).mode = Mode::Promoted(written.extended().then_some(written.time));
                write_header(out.differ(), &written);
            }
        }
        Ok(())
    }

    fn go_on(&mut self, slot: usize, input: &[u8], at: usize, out: &mut Outgoing) {
        match self.lane(slot).mode {
            Mode::Verbatim => out.put(input, at, input.len()),
            Mode::Promoted(extended) => {
                let csid = self.tracker.header(slot).csid;
                write_continuation(out.differ(), csid, extended);
            }
            Mode::Withheld | Mode::Skipped => {
                out.differ();
            }
        }
    }

    fn is_withheld(&self, kind: u8) -> bool {
        matches!(kind, kind::COMMAND | kind::COMMAND_AMF3 | kind::SET_CHUNK_SIZE | kind::WINDOW_ACK_SIZE)
            || (kind == kind::USER_CONTROL && self.stream_ids.is_some())
            || self.cuts_anew
            || self.may_begin_with(kind)
    }

    /// Whether such a message is waited for.
    fn may_begin_with(&self, kind: u8) -> bool {
        self.awaits_begin && is_media(kind)
    }

    /// Decides how the message that just started on `slot` is headed, when its payload is `length` bytes long: `None` as the
    /// sender did. Notes what the receiver has seen with it.
    fn plan(&mut self, slot: usize, length: u32) -> Option<Written> {
        let header = *self.tracker.header(slot);
        let Header { csid, fmt, timestamp, delta, kind, .. } = header;
        let stream_id = self.mapped(header.stream_id);
        let lane = self.lane(slot);
        let seen = Seen { csid, timestamp, length, kind, stream_id };
        let before = lane.seen.replace(seen);
        let same_length = length == header.length;
        let in_sync =
            before.is_some_and(|b| b.stream_id == stream_id && b.timestamp == timestamp.wrapping_sub(delta)) && fmt != 0;
        let in_shape = in_sync && before.is_some_and(|b| b.length == length && b.kind == kind);
        let understood = match fmt {
            0 => stream_id == header.stream_id,
            1 => in_sync,
            2 => in_shape,
            _ => false,
        };
        let was_clean = lane.clean;
        lane.clean = same_length && (understood || was_clean || fmt == 0);
        if same_length && (understood || (was_clean && fmt != 0)) {
            return None;
        }
        Some(match (in_shape && fmt >= 2, in_sync) {
            (true, _) => Written { fmt: 2, time: delta, seen },
            (false, true) => Written { fmt: 1, time: delta, seen },
            (false, false) => Written { fmt: 0, time: timestamp, seen },
        })
    }
}

fn is_media(kind: u8) -> bool {
    matches!(kind, kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 | kind::AGGREGATE)
}

/// Whether video that begins so is a key frame (or its decoder's header, which goes before one): FLV 10.1 E.4.3.1, and Enhanced
/// RTMP, which keeps the frame type in the same three bits.
fn is_key_frame(first: &u8) -> bool {
    const KEY: u8 = 1;
    first >> 4 & 0b111 == KEY
}
