//! What two readers of a chunk stream make of it: the relay's own, and the tests' strict one, which shares no line with it.

use crate::parser::Parser;
use relay::protocol::rtmp::chunk::{Message, Reader};
use relay::protocol::rtmp::tracker::{ChunkError, Header};

/// Most bytes of a header that is not whole.
pub const MAX_HEADER: usize = 17;

/// What matters of a message, whatever header it had: csid, timestamp, kind, stream id, payload.
pub type Meaning = (u32, u32, u8, u32, Vec<u8>);

/// The meaning of a message of the relay's reader.
pub fn meaning(message: &Message) -> Meaning {
    let Header { csid, timestamp, kind, stream_id, .. } = message.header;
    (csid, timestamp, kind, stream_id, message.payload.clone())
}

/// Reads pieces of a chunk stream with `reader`: every whole message, and why it could not go on.
pub fn read<'a>(reader: &mut Reader, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Message>, Option<ChunkError>) {
    let (mut held, mut messages) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match reader.read(&held[at..]) {
                Ok((taken, message)) => {
                    at += taken;
                    match message {
                        Some(message) => messages.push(message),
                        None => break,
                    }
                }
                Err(e) => return (messages, Some(e)),
            }
        }
        held.drain(..at);
        assert!(held.len() <= MAX_HEADER, "{} bytes were left over", held.len());
    }
    (messages, None)
}

/// A reader as media needs it.
pub fn media_reader() -> Reader {
    let mut reader = Reader::commands();
    reader.allow_media(0xFF_FFFF);
    reader
}

/// What the strict reader makes of a chunk stream, and what it does not like.
pub fn read_strictly(stream: &[u8]) -> (Vec<Meaning>, Option<String>) {
    let plain = |m: crate::parser::Message| (m.csid, m.time, m.kind, m.stream, m.body);
    if let Ok(messages) = Parser::default().feed(stream) {
        return (messages.into_iter().map(plain).collect(), None);
    }
    // Again in small pieces, for what came before an error is lost with its piece.
    let (mut parser, mut found) = (Parser::default(), Vec::new());
    for piece in stream.chunks(64) {
        match parser.feed(piece) {
            Ok(messages) => found.extend(messages.into_iter().map(plain)),
            Err(e) => return (found, Some(e)),
        }
    }
    (found, None)
}
