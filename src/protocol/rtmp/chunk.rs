//! Pure: whole messages out of chunks and into chunks, for the command phase, where payloads are needed.

use super::tracker::{ChunkError, DEFAULT_CHUNK_SIZE, Header, Limits, Step, Tracker, basic_length};

/// A message with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What its header said.
    pub header: Header,
    /// Its body.
    pub payload: Vec<u8>,
}

/// Most chunks that a peer may use before publish or play: 64 KiB of commands at 128 bytes are 512.
pub const MAX_CHUNKS: u32 = 10_000;
/// Most bytes in unfinished messages before publish or play: as long as one may be. Nobody is known yet who could have more.
pub const MAX_UNKNOWN: usize = 64 * 1024;
/// The same of commands behind it, and of an upstream before its Start.
pub const MAX_PARTIAL: usize = 256 * 1024;

/// Joins chunks to messages.
#[derive(Debug)]
pub struct Reader {
    tracker: Tracker,
    partial: Vec<(usize, Vec<u8>)>,
    partial_bytes: usize,
    chunks_left: Option<u32>,
    max_partial: usize,
    /// What does not fit is left out, and no error.
    skips: bool,
}

impl Reader {
    /// For a peer that has not begun to stream: few chunk streams, short messages, few chunks in all.
    pub fn commands() -> Self {
        Self {
            tracker: Tracker::new(Limits::COMMANDS),
            partial: Vec::new(),
            partial_bytes: 0,
            chunks_left: Some(MAX_CHUNKS),
            max_partial: MAX_PARTIAL,
            skips: false,
        }
    }

    /// The same for a client of which nothing is known: with less in hand.
    pub fn unknown() -> Self {
        Self { max_partial: MAX_UNKNOWN, ..Self::commands() }
    }

    /// Goes on in the middle of a stream of media, with what has come of unfinished messages. Those that are not in `partial`
    /// are left out, and so is what would make more than `max_partial` bytes of unfinished messages.
    pub fn resume((tracker, partial): (Tracker, Vec<(usize, Vec<u8>)>), max_partial: usize) -> Self {
        let partial_bytes = partial.iter().map(|(_, p)| p.len()).sum();
        Self { tracker, partial, partial_bytes, chunks_left: None, max_partial, skips: true }
    }

    /// The sender's chunk size, bytes.
    pub fn chunk_size(&self) -> u32 {
        self.tracker.chunk_size()
    }

    /// Bytes of unfinished messages in hand.
    pub fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Lifts the bounds to those of media, for an endpoint that keeps whole messages (the demo's origin): messages to
    /// `message` bytes, twice that in unfinished ones.
    pub fn allow_media(&mut self, message: u32) {
        self.tracker.set_limits(Limits { message, ..Limits::MEDIA });
        self.chunks_left = None;
        self.max_partial = 2 * message as usize;
    }

    /// Takes bytes from the front of `input` until a message is complete or no whole header is left. Returns how many bytes
    /// were taken; the caller keeps the rest (at most 17 bytes when there is no message).
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Message>), ChunkError> {
        let mut at = 0;
        loop {
            match self.tracker.next(&input[at..])? {
                Step::NeedMore => return Ok((at, None)),
                Step::Header { slot, length, first } => {
                    at += length;
                    self.spend_chunk()?;
                    if first {
                        self.partial.retain(|(s, _)| *s != slot);
                        self.partial.push((slot, Vec::new()));
                    }
                }
                Step::Payload { slot, length, last, .. } => {
                    let bytes = &input[at..at + length];
                    at += length;
                    if let Some(payload) = self.collect(slot, bytes, last)? {
                        return Ok((at, Some(Message { header: *self.tracker.header(slot), payload })));
                    }
                }
            }
        }
    }

    /// The sender's state and the unfinished messages, for one that goes on without joining payloads.
    pub fn into_parts(self) -> (Tracker, Vec<(usize, Vec<u8>)>) {
        let Self { tracker, mut partial, .. } = self;
        partial.retain(|(slot, _)| tracker.unfinished().any(|(i, _)| i == *slot));
        (tracker, partial)
    }

    fn spend_chunk(&mut self) -> Result<(), ChunkError> {
        if let Some(left) = &mut self.chunks_left {
            *left = left.checked_sub(1).ok_or(ChunkError::TooManyChunks(MAX_CHUNKS))?;
        }
        Ok(())
    }

    fn collect(&mut self, slot: usize, bytes: &[u8], last: bool) -> Result<Option<Vec<u8>>, ChunkError> {
        let Some(at) = self.partial.iter().position(|(s, _)| *s == slot) else { return Ok(None) };
        self.partial[at].1.extend_from_slice(bytes);
        if last {
            let (_, payload) = self.partial.swap_remove(at);
            self.partial_bytes = self.partial.iter().map(|(_, p)| p.len()).sum();
            return Ok(Some(payload));
        }
        self.partial_bytes += bytes.len();
        if self.partial_bytes > self.max_partial {
            if self.skips {
                self.partial.swap_remove(at);
                self.partial_bytes = self.partial.iter().map(|(_, p)| p.len()).sum();
                return Ok(None);
            }
            return Err(ChunkError::TooMuchPartial(self.max_partial));
        }
        Ok(None)
    }
}

/// What the receiver of a [`Writer`] (or of a joined stream) has last seen on one chunk stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Chunk stream id.
    pub csid: u32,
    /// Absolute timestamp, ms.
    pub timestamp: u32,
    /// Message length.
    pub length: u32,
    /// Message type id.
    pub kind: u8,
    /// Message stream id.
    pub stream_id: u32,
}

/// Cuts messages into chunks. Every header is full (format 0), so none refers to an earlier one.
#[derive(Debug, Clone)]
pub struct Writer {
    chunk_size: u32,
    seen: Vec<Seen>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { chunk_size: DEFAULT_CHUNK_SIZE, seen: Vec::new() }
    }
}

impl Writer {
    /// Our chunk size, bytes. Changing it is for who has just sent Set Chunk Size.
    pub fn set_chunk_size(&mut self, size: u32) {
        self.chunk_size = size.clamp(1, 0xFF_FFFF);
    }

    /// Our chunk size, bytes.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// The last header sent on each chunk stream.
    pub fn into_seen(self) -> Vec<Seen> {
        self.seen
    }

    /// Appends a message to `out`. A payload longer than 0xFFFFFF cannot be sent and is cut there.
    pub fn write(&mut self, out: &mut Vec<u8>, csid: u32, timestamp: u32, kind: u8, stream_id: u32, payload: &[u8]) {
        let payload = &payload[..payload.len().min(0xFF_FFFF)];
        let length = u32::try_from(payload.len()).unwrap_or(0xFF_FFFF);
        let seen = Seen { csid, timestamp, length, kind, stream_id };
        match self.seen.iter_mut().find(|s| s.csid == csid) {
            Some(slot) => *slot = seen,
            None => self.seen.push(seen),
        }
        write_header(out, &Written { fmt: 0, time: timestamp, seen });
        write_payload(out, &Written { fmt: 0, time: timestamp, seen }, self.chunk_size, payload);
    }
}

/// A message header to be written: its format, the value of its time field, and what it says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) fmt: u8,
    pub(super) time: u32,
    pub(super) seen: Seen,
}

impl Written {
    /// Whether the time needs the extended field.
    pub(super) fn extended(&self) -> bool {
        self.time >= 0xFF_FFFF
    }
}

/// Appends the header of a message's first chunk.
pub(super) fn write_header(out: &mut Vec<u8>, written: &Written) {
    let Written { fmt, time, seen } = *written;
    write_basic(out, fmt, seen.csid);
    let field = if written.extended() { 0xFF_FFFF } else { time };
    let [_, t @ ..] = field.to_be_bytes();
    out.extend_from_slice(&t);
    if fmt < 2 {
        let [_, l @ ..] = seen.length.to_be_bytes();
        out.extend_from_slice(&l);
        out.push(seen.kind);
    }
    if fmt == 0 {
        out.extend_from_slice(&seen.stream_id.to_le_bytes());
    }
    if written.extended() {
        out.extend_from_slice(&time.to_be_bytes());
    }
}

/// Appends the header of a later chunk of the same message.
pub(super) fn write_continuation(out: &mut Vec<u8>, csid: u32, extended: Option<u32>) {
    write_basic(out, 3, csid);
    if let Some(value) = extended {
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends a whole payload behind its header, with the headers of the later chunks between.
pub(super) fn write_payload(out: &mut Vec<u8>, written: &Written, chunk_size: u32, payload: &[u8]) {
    for (i, chunk) in payload.chunks(chunk_size.max(1) as usize).enumerate() {
        if i > 0 {
            write_continuation(out, written.seen.csid, written.extended().then_some(written.time));
        }
        out.extend_from_slice(chunk);
    }
}

fn write_basic(out: &mut Vec<u8>, fmt: u8, csid: u32) {
    match basic_length(csid) {
        1 => out.push(fmt << 6 | (csid & 0x3F) as u8),
        2 => out.extend_from_slice(&[fmt << 6, (csid - 64) as u8]),
        _ => {
            let [low, high, ..] = (csid - 64).to_le_bytes();
            out.extend_from_slice(&[fmt << 6 | 1, low, high]);
        }
    }
}
