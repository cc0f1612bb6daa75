//! Pure: the relay as the server of a client, from C0 to publish or play.
//!
//! [`ServerSession::handle_input`] takes what the client sent, [`ServerSession::take_output`] gives what to send back. It answers connect
//! and createStream itself and stops exactly behind publish or play: what follows is kept untouched. Everything the client
//! said is recorded, to be said again to an upstream ([`super::replay`]).

use super::adobe::{self, Said};
use super::amf0::Value;
use super::chunk::{Message, Reader, Writer};
use super::command::{self, Command, kind};
use super::handshake::{self, PACKET};
use super::tracker::Tracker;
use crate::protocol::name::{Action, Query};

mod error;

pub use error::ServerError;

/// Window Acknowledgement Size and Set Peer Bandwidth that the relay announces, bytes.
const WINDOW: u32 = 2_500_000;
/// The bit of `capsEx` that announces support for reconnect requests (Enhanced RTMP v2).
const RECONNECT: u32 = 0x01;
/// Most messages before publish or play.
pub const MAX_MESSAGES: usize = 100;
/// Most payload bytes in them.
pub const MAX_RECORDED: usize = 64 * 1024;
/// Most createStream.
pub const MAX_CREATE_STREAM: u32 = 4;

/// How far the client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Waiting for C0 and C1.
    Hello,
    /// Waiting for C2.
    Echo,
    /// Waiting for connect.
    Connect,
    /// Waiting for publish or play.
    Commands,
    /// publish or play is complete.
    Requested,
}

/// What a client asks for, with all that it said on the way.
#[derive(Debug)]
pub struct Request {
    /// Publish or play.
    pub action: Action,
    /// `app` of connect, as sent.
    pub app: Vec<u8>,
    /// Name in publish or play, as sent.
    pub stream: Vec<u8>,
    /// `tcUrl` of connect, or empty.
    pub tc_url: Vec<u8>,
    /// Message stream id that publish or play came on.
    pub stream_id: u32,
    /// Every message up to and with publish or play.
    pub recorded: Vec<Message>,
    /// Values that may be a token: of the query of `tcUrl`, of `token` in the connect object and in further object arguments.
    pub tokens: Vec<Vec<u8>>,
    /// Whether the client heeds a request to connect anew.
    pub reconnects: bool,
}

/// What [`ServerSession::handle_input`] came to.
#[derive(Debug)]
pub enum Progress {
    /// More bytes are wanted.
    More,
    /// connect has come, and waits for [`ServerSession::accept_connect`] or [`ServerSession::refuse_connect`]. Only after
    /// [`ServerSession::pause_at_connect`].
    Connecting,
    /// publish or play is complete.
    Requested(Box<Request>),
    /// connect was answered with the refusal that [`ServerSession::refuse_at_connect`] set.
    Refused,
}

/// What is left of the session at the switch.
#[derive(Debug)]
pub struct ServerParts {
    /// The client's chunk stream.
    pub sender: (Tracker, Vec<(usize, Vec<u8>)>),
    /// Bytes behind publish or play.
    pub rest: Vec<u8>,
    /// What the client has been sent.
    pub writer: Writer,
}

/// See the module.
#[derive(Debug)]
pub struct ServerSession {
    stage: Stage,
    input: Vec<u8>,
    output: Vec<u8>,
    hello: Vec<u8>,
    reader: Reader,
    writer: Writer,
    recorded: Vec<Message>,
    recorded_bytes: usize,
    app: Vec<u8>,
    tc_url: Vec<u8>,
    tokens: Vec<Vec<u8>>,
    streams: u32,
    /// Message stream id of publish or play, for a refusal.
    requested: Option<(Action, u32)>,
    refusal: Option<String>,
    reconnects: bool,
    pauses: bool,
    connecting: Option<Connecting>,
}

/// A connect that has not been answered.
#[derive(Debug, Clone, Copy)]
struct Connecting {
    transaction: f64,
    /// The client spoke of Enhanced RTMP's capsEx.
    reconnect: bool,
}

impl ServerSession {
    /// `fill` gives the random bytes of S1.
    pub fn new(fill: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut hello = Vec::with_capacity(handshake::TOTAL);
        handshake::hello(&mut hello, fill);
        Self {
            stage: Stage::Hello,
            input: Vec::new(),
            output: Vec::new(),
            hello,
            reader: Reader::unknown(),
            writer: Writer::default(),
            recorded: Vec::new(),
            recorded_bytes: 0,
            app: Vec::new(),
            tc_url: Vec::new(),
            tokens: Vec::new(),
            streams: 0,
            requested: None,
            refusal: None,
            pauses: false,
            connecting: None,
            reconnects: false,
        }
    }

    /// How far the client has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The client will be refused with `text` when it says connect.
    pub fn refuse_at_connect(&mut self, text: String) {
        self.refusal = Some(text);
    }

    /// From now on connect is not answered before somebody has looked at it.
    pub fn pause_at_connect(&mut self) {
        self.pauses = true;
    }

    /// What the client shows with connect: `app` as sent, and values that may be a token.
    pub fn shown(&self) -> (&[u8], &[Vec<u8>]) {
        (&self.app, &self.tokens)
    }

    /// What the client says about itself in Adobe's authentication; from then on it is in neither `app` nor `tcUrl`.
    pub fn take_said(&mut self) -> Option<Said> {
        let (by_app, by_url) = (adobe::take(&mut self.app), adobe::take(&mut self.tc_url));
        by_app.or(by_url)
    }

    /// Answers the connect that waits; [`Self::handle_input`] goes on behind it, without more bytes if need be.
    pub fn accept_connect(&mut self) {
        let Some(Connecting { transaction, reconnect }) = self.connecting.take() else { return };
        self.stage = Stage::Commands;
        let window = WINDOW.to_be_bytes();
        self.writer.write(&mut self.output, 2, 0, kind::WINDOW_ACK_SIZE, 0, &window);
        let bandwidth = [&window[..], &[2]].concat();
        self.writer.write(&mut self.output, 2, 0, kind::SET_PEER_BANDWIDTH, 0, &bandwidth);
        self.send_command(3, 0, &command::connect_result(transaction, reconnect));
    }

    /// Refuses the connect that waits. `close` goes with it, as Flash Media Server sends it: librtmp waits for that before it comes back with
    /// a name or a proof ([`adobe`]).
    pub fn refuse_connect(&mut self, description: &[u8]) {
        let Some(Connecting { transaction, .. }) = self.connecting.take() else { return };
        self.send_command(3, 0, &command::error(transaction, "NetConnection.Connect.Rejected", description));
        self.send_command(3, 0, &Command::new("close", 0.0, vec![Value::Null]));
    }

    /// Bytes for the client, and forgets them.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes bytes of the client, split anywhere.
    ///
    /// # Errors
    /// [`ServerError`]. Where the client can understand one, an answer that says so stands in the output.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<Progress, ServerError> {
        self.input.extend_from_slice(bytes);
        if !self.handshake()? {
            return Ok(Progress::More);
        }
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        let outcome = loop {
            if self.stage == Stage::Requested {
                break Ok(Progress::More);
            }
            match self.reader.read(&input[at..]) {
                Err(e) => break Err(e.into()),
                Ok((taken, None)) => {
                    at += taken;
                    break Ok(Progress::More);
                }
                Ok((taken, Some(message))) => {
                    at += taken;
                    match self.message(message) {
                        Ok(Progress::More) => {}
                        done => break done,
                    }
                }
            }
        };
        self.input.extend_from_slice(&input[at..]);
        if let Err(e) = &outcome {
            self.tell_error(&e.to_string());
        }
        outcome
    }

    /// Tells the client that what it asked for is refused, in the terms of how far it has come: `_error` to a connect, `onStatus`
    /// to publish and play. `code` is the onStatus code.
    pub fn refuse(&mut self, code: &str, text: &str) {
        match self.requested {
            Some((_, stream_id)) => self.send_command(5, stream_id, &command::on_status("error", code, text)),
            None => self.tell_error(text),
        }
    }

    /// Sends a message to the client as an upstream sent it, before the switch. Set Chunk Size takes effect for what follows.
    pub fn forward(&mut self, message: &Message) {
        let Message { header, payload } = message;
        if header.kind == kind::SET_CHUNK_SIZE {
            let payload = super::joiner::clamped_chunk_size(payload);
            self.writer.write(&mut self.output, header.csid, header.timestamp, header.kind, header.stream_id, &payload);
            if let Some(size) = payload.first_chunk::<4>() {
                self.writer.set_chunk_size(u32::from_be_bytes(*size));
            }
        } else {
            self.writer.write(&mut self.output, header.csid, header.timestamp, header.kind, header.stream_id, payload);
        }
    }

    /// Sends a command of our own on `stream_id`.
    pub fn send_command(&mut self, csid: u32, stream_id: u32, command: &Command) {
        self.writer.write(&mut self.output, csid, 0, command.kind(), stream_id, &command.encode());
    }

    /// Ends the session for the switch to passing bytes.
    pub fn into_parts(self) -> ServerParts {
        ServerParts { sender: self.reader.into_parts(), rest: self.input, writer: self.writer }
    }

    /// The bytes behind publish or play, and the reader, for an endpoint that goes on reading messages.
    pub fn into_reader(self) -> (Reader, Vec<u8>, Writer) {
        (self.reader, self.input, self.writer)
    }

    fn handshake(&mut self) -> Result<bool, ServerError> {
        if self.stage == Stage::Hello {
            if let Some(&version) = self.input.first() {
                handshake::judge_version(version)?;
            }
            if self.input.len() < 1 + PACKET {
                return Ok(false);
            }
            self.output.append(&mut self.hello);
            handshake::echo(&mut self.output, &self.input[1..=PACKET]);
            self.input.drain(..=PACKET);
            self.stage = Stage::Echo;
        }
        if self.stage == Stage::Echo {
            if self.input.len() < PACKET {
                return Ok(false);
            }
            self.input.drain(..PACKET);
            self.stage = Stage::Connect;
        }
        Ok(true)
    }

    fn tell_error(&mut self, text: &str) {
        if matches!(self.stage, Stage::Connect | Stage::Commands | Stage::Requested) {
            let command = command::error(1.0, "NetConnection.Connect.Rejected", text);
            self.send_command(3, 0, &command);
        }
    }

    fn message(&mut self, message: Message) -> Result<Progress, ServerError> {
        self.recorded_bytes += message.payload.len();
        if self.recorded.len() >= MAX_MESSAGES || self.recorded_bytes > MAX_RECORDED {
            return Err(ServerError::TooMuch);
        }
        let header = message.header;
        let progress = match header.kind {
            kind::COMMAND | kind::COMMAND_AMF3 => {
                let command = Command::decode(header.kind, &message.payload)?;
                self.recorded.push(message);
                return self.command(&command, header.stream_id);
            }
            kind::AUDIO | kind::VIDEO | kind::AGGREGATE | kind::DATA | kind::DATA_AMF3 => {
                Err(ServerError::Order("audio, video or data before publish"))
            }
            kind::WINDOW_ACK_SIZE => judge_window(&message.payload),
            _ => Ok(()),
        };
        self.recorded.push(message);
        progress.map(|()| Progress::More)
    }

    fn command(&mut self, command: &Command, stream_id: u32) -> Result<Progress, ServerError> {
        let connected = self.stage == Stage::Commands;
        match (&command.name[..], connected) {
            (b"connect", true) => Err(ServerError::Order("connect came twice")),
            (b"connect", false) => self.connect(command),
            (_, false) => Err(ServerError::Order("a command before connect")),
            (b"createStream", true) => self.create_stream(command),
            (b"publish", true) => self.requested(Action::Publish, command, stream_id),
            (b"play", true) => self.requested(Action::Play, command, stream_id),
            _ => Ok(Progress::More),
        }
    }

    fn connect(&mut self, command: &Command) -> Result<Progress, ServerError> {
        let object = command.args.first().filter(|o| o.properties().is_some());
        let Some(object) = object else { return Err(ServerError::Order("connect without a command object")) };
        if let Some(text) = self.refusal.take() {
            let error = command::error(command.transaction, "NetConnection.Connect.Rejected", text);
            self.send_command(3, 0, &error);
            return Ok(Progress::Refused);
        }
        let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default().to_vec();
        self.app = text("app");
        self.tc_url = text("tcUrl");
        self.tokens = tokens(&self.tc_url, &command.args);
        let caps = object.get("capsEx").and_then(Value::as_number);
        self.reconnects = caps.is_some_and(|caps| (0.0..4e9).contains(&caps) && caps as u32 & RECONNECT != 0);
        let reconnect = object.get("capsEx").is_some();
        self.connecting = Some(Connecting { transaction: command.transaction, reconnect });
        if self.pauses {
            return Ok(Progress::Connecting);
        }
        self.accept_connect();
        Ok(Progress::More)
    }

    fn create_stream(&mut self, command: &Command) -> Result<Progress, ServerError> {
        if self.streams == MAX_CREATE_STREAM {
            return Err(ServerError::Order("more than 4 createStream"));
        }
        self.streams += 1;
        self.send_command(3, 0, &command::create_stream_result(command.transaction, self.streams));
        Ok(Progress::More)
    }

    fn requested(&mut self, action: Action, command: &Command, stream_id: u32) -> Result<Progress, ServerError> {
        if stream_id == 0 || stream_id > self.streams {
            return Err(ServerError::Order("publish or play on a message stream that createStream did not give"));
        }
        let Some(stream) = command.stream_name() else {
            return Err(ServerError::Order("publish or play without a stream name"));
        };
        self.stage = Stage::Requested;
        self.requested = Some((action, stream_id));
        Ok(Progress::Requested(Box::new(Request {
            action,
            app: std::mem::take(&mut self.app),
            stream: stream.to_vec(),
            tc_url: std::mem::take(&mut self.tc_url),
            stream_id,
            recorded: std::mem::take(&mut self.recorded),
            tokens: std::mem::take(&mut self.tokens),
            reconnects: self.reconnects,
        })))
    }
}

/// Judges a Window Acknowledgement Size; one of 0 is ignored by servers, and passes.
pub(crate) fn judge_window(payload: &[u8]) -> Result<(), ServerError> {
    match payload.first_chunk::<4>().map(|b| u32::from_be_bytes(*b)) {
        Some(window @ 1..1024) => Err(ServerError::TinyWindow(window)),
        _ => Ok(()),
    }
}

fn tokens(tc_url: &[u8], args: &[Value]) -> Vec<Vec<u8>> {
    let (mut found, mut tc_url) = (Vec::new(), tc_url.to_vec());
    // Clients write theirs behind a query with another '?'.
    adobe::take(&mut tc_url);
    if let Some(at) = tc_url.iter().position(|&b| b == b'?') {
        found = Query::parse(&tc_url[at + 1..]).take(b"token");
    }
    for arg in args {
        found.extend(arg.get("token").and_then(Value::as_str).map(<[u8]>::to_vec));
    }
    found
}
