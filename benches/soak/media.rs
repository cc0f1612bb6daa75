//! Messages whose content follows from their number.

use std::time::Duration;

use relay::origin::script::STREAM_ID;
use relay::protocol::rtmp::chunk::{Message, Writer};
use relay::protocol::rtmp::command::kind;

/// Between two messages.
pub const STEP: Duration = Duration::from_millis(20);
/// Every second message is audio, and every fiftieth begins a group of pictures: one a second.
const GROUP: u32 = 50;

/// Bytes of message `number`.
pub fn size(number: u32) -> usize {
    match number {
        n if n % 2 == 0 => 200,
        n if n % GROUP == 1 => 9_000,
        n => 1_000 + (n as usize * 37) % 1_500,
    }
}

fn payload(number: u32) -> Vec<u8> {
    let front: &[u8] = match number {
        n if n % 2 == 0 => b"\xAF\x01\0\0\0",
        n if n % GROUP == 1 => b"\x17\x01\0\0\0",
        _ => b"\x27\x01\0\0\0",
    };
    let mut payload = [front, &number.to_be_bytes()].concat();
    payload.resize(size(number), number as u8);
    payload
}

/// What stands in front of the first message.
pub fn begin(writer: &mut Writer) -> Vec<u8> {
    let mut out = Vec::new();
    writer.write(&mut out, 2, 0, kind::SET_CHUNK_SIZE, 0, &4096_u32.to_be_bytes());
    writer.set_chunk_size(4096);
    writer.write(&mut out, 6, 0, kind::VIDEO, STREAM_ID, b"\x17\x00\0\0\0avcC");
    out
}

/// Message `number` as chunks.
pub fn message(writer: &mut Writer, number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let (csid, kind) = if number.is_multiple_of(2) { (4, kind::AUDIO) } else { (6, kind::VIDEO) };
    writer.write(&mut out, csid, 20 * number, kind, STREAM_ID, &payload(number));
    out
}

/// What a message that was received is.
pub enum Heard {
    /// Message of this number, as it was sent.
    Number(u32),
    /// Media that nobody sent so.
    Spoiled,
    /// None of ours: commands, headers of decoders.
    Else,
}

/// Judges `message`.
pub fn hear(message: &Message) -> Heard {
    let is_media = matches!(message.header.kind, kind::AUDIO | kind::VIDEO) && message.payload.get(1) == Some(&1);
    if !is_media {
        return Heard::Else;
    }
    let number = message.payload.get(5..).and_then(<[u8]>::first_chunk::<4>).map(|bytes| u32::from_be_bytes(*bytes));
    match number {
        Some(number) if payload(number) == message.payload => Heard::Number(number),
        _ => Heard::Spoiled,
    }
}
