//! Pure: the relay as the client of an upstream, from C0 to the upstream's word on publish or play.
//!
//! It says a script (what a client said, renamed by [`super::replay`]) in order, waiting for the results of connect and createStream, which it
//! swallows: the client has had ours. All else that the upstream says is handed out to be forwarded.

use std::collections::VecDeque;

use super::amf0::Value;
use super::chunk::{Message, Reader, Writer};
use super::command::{Command, event, kind};
use super::handshake::{self, HandshakeError, PACKET};
use super::joiner::{StreamIds, clamped_chunk_size};
use super::tracker::{ChunkError, Tracker};

/// Most messages that an upstream may send before its answer.
pub const MAX_FORWARD: usize = 256;

/// Why an upstream cannot be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// What answered is not RTMP.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Its chunk stream is broken.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// More than [`MAX_FORWARD`] messages before it took or refused the publish or play.
    #[error("the upstream sent more than 256 messages without an answer")]
    TooMuch,
    /// A createStream result without a usable id.
    #[error("createStream was answered without a message stream id")]
    StreamId,
}

/// What the upstream has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing final yet.
    More,
    /// It took the publish or play.
    Started,
    /// It did not. The words are the upstream's own and may hold its stream key.
    Refused {
        /// "NetStream.Publish.BadName", ...
        code: String,
        /// Its description.
        description: String,
    },
}

/// What is left of the session at the switch.
#[derive(Debug)]
pub struct ClientParts {
    /// The upstream's chunk stream.
    pub sender: (Tracker, Vec<(usize, Vec<u8>)>),
    /// Bytes behind what was read.
    pub rest: Vec<u8>,
    /// What the upstream has been sent.
    pub writer: Writer,
    /// The client's message stream id and the upstream's.
    pub stream_ids: StreamIds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Hello,
    Commands,
}

/// See the module.
#[derive(Debug)]
pub struct ClientSession {
    stage: Stage,
    input: Vec<u8>,
    output: Vec<u8>,
    reader: Reader,
    writer: Writer,
    script: VecDeque<Message>,
    /// Transaction whose result the script waits for.
    awaited: Option<(Awaited, f64)>,
    /// Transaction of publish or play, once said.
    request: Option<f64>,
    stream_ids: StreamIds,
    forward: Vec<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Connect,
    CreateStream,
}

impl ClientSession {
    /// `script` begins with connect (controls may stand before it) and ends with publish or play on `stream_id`.
    pub fn new(script: Vec<Message>, stream_id: u32, fill: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut output = Vec::with_capacity(handshake::TOTAL);
        handshake::hello(&mut output, fill);
        Self {
            stage: Stage::Hello,
            input: Vec::new(),
            output,
            reader: Reader::commands(),
            writer: Writer::default(),
            script: script.into(),
            awaited: None,
            request: None,
            stream_ids: StreamIds { from: stream_id, to: stream_id },
            forward: Vec::new(),
        }
    }

    /// Whether the RTMP handshake is behind us: an upstream that closes from here on refuses, before it fails.
    pub fn handshaken(&self) -> bool {
        self.stage == Stage::Commands
    }

    /// Whether publish or play has been said. nginx-rtmp does not answer a play while nobody publishes.
    pub fn asked(&self) -> bool {
        self.request.is_some()
    }

    /// Bytes for the upstream, and forgets them.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// What the upstream said for the client, in order, with the client's message stream id.
    pub fn take_forward(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.forward)
    }

    /// Takes bytes of the upstream, split anywhere. After anything but [`Answer::More`] the rest is kept untouched.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<Answer, ClientError> {
        self.input.extend_from_slice(bytes);
        if !self.handshake()? {
            return Ok(Answer::More);
        }
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        let answer = loop {
            let (taken, message) = self.reader.read(&input[at..])?;
            at += taken;
            let Some(message) = message else { break Answer::More };
            if self.forward.len() >= MAX_FORWARD {
                return Err(ClientError::TooMuch);
            }
            match self.message(message)? {
                Answer::More => {}
                done => break done,
            }
        };
        self.input.extend_from_slice(&input[at..]);
        Ok(answer)
    }

    /// Ends the session for the switch to passing bytes.
    pub fn into_parts(self) -> ClientParts {
        ClientParts { sender: self.reader.into_parts(), rest: self.input, writer: self.writer, stream_ids: self.stream_ids }
    }

    /// The bytes behind what was read, and the reader, for an endpoint that goes on reading messages.
    pub fn into_reader(self) -> (Reader, Vec<u8>, Writer) {
        (self.reader, self.input, self.writer)
    }

    fn handshake(&mut self) -> Result<bool, ClientError> {
        if self.stage == Stage::Commands {
            return Ok(true);
        }
        if let Some(&version) = self.input.first() {
            handshake::judge_version(version)?;
        }
        if self.input.len() < handshake::TOTAL {
            return Ok(false);
        }
        handshake::echo(&mut self.output, &self.input[1..=PACKET]);
        self.input.drain(..handshake::TOTAL);
        self.stage = Stage::Commands;
        self.say();
        Ok(true)
    }

    /// Says the script up to the next command whose result must be known first.
    fn say(&mut self) {
        while self.awaited.is_none() {
            let Some(message) = self.script.pop_front() else { return };
            self.write(&message);
            match Command::head(message.header.kind, &message.payload) {
                Some((b"connect", transaction)) => self.awaited = Some((Awaited::Connect, transaction)),
                Some((b"createStream", transaction)) => self.awaited = Some((Awaited::CreateStream, transaction)),
                Some((b"publish" | b"play", transaction)) => self.request = Some(transaction),
                _ => {}
            }
        }
    }

    fn write(&mut self, message: &Message) {
        let Message { header, payload } = message;
        let StreamIds { from, to } = self.stream_ids;
        let stream_id = if header.stream_id == from { to } else { header.stream_id };
        match header.kind {
            kind::SET_CHUNK_SIZE => {
                let payload = clamped_chunk_size(payload);
                self.writer.write(&mut self.output, header.csid, header.timestamp, header.kind, stream_id, &payload);
                if let Some(size) = payload.first_chunk::<4>() {
                    self.writer.set_chunk_size(u32::from_be_bytes(*size));
                }
            }
            kind::USER_CONTROL => {
                let mut payload = payload.clone();
                let set_buffer = event::SET_BUFFER_LENGTH.to_be_bytes();
                if payload.starts_with(&[set_buffer[0], set_buffer[1]]) && payload.get(2..6) == Some(&from.to_be_bytes()) {
                    payload[2..6].copy_from_slice(&to.to_be_bytes());
                }
                self.writer.write(&mut self.output, header.csid, header.timestamp, header.kind, stream_id, &payload);
            }
            _ => self.writer.write(&mut self.output, header.csid, header.timestamp, header.kind, stream_id, payload),
        }
    }

    fn message(&mut self, message: Message) -> Result<Answer, ClientError> {
        let kind = message.header.kind;
        if !matches!(kind, kind::COMMAND | kind::COMMAND_AMF3) {
            // Some servers let media speak for itself.
            let media = matches!(kind, kind::AUDIO | kind::VIDEO | kind::AGGREGATE);
            self.hand_out(message);
            return Ok(if media && self.request.is_some() { Answer::Started } else { Answer::More });
        }
        let Ok(command) = Command::decode(kind, &message.payload) else {
            self.hand_out(message);
            return Ok(Answer::More);
        };
        let is_result = command.name == b"_result";
        if is_result || command.name == b"_error" {
            return self.result(&command, is_result, message);
        }
        if command.name == b"onStatus" && self.request.is_some() {
            return Ok(self.status(&command, message));
        }
        self.hand_out(message);
        Ok(Answer::More)
    }

    fn result(&mut self, command: &Command, is_result: bool, message: Message) -> Result<Answer, ClientError> {
        let awaited = self.awaited.filter(|(_, transaction)| *transaction == command.transaction);
        match (awaited, is_result) {
            (Some((awaited, _)), true) => {
                if awaited == Awaited::CreateStream {
                    self.stream_ids.to = stream_id(command).ok_or(ClientError::StreamId)?;
                }
                self.awaited = None;
                self.say();
                Ok(Answer::More)
            }
            (Some(_), false) => Ok(refused(command)),
            (None, false) if self.request == Some(command.transaction) && command.transaction != 0.0 => Ok(refused(command)),
            _ => {
                self.hand_out(message);
                Ok(Answer::More)
            }
        }
    }

    fn status(&mut self, command: &Command, message: Message) -> Answer {
        let info = command.args.get(1);
        let text = |key| info.and_then(|i| i.get(key)).and_then(Value::as_str).unwrap_or_default();
        if text("level") == b"error" {
            return refused(command);
        }
        let started = matches!(text("code"), b"NetStream.Publish.Start" | b"NetStream.Play.Start");
        self.hand_out(message);
        if started { Answer::Started } else { Answer::More }
    }

    fn hand_out(&mut self, mut message: Message) {
        if message.header.stream_id == self.stream_ids.to {
            message.header.stream_id = self.stream_ids.from;
        }
        if message.header.kind == kind::USER_CONTROL && message.payload.get(2..6) == Some(&self.stream_ids.to.to_be_bytes()) {
            let event = u16::from_be_bytes([message.payload[0], message.payload[1]]);
            if event <= event::STREAM_IS_RECORDED {
                message.payload[2..6].copy_from_slice(&self.stream_ids.from.to_be_bytes());
            }
        }
        self.forward.push(message);
    }
}

/// The id in a createStream result; a whole number from 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a whole number in range first")]
fn stream_id(command: &Command) -> Option<u32> {
    let id = command.args.get(1)?.as_number()?;
    (id >= 1.0 && id <= f64::from(u32::MAX) && id.fract() == 0.0).then_some(id as u32)
}

fn refused(command: &Command) -> Answer {
    let info = command.args.iter().rev().find(|a| a.properties().is_some());
    let text = |key| {
        let bytes = info.and_then(|i| i.get(key)).and_then(Value::as_str).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    Answer::Refused { code: text("code"), description: text("description") }
}
