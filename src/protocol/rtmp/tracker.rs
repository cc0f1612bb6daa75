//! Pure: follows a chunk stream (RTMP 1.0 section 5.3) by its headers alone, without copying or joining payloads.
//!
//! Feed it the bytes in order through [`Tracker::next`]; it says what the front of them is. A header that is not whole is not
//! consumed, so the caller keeps at most 17 bytes. Invariant: between two calls, `open` streams have `have < length`, and at
//! most one chunk is being read.

use super::command::kind;

/// What a message is, from its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Chunk stream id, 2..=65599.
    pub csid: u32,
    /// Format of the header that started the message, 0..=3.
    pub fmt: u8,
    /// Absolute timestamp, ms, wrapping at 2^32.
    pub timestamp: u32,
    /// What the timestamp advanced by, ms; the absolute one for a format 0 header.
    pub delta: u32,
    /// Payload length, bytes, at most 0xFFFFFF.
    pub length: u32,
    /// Message type id.
    pub kind: u8,
    /// Message stream id.
    pub stream_id: u32,
    /// Whether the four extended timestamp bytes belong to the header.
    pub extended: bool,
}

/// Where in a message the bytes in front stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The header in front is not whole. Nothing is consumed.
    NeedMore,
    /// A chunk header of `length` bytes. `first`: it starts a message.
    Header {
        /// Index of its chunk stream, for [`Tracker::header`].
        slot: usize,
        /// Bytes of the header.
        length: usize,
        /// Whether a message begins here.
        first: bool,
    },
    /// `length` bytes of payload (may be 0 for an empty message).
    Payload {
        /// Index of its chunk stream.
        slot: usize,
        /// Bytes of payload in front.
        length: usize,
        /// Whether they are the message's first.
        front: bool,
        /// Whether the message is complete with them.
        last: bool,
    },
}

/// Why a chunk stream cannot be followed further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A chunk stream that begins without a full header.
    #[error("chunk stream {csid} begins with a header of format {fmt}, which refers to one that never came")]
    Fresh {
        /// Chunk stream id.
        csid: u32,
        /// Format found.
        fmt: u8,
    },
    /// A new header before the message was complete.
    #[error("a header of format {fmt} in the middle of a message on chunk stream {csid}")]
    MidMessage {
        /// Chunk stream id.
        csid: u32,
        /// Format found.
        fmt: u8,
    },
    /// More chunk streams than the limit.
    #[error("more than {0} chunk streams")]
    TooManyStreams(usize),
    /// Longer than the limit for its type.
    #[error("a message of type {kind} and {length} bytes is longer than the {limit} allowed here")]
    TooLong {
        /// Message type id.
        kind: u8,
        /// Announced length.
        length: u32,
        /// The limit.
        limit: u32,
    },
    /// Set Chunk Size with 0.
    #[error("Set Chunk Size asks for 0 bytes; 1 or more is right")]
    ZeroChunkSize,
    /// Set Chunk Size or Abort shorter than 4 bytes.
    #[error("a protocol control message of type {0} is shorter than 4 bytes")]
    ShortControl(u8),
    /// Chunks so small that following them is an attack.
    #[error("more than {0} chunks before publish or play")]
    TooManyChunks(u32),
    /// More unfinished messages, or more bytes in them, than the limit.
    #[error("more than {0} bytes of unfinished messages")]
    TooMuchPartial(usize),
}

impl ChunkError {
    /// One word of a bounded set, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fresh { .. } => "chunk_without_header",
            Self::MidMessage { .. } => "chunk_mid_message",
            Self::TooManyStreams(_) => "too_many_chunk_streams",
            Self::TooLong { .. } => "message_too_long",
            Self::ZeroChunkSize => "chunk_size_zero",
            Self::ShortControl(_) => "short_control_message",
            Self::TooManyChunks(_) => "too_many_chunks",
            Self::TooMuchPartial(_) => "too_much_partial",
        }
    }
}

/// Bounds that a [`Tracker`] keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most chunk streams.
    pub streams: usize,
    /// Longest message, bytes.
    pub message: u32,
}

impl Limits {
    /// Before publish or play: nobody is known yet.
    pub const COMMANDS: Self = Self { streams: 16, message: 64 * 1024 };
    /// While media flows: nothing is buffered, so the field's own maximum holds.
    pub const MEDIA: Self = Self { streams: 64, message: 0xFF_FFFF };
}

/// The chunk size at the start of every connection (5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;
/// A chunk can be no longer than a message, whatever the peer announces.
const MAX_CHUNK_SIZE: u32 = 0xFF_FFFF;
const EXTENDED: u32 = 0xFF_FFFF;

#[derive(Debug, Clone, Default)]
struct Slot {
    header: Header,
    /// The four bytes as they stood behind the last format 0, 1 or 2 header.
    extended_value: u32,
    have: u32,
    open: bool,
    /// First payload bytes of Set Chunk Size and Abort.
    small: [u8; 4],
}

/// The reader's half of a chunk stream. See the module.
#[derive(Debug, Clone)]
pub struct Tracker {
    limits: Limits,
    chunk_size: u32,
    slots: Vec<Slot>,
    /// The chunk being read: its slot and the payload bytes still to come.
    current: Option<(usize, u32)>,
    open: usize,
}

impl Tracker {
    /// At the start of a connection, behind the handshake.
    pub fn new(limits: Limits) -> Self {
        Self { limits, chunk_size: DEFAULT_CHUNK_SIZE, slots: Vec::new(), current: None, open: 0 }
    }

    /// Changes the bounds for what comes.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The sender's chunk size, bytes.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// The last header on `slot`.
    pub fn header(&self, slot: usize) -> &Header {
        &self.slots[slot].header
    }

    /// Index and header of every unfinished message.
    pub fn unfinished(&self) -> impl Iterator<Item = (usize, &Header)> {
        self.slots.iter().enumerate().filter(|(_, s)| s.open).map(|(i, s)| (i, &s.header))
    }

    /// Index of every message of which the first header has come, and none of its payload.
    pub fn only_headed(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().enumerate().filter(|(_, s)| s.open && s.have == 0).map(|(i, _)| i)
    }

    /// Whether payload of a chunk is still to come.
    pub fn in_chunk(&self) -> bool {
        self.current.is_some()
    }

    /// Number of unfinished messages. At 0 the next byte begins a message.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Wire bytes that the unfinished messages still lack, continuation headers included; 0 at a message boundary.
    /// A lower bound when other messages come between.
    pub fn missing(&self) -> u64 {
        let mut missing = 0;
        // Asked at every read, and most messages are whole then.
        if self.open == 0 {
            return missing;
        }
        for (i, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.open) {
            let rest = slot.header.length - slot.have;
            let in_chunk = match self.current {
                Some((current, left)) if current == i => left,
                _ => 0,
            };
            let chunks = (rest - in_chunk).div_ceil(self.chunk_size);
            missing += u64::from(rest) + u64::from(chunks) * continuation_length(&slot.header);
        }
        missing
    }

    /// Says what stands in front of `input`, and moves past it. The caller drops the `length` bytes of the answer and asks
    /// again until [`Step::NeedMore`].
    ///
    /// # Errors
    /// [`ChunkError`]; the tracker must not be used behind one.
    pub fn next(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        match self.current {
            Some((slot, left)) => self.payload(slot, left, input),
            None => self.chunk_header(input),
        }
    }

    fn payload(&mut self, index: usize, left: u32, input: &[u8]) -> Result<Step, ChunkError> {
        if input.is_empty() && left > 0 {
            return Ok(Step::NeedMore);
        }
        let length = u32::try_from(input.len()).unwrap_or(u32::MAX).min(left);
        let slot = &mut self.slots[index];
        if matches!(slot.header.kind, kind::SET_CHUNK_SIZE | kind::ABORT) {
            let have = slot.have as usize;
            for (at, byte) in slot.small.iter_mut().enumerate().skip(have).take(length as usize) {
                *byte = input[at - have];
            }
        }
        let front = slot.have == 0;
        slot.have += length;
        let last = slot.have == slot.header.length;
        self.current = if length == left { None } else { Some((index, left - length)) };
        if last {
            slot.open = false;
            slot.have = 0;
            self.open -= 1;
            self.control(index)?;
        }
        Ok(Step::Payload { slot: index, length: length as usize, front, last })
    }

    fn control(&mut self, index: usize) -> Result<(), ChunkError> {
        let Slot { header: Header { kind, length, .. }, small, .. } = self.slots[index];
        if !matches!(kind, kind::SET_CHUNK_SIZE | kind::ABORT) {
            return Ok(());
        }
        if length < 4 {
            return Err(ChunkError::ShortControl(kind));
        }
        let value = u32::from_be_bytes(small);
        if kind == kind::SET_CHUNK_SIZE {
            // The first bit is to be ignored (5.4.1).
            self.chunk_size = match value & 0x7FFF_FFFF {
                0 => return Err(ChunkError::ZeroChunkSize),
                size => size.min(MAX_CHUNK_SIZE),
            };
        } else if let Some(aborted) = self.slots.iter_mut().find(|s| s.header.csid == value && s.open) {
            aborted.open = false;
            aborted.have = 0;
            self.open -= 1;
        }
        Ok(())
    }

    fn chunk_header(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let Some((fmt, csid, basic)) = basic_header(input) else { return Ok(Step::NeedMore) };
        let found = self.slots.iter().position(|s| s.header.csid == csid);
        let body = &input[basic..];
        match found {
            Some(index) if fmt == 3 => return Ok(self.type_3(index, basic, body)),
            Some(index) if self.slots[index].open => return Err(ChunkError::MidMessage { csid, fmt }),
            _ => {}
        }
        // librtmp begins csid 2 with format 1 for its pings; everything else needs a full header first.
        let fresh = found.is_none();
        if fresh && fmt != 0 && !(fmt == 1 && csid == 2) {
            return Err(ChunkError::Fresh { csid, fmt });
        }
        if fresh && self.slots.len() >= self.limits.streams {
            return Err(ChunkError::TooManyStreams(self.limits.streams));
        }
        let mut slot = found.map(|i| self.slots[i].clone()).unwrap_or_default();
        slot.header.csid = csid;
        let Some(rest) = message_header(&mut slot, fmt, body) else { return Ok(Step::NeedMore) };
        self.judge_length(&slot.header)?;
        let index = match found {
            Some(index) => {
                self.slots[index] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.begin(index);
        Ok(Step::Header { slot: index, length: basic + rest, first: true })
    }

    fn type_3(&mut self, index: usize, basic: usize, body: &[u8]) -> Step {
        let slot = &mut self.slots[index];
        let mut length = basic;
        if slot.header.extended {
            // Repeated by most senders, left out by some old ones: told apart by the value, as GStreamer does.
            let Some(bytes) = body.first_chunk::<4>() else { return Step::NeedMore };
            if u32::from_be_bytes(*bytes) == slot.extended_value {
                length += 4;
            }
        }
        let first = !slot.open;
        if first {
            slot.header.fmt = 3;
            slot.header.timestamp = slot.header.timestamp.wrapping_add(slot.header.delta);
            self.begin(index);
        } else {
            self.current = Some((index, (slot.header.length - slot.have).min(self.chunk_size)));
        }
        Step::Header { slot: index, length, first }
    }

    fn begin(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.open = true;
        slot.have = 0;
        self.open += 1;
        self.current = Some((index, slot.header.length.min(self.chunk_size)));
    }

    fn judge_length(&self, header: &Header) -> Result<(), ChunkError> {
        if header.length > self.limits.message {
            let &Header { kind, length, .. } = header;
            return Err(ChunkError::TooLong { kind, length, limit: self.limits.message });
        }
        Ok(())
    }
}

/// Bytes of a continuation chunk's header.
fn continuation_length(header: &Header) -> u64 {
    basic_length(header.csid) as u64 + if header.extended { 4 } else { 0 }
}

/// Bytes of the basic header for `csid` (5.3.1.1).
pub(super) fn basic_length(csid: u32) -> usize {
    match csid {
        0..64 => 1,
        64..320 => 2,
        _ => 3,
    }
}

/// (fmt, csid, bytes) of the basic header in front, or `None` when it is not whole.
fn basic_header(input: &[u8]) -> Option<(u8, u32, usize)> {
    let &first = input.first()?;
    let fmt = first >> 6;
    Some(match first & 0x3F {
        0 => (fmt, 64 + u32::from(*input.get(1)?), 2),
        1 => (fmt, 64 + u32::from(*input.get(1)?) + 256 * u32::from(*input.get(2)?), 3),
        csid => (fmt, u32::from(csid), 1),
    })
}

fn u24(bytes: &[u8]) -> u32 {
    bytes.iter().take(3).fold(0, |n, &b| n << 8 | u32::from(b))
}

/// Reads a message header of format 0, 1 or 2 into `slot`; the bytes it took, or `None` when it is not whole.
fn message_header(slot: &mut Slot, fmt: u8, body: &[u8]) -> Option<usize> {
    let length = [11, 7, 3, 0][usize::from(fmt & 3)];
    let fields = body.get(..length)?;
    let field = u24(fields);
    let extended = field == EXTENDED;
    let value = if extended { u32::from_be_bytes(*body[length..].first_chunk::<4>()?) } else { field };
    let header = &mut slot.header;
    header.fmt = fmt;
    header.extended = extended;
    header.delta = value;
    header.timestamp = if fmt == 0 { value } else { header.timestamp.wrapping_add(value) };
    if fmt < 2 {
        header.length = u24(&fields[3..]);
        header.kind = fields[6];
    }
    if fmt == 0 {
        header.stream_id = u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
    }
    slot.extended_value = value;
    slot.small = [0; 4];
    Some(length + if extended { 4 } else { 0 })
}
