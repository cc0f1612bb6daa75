//! Pure: commands (RTMP 1.0 section 7.2), the messages of type 20 and 17, and the answers the relay gives itself.

use super::amf0::{self, Amf0Error, Value};

/// Message types (RTMP 1.0 sections 5.4 and 7.1).
pub mod kind {
    /// Set Chunk Size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACK: u8 = 3;
    /// User Control.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data, AMF3.
    pub const DATA_AMF3: u8 = 15;
    /// Command, AMF3: one selector byte, then AMF0 in practice.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data, AMF0: metadata.
    pub const DATA: u8 = 18;
    /// Command, AMF0.
    pub const COMMAND: u8 = 20;
    /// Aggregate of audio, video and data.
    pub const AGGREGATE: u8 = 22;
}

/// User control events (RTMP 1.0 section 7.1.7).
pub mod event {
    /// Stream Begin.
    pub const STREAM_BEGIN: u16 = 0;
    /// Stream EOF.
    pub const STREAM_EOF: u16 = 1;
    /// Stream Dry.
    pub const STREAM_DRY: u16 = 2;
    /// Set Buffer Length.
    pub const SET_BUFFER_LENGTH: u16 = 3;
    /// Stream Is Recorded.
    pub const STREAM_IS_RECORDED: u16 = 4;
}

/// A command: name, transaction id, and all that follows (the command object first).
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// "connect", "publish", "_result", ...
    pub name: Vec<u8>,
    /// Transaction id; 0 where no answer is wanted.
    pub transaction: f64,
    /// The command object (often null) and the arguments.
    pub args: Vec<Value>,
    /// The payload began with an AMF3 selector byte (type 17).
    pub amf3: bool,
}

/// Why a payload is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not AMF0.
    #[error(transparent)]
    Amf0(#[from] Amf0Error),
    /// No name in front.
    #[error("a command begins with its name and a transaction id")]
    Nameless,
    /// A type 17 message whose selector is not 0.
    #[error("an AMF3 command with selector {0} is not supported: only 0 (AMF0 behind it)")]
    Selector(u8),
}

impl Command {
    /// A command to send.
    pub fn new(name: &str, transaction: f64, args: Vec<Value>) -> Self {
        Self { name: name.as_bytes().to_vec(), transaction, args, amf3: false }
    }

    /// Reads a payload of type `kind` (20 or 17).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, CommandError> {
        let amf3 = kind == kind::COMMAND_AMF3;
        let body = match payload {
            [0, rest @ ..] if amf3 => rest,
            [selector, ..] if amf3 => return Err(CommandError::Selector(*selector)),
            _ => payload,
        };
        let mut values = amf0::decode_all(body)?.into_iter();
        let (Some(Value::String(name)), transaction) = (values.next(), values.next()) else {
            return Err(CommandError::Nameless);
        };
        // Some encoders leave the transaction id out of FCUnpublish and the like.
        let transaction = transaction.as_ref().and_then(Value::as_number).unwrap_or(0.0);
        Ok(Self { name, transaction, args: values.collect(), amf3 })
    }

    /// Name and transaction id in front of a payload of type `kind`, without a look at what follows them; a missing id is 0. `None` where there is
    /// no command.
    pub fn head(kind: u8, payload: &[u8]) -> Option<(&[u8], f64)> {
        let body = match kind {
            kind::COMMAND => payload,
            kind::COMMAND_AMF3 => payload.strip_prefix(&[0])?,
            _ => return None,
        };
        let (length, rest) = body.strip_prefix(&[0x02])?.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let transaction = rest.strip_prefix(&[0x00]).and_then(|rest| rest.first_chunk());
        Some((name, transaction.map_or(0.0, |bytes| f64::from_be_bytes(*bytes))))
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        if self.amf3 {
            out.push(0);
        }
        amf0::encode(&Value::String(self.name.clone()), &mut out);
        amf0::encode(&Value::Number(self.transaction), &mut out);
        self.args.iter().for_each(|arg| amf0::encode(arg, &mut out));
        out
    }

    /// The message type that carries it.
    pub fn kind(&self) -> u8 {
        if self.amf3 { kind::COMMAND_AMF3 } else { kind::COMMAND }
    }

    /// The first argument behind the command object, as bytes: the stream name in publish, play and their kin.
    pub fn stream_name(&self) -> Option<&[u8]> {
        self.args.get(1)?.as_str()
    }
}

fn object(entries: &[(&str, Value)]) -> Value {
    Value::Object(entries.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.clone())).collect())
}

fn info(level: &str, code: &str, description: impl AsRef<[u8]>) -> Vec<(&'static str, Value)> {
    vec![("level", Value::string(level)), ("code", Value::string(code)), ("description", Value::string(description))]
}

/// `_error` in answer to `transaction`. The shape matters: without the null, or without a description, librtmp-based clients
/// crash and ffmpeg says nothing.
pub fn error(transaction: f64, code: &str, description: impl AsRef<[u8]>) -> Command {
    Command::new("_error", transaction, vec![Value::Null, object(&info("error", code, description))])
}

/// `onStatus` with `level` "status" or "error". Goes on the message stream it is about, never on 0, where GStreamer ignores it.
pub fn on_status(level: &str, code: &str, description: &str) -> Command {
    Command::new("onStatus", 0.0, vec![Value::Null, object(&info(level, code, description))])
}

/// `_result` of connect. `reconnect`: the client spoke of Enhanced RTMP's capsEx, so ours (Reconnect, 0x01) is told.
pub fn connect_result(transaction: f64, reconnect: bool) -> Command {
    let mut properties = vec![("fmsVer", Value::string("FMS/3,0,1,123")), ("capabilities", Value::Number(31.0))];
    if reconnect {
        properties.push(("capsEx", Value::Number(1.0)));
    }
    let mut info = info("status", "NetConnection.Connect.Success", "Connection succeeded.");
    info.push(("objectEncoding", Value::Number(0.0)));
    Command::new("_result", transaction, vec![object(&properties), object(&info)])
}

/// `_result` of createStream.
pub fn create_stream_result(transaction: f64, stream_id: u32) -> Command {
    Command::new("_result", transaction, vec![Value::Null, Value::Number(f64::from(stream_id))])
}

/// Payload of a user control message about a message stream.
pub fn user_control(event: u16, stream_id: u32) -> [u8; 6] {
    let [e0, e1] = event.to_be_bytes();
    let [s0, s1, s2, s3] = stream_id.to_be_bytes();
    [e0, e1, s0, s1, s2, s3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_null_at_index_two_and_a_description() {
        let payload = error(1.0, "NetConnection.Connect.Rejected", "why").encode();
        let values = amf0::decode_all(&payload).expect("our own encoding");
        assert_eq!(values[0], Value::string("_error"));
        assert_eq!(values[2], Value::Null);
        assert_eq!(values[3].get("description"), Some(&Value::string("why")));
    }

    #[test]
    fn the_head_of_a_command_is_what_decoding_says() {
        for (amf3, transaction) in [(false, 3.0), (true, 4.5)] {
            let command = Command { amf3, ..Command::new("createStream", transaction, vec![Value::Null]) };
            assert_eq!(Command::head(command.kind(), &command.encode()), Some((&b"createStream"[..], transaction)));
        }
        let without_id = [2, 0, 1, b'x'];
        assert_eq!(Command::head(kind::COMMAND, &without_id), Some((&b"x"[..], 0.0)));
        assert_eq!(Command::head(kind::COMMAND, &[2, 0, 2, b'x']), None);
        assert_eq!(Command::head(kind::COMMAND_AMF3, &[3, 2, 0, 1, b'x']), None);
        assert_eq!(Command::head(kind::VIDEO, &without_id), None);
    }

    #[test]
    fn an_amf3_command_keeps_its_selector() {
        let mut command = Command::new("play", 4.0, vec![Value::Null, Value::string("cam")]);
        command.amf3 = true;
        let payload = command.encode();
        assert_eq!(payload[0], 0);
        assert_eq!(Command::decode(kind::COMMAND_AMF3, &payload), Ok(command));
        assert_eq!(Command::decode(kind::COMMAND_AMF3, &[3, 2]), Err(CommandError::Selector(3)));
    }
}
