//! RTSP framing: messages and interleaved frames are the same however they are cut, no byte of a frame is lost, what is kept is bounded, and
//! a message reads the same when it is written anew.

use super::cuts::{assert_is_a_word_of_ours, number, pieces};
use relay::protocol::rtsp::framing::{ChannelSet, Channels, Framer, FramingError, MAX_LEFT, Piece};
use relay::protocol::rtsp::message::{MAX_BODY, MAX_HEAD, MAX_HEADERS, Message};

/// Control bytes: the cuts, and which channels are open.
pub const CONTROL: usize = 3;

/// What a connection said.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    messages: Vec<Message>,
    passed: Vec<u8>,
    frames: u64,
    in_picture: bool,
    end: Option<FramingError>,
}

/// Reads one direction of an RTSP connection.
pub fn run(data: &[u8]) {
    let Some((control, bytes)) = data.split_first_chunk::<CONTROL>() else { return };
    let channels = channels(control[2]);
    let trusts = control[2] & 4 == 0;
    let whole = hear(&[bytes], &channels, trusts);
    assert_eq!(hear(&pieces(bytes, number(control, 0)), &channels, trusts), whole);
    if let Some(end) = whole.end {
        assert_is_a_word_of_ours(end.reason());
        assert!((400..600).contains(&end.code()));
    }
    // Frames pass byte for byte, in order.
    let mut frames = hear(&[&whole.passed], &channels, trusts);
    frames.messages.clone_from(&whole.messages);
    frames.end = whole.end;
    assert_eq!(frames, whole);
    for message in &whole.messages {
        assert_reads_back(message);
    }
}

fn channels(flags: u8) -> Channels {
    let mut channels = Channels::default();
    if flags & 1 == 0 {
        channels.open = ChannelSet::ALL;
    } else {
        (0..4).for_each(|n| channels.open.set(n, true));
    }
    channels.video.set(0, flags & 2 == 0);
    channels
}

fn hear(pieces: &[&[u8]], channels: &Channels, trusts_markers: bool) -> Heard {
    let mut framer = Framer::default();
    if !trusts_markers {
        framer.distrust_markers();
    }
    let (mut heard, mut left) = (Heard::default(), Vec::new());
    for piece in pieces {
        left.extend_from_slice(piece);
        loop {
            let len = match framer.next(&left, channels) {
                Ok(Piece::Nothing) => break,
                Ok(Piece::Taken { len }) => len,
                Ok(Piece::Message { len, message }) => {
                    heard.messages.push(*message);
                    len
                }
                Ok(Piece::Frames { len, whole, settled }) => {
                    assert!(settled <= whole && whole <= len);
                    assert_eq!(framer.missing() > 0, whole < len);
                    heard.passed.extend_from_slice(&left[..len]);
                    len
                }
                Err(e) => {
                    heard.end = Some(e);
                    heard.frames = framer.frames();
                    heard.in_picture = framer.in_picture();
                    return heard;
                }
            };
            assert!(len > 0, "it goes on");
            left.drain(..len);
        }
        assert!(left.len() <= MAX_LEFT, "{} bytes were left over", left.len());
    }
    heard.frames = framer.frames();
    heard.in_picture = framer.in_picture();
    heard
}

/// A message within its bounds, and one that a second reader cannot take for another.
pub fn assert_reads_back(message: &Message) {
    assert!(message.body.len() <= MAX_BODY && message.headers.iter().count() <= MAX_HEADERS);
    let written = message.to_bytes();
    // Line ends are written anew, so a head at its bound may grow.
    if written.len() - message.body.len() > MAX_HEAD {
        return;
    }
    let again = hear(&[&written], &channels(0), true);
    assert_eq!((again.messages.len(), again.end), (1, None), "{:?}", String::from_utf8_lossy(&written));
    assert_eq!(again.messages[0].to_bytes(), written);
    assert!(written.iter().zip(written.iter().skip(1)).all(|(a, b)| *a != b'\r' || *b == b'\n') || !message.body.is_empty());
}

/// Every message in `bytes`, whatever the frames between.
pub fn messages(bytes: &[u8]) -> Result<Vec<Message>, FramingError> {
    let heard = hear(&[bytes], &channels(0), true);
    heard.end.map_or(Ok(heard.messages), Err)
}

/// As many messages as can be read.
pub fn messages_until_broken(bytes: &[u8]) -> Vec<Message> {
    hear(&[bytes], &channels(0), true).messages
}
