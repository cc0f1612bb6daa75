//! Pure: where requests, responses and interleaved frames begin and end in one direction of an RTSP connection.
//!
//! Both directions carry all three (RFC 2326 10.12): a server may ask, and a client answer. Frames are never kept: [`Framer::next`] says
//! which bytes are theirs, and [`Framer::missing`] how many more the last of them needs. Messages are collected until they are whole.

use super::message::{MAX_HEAD, MAX_HEADERS, MAX_LINE, Message, MessageError};

/// Most bytes that [`Framer::next`] leaves over because they are the start of a frame that says too little yet.
pub const MAX_LEFT: usize = 5;

/// A set of channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelSet([u64; 4]);

impl ChannelSet {
    /// Every channel.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// Whether `channel` is in it.
    pub fn has(&self, channel: u8) -> bool {
        self.0[usize::from(channel >> 6)] >> (channel & 63) & 1 == 1
    }

    /// Adds `channel` or takes it out.
    pub fn set(&mut self, channel: u8, is_in: bool) {
        let word = &mut self.0[usize::from(channel >> 6)];
        *word = *word & !(1 << (channel & 63)) | u64::from(is_in) << (channel & 63);
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}

/// What SETUP has agreed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Channels {
    /// On which frames may come.
    pub open: ChannelSet,
    /// Those with the RTP of a video: its frames end with a packet whose marker bit is set (RFC 3550 5.1, RFC 6184 5.1).
    pub video: ChannelSet,
}

/// Why a direction cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A message is not as it should be.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// An interleaved frame on a channel that no SETUP has agreed on.
    #[error("An interleaved frame came on a channel that was not set up")]
    Channel,
}

impl FramingError {
    /// The status code that tells a client of it.
    pub fn code(self) -> u16 {
        match self {
            Self::Message(e) => e.code(),
            Self::Channel => 400,
        }
    }

    /// One word of a bounded set, for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Message(e) => e.reason(),
            Self::Channel => "unexpected_rtsp_frame",
        }
    }
}

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// None of them can be told yet: fewer than [`MAX_LEFT`] + 1, or nothing at all.
    Nothing,
    /// Interleaved frames, which pass as they are.
    Frames {
        /// So many bytes.
        len: usize,
        /// So many of them end at the end of a frame.
        whole: usize,
        /// So many of them end at the end of a frame with which no picture is left half.
        settled: usize,
    },
    /// Belongs to a message that is not whole yet, or to nothing (blank lines between messages); is taken, and does not pass.
    Taken {
        /// So many bytes.
        len: usize,
    },
    /// Ends a message; is taken, and does not pass.
    Message {
        /// So many bytes.
        len: usize,
        /// The message.
        message: Box<Message>,
    },
}

#[derive(Debug)]
enum State {
    /// A message or frame may begin.
    Boundary,
    /// In a frame that lacks so many bytes.
    Frame { left: usize },
    /// In a head: bytes of this line so far, and lines before it.
    Head { line: usize, lines: usize },
    /// In a body that lacks so many bytes.
    Body { message: Box<Message>, left: usize },
}

/// Follows one direction.
#[derive(Debug)]
pub struct Framer {
    state: State,
    head: Vec<u8>,
    /// Channels with a picture that is not whole.
    open: ChannelSet,
    heeds_markers: bool,
    frames: u64,
}

impl Default for Framer {
    fn default() -> Self {
        Self { state: State::Boundary, head: Vec::new(), open: ChannelSet::default(), heeds_markers: true, frames: 0 }
    }
}

impl Framer {
    /// Frames that have wholly arrived.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// How many bytes the frame in progress lacks; 0 where none is in progress, or only its header.
    pub fn missing(&self) -> usize {
        if let State::Frame { left } = self.state { left } else { 0 }
    }

    /// Whether the next byte begins a frame or message.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary)
    }

    /// Whether a picture has begun and not ended.
    pub fn in_picture(&self) -> bool {
        !self.open.is_empty()
    }

    /// From now on no packet waits for another: this sender does not mark the ends of its pictures.
    pub fn distrust_markers(&mut self) {
        self.heeds_markers = false;
        self.open = ChannelSet::default();
    }

    /// Follows the first of `bytes`. To be called again with what is behind those that were taken, until it says
    /// [`Piece::Nothing`].
    ///
    /// # Errors
    /// [`FramingError`]; nothing more can be followed then.
    pub fn next(&mut self, bytes: &[u8], channels: &Channels) -> Result<Piece, FramingError> {
        match self.state {
            _ if bytes.is_empty() => Ok(Piece::Nothing),
            State::Frame { .. } => self.frames_of(bytes, channels),
            State::Boundary => match bytes.first() {
                None => Ok(Piece::Nothing),
                Some(b'$') => self.frames_of(bytes, channels),
                Some(b'\r' | b'\n') => {
                    let len = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
                    Ok(Piece::Taken { len })
                }
                // Nothing that we would understand begins otherwise: no line is waited for.
                Some(b'A'..=b'Z') => {
                    self.state = State::Head { line: 0, lines: 0 };
                    self.head_of(bytes)
                }
                Some(_) => Err(MessageError::StartLine.into()),
            },
            State::Head { .. } => self.head_of(bytes),
            State::Body { .. } => Ok(self.body_of(bytes)),
        }
    }

    fn frames_of(&mut self, bytes: &[u8], channels: &Channels) -> Result<Piece, FramingError> {
        let (mut at, mut whole, mut settled) = (0, 0, 0);
        loop {
            let left = match self.state {
                State::Frame { left } => left,
                State::Boundary => match self.frame_header(&bytes[at..], channels) {
                    Ok(Some(left)) => left,
                    Ok(None) => break,
                    // What came before it passes first.
                    Err(e) if at == 0 => return Err(e),
                    Err(_) => break,
                },
                State::Head { .. } | State::Body { .. } => break,
            };
            let here = left.min(bytes.len() - at);
            at += here;
            if here < left {
                self.state = State::Frame { left: left - here };
                break;
            }
            self.state = State::Boundary;
            self.frames += 1;
            whole = at;
            if self.open.is_empty() {
                settled = at;
            }
        }
        Ok(if at == 0 { Piece::Nothing } else { Piece::Frames { len: at, whole, settled } })
    }

    /// Reads the header of the frame that begins `bytes`, if it is all there: how long the frame is with it.
    fn frame_header(&mut self, bytes: &[u8], channels: &Channels) -> Result<Option<usize>, FramingError> {
        let [b'$', rest @ ..] = bytes else { return Ok(None) };
        if let Some(&channel) = rest.first()
            && !channels.open.has(channel)
        {
            return Err(FramingError::Channel);
        }
        let &[channel, high, low, ref payload @ ..] = rest else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if self.heeds_markers && channels.video.has(channel) && len >= 2 {
            let &[_, marker, ..] = payload else { return Ok(None) };
            self.open.set(channel, marker & 0x80 == 0);
        }
        Ok(Some(4 + len))
    }

    fn head_of(&mut self, bytes: &[u8]) -> Result<Piece, FramingError> {
        let State::Head { mut line, mut lines } = self.state else { return Ok(Piece::Nothing) };
        for (at, &byte) in bytes.iter().enumerate() {
            self.head.push(byte);
            if byte != b'\n' {
                line += 1;
                // One more for the CR.
                if line > MAX_LINE + 1 {
                    return Err(MessageError::LineTooLong.into());
                }
            } else if line == 0 || line == 1 && self.head[..self.head.len() - 1].ends_with(b"\r") {
                return self.head_ended(at + 1);
            } else {
                (line, lines) = (0, lines + 1);
                if lines > MAX_HEADERS + 1 {
                    return Err(MessageError::TooManyHeaders.into());
                }
            }
            if self.head.len() > MAX_HEAD {
                return Err(MessageError::HeadTooLong.into());
            }
        }
        self.state = State::Head { line, lines };
        Ok(Piece::Taken { len: bytes.len() })
    }

    fn head_ended(&mut self, len: usize) -> Result<Piece, FramingError> {
        let (message, left) = Message::parse_head(&std::mem::take(&mut self.head))?;
        let message = Box::new(message);
        if left == 0 {
            self.state = State::Boundary;
            return Ok(Piece::Message { len, message });
        }
        self.state = State::Body { message, left };
        Ok(Piece::Taken { len })
    }

    fn body_of(&mut self, bytes: &[u8]) -> Piece {
        let State::Body { mut message, left } = std::mem::replace(&mut self.state, State::Boundary) else {
            return Piece::Nothing;
        };
        let len = left.min(bytes.len());
        // Grows as bytes come, never by what was announced.
        message.body.extend_from_slice(&bytes[..len]);
        if len == left {
            return Piece::Message { len, message };
        }
        self.state = State::Body { message, left: left - len };
        if len == 0 { Piece::Nothing } else { Piece::Taken { len } }
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
