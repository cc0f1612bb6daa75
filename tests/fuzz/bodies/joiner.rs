//! Tracker and joiner, and what they are for: a stock reader hears from the joined stream what it would have heard from the original, for
//! every split and every point at which they are joined.

use super::cuts::{assert_is_a_word_of_ours, number, pieces};
use super::senders::speak;
use super::strict::{MAX_HEADER, Meaning, meaning, media_reader, read, read_strictly};
use relay::protocol::rtmp::chunk::{Reader, Writer};
use relay::protocol::rtmp::command::{event, kind};
use relay::protocol::rtmp::joiner::{Filter, JoinError, Joiner, MAX_FORWARD_CHUNK, Outgoing, Start, StreamIds, Verdict};
use relay::protocol::rtmp::tracker::{Header, Tracker};

/// Control bytes: the point to join at, the cuts, and a byte of flags.
pub const CONTROL: usize = 5;

/// The most that an output can outgrow its input by: a message of a one-byte header and no payload, headed anew in full.
const GROWTH: usize = 18;

/// Joins a chunk stream to a new receiver. Flags: 1, the rest is a recipe for a [`speak`]er; 2, the receiver calls the stream 5; 4, small
/// messages are cut anew.
pub fn run(data: &[u8]) {
    let Some((control, bytes)) = data.split_first_chunk::<CONTROL>() else { return };
    let (skip, seed, flags) = (number(control, 0), number(control, 2), control[4]);
    let ids = StreamIds { from: 1, to: if flags & 2 == 0 { 1 } else { 5 } };
    let cuts_anew = flags & 4 != 0;
    if flags & 1 == 0 {
        return join(bytes, None, skip, seed, ids, cuts_anew);
    }
    let spoken = speak(bytes, seed);
    let (read, strict) = (read(&mut media_reader(), [&spoken.bytes[..]]), read_strictly(&spoken.bytes));
    assert_eq!((read.1, strict.1), (None, None), "the sender is right");
    assert_eq!(read.0.iter().map(meaning).collect::<Vec<_>>(), spoken.messages);
    assert_eq!(strict.0, spoken.messages);
    join(&spoken.bytes, Some(&spoken.messages), skip, seed, ids, cuts_anew);
}

/// Every command passes.
struct PassAll;

impl Filter for PassAll {
    fn message(&mut self, _: &Header, _: &[u8]) -> Verdict {
        Verdict::Pass
    }
}

/// A receiver's side, as it is told.
struct Joined {
    output: Vec<u8>,
    end: Option<JoinError>,
    /// Bytes and messages before the joining point.
    skipped: (usize, usize),
    /// No message was on its way at the joining point.
    clean_start: bool,
}

fn join(stream: &[u8], said: Option<&[Meaning]>, skip: u16, seed: u16, ids: StreamIds, cuts_anew: bool) {
    let (whole, broken) = read(&mut media_reader(), [stream]);
    let mut original: Vec<Meaning> = whole.iter().map(meaning).collect();
    let Some(joined) = joined(stream, usize::from(skip) % (stream.len() + 1), seed, ids, cuts_anew) else { return };
    let unambiguous = said.is_some() || read_strictly(stream) == (original.clone(), None);
    let want: Vec<Meaning> = original.drain(joined.skipped.1..).filter_map(|m| expected(m, ids, cuts_anew)).collect();

    let mut ear = media_reader();
    let (heard, wrong) = read(&mut ear, [&joined.output[..]]);
    // A message that breaks the stream may have passed before it was whole.
    assert!(wrong.is_none() || joined.end.is_some() && wrong == broken, "what is passed on can be read: {wrong:?}");
    let heard: Vec<Meaning> = heard.iter().skip(1).map(meaning).collect();
    match joined.end {
        None => {
            assert_eq!(broken, None);
            assert_eq!(heard, want);
        }
        // Up to there it is the same.
        Some(end) => {
            assert_eq!(heard[..], want[..heard.len().min(want.len())]);
            assert!(broken.is_some() || !matches!(end, JoinError::Chunk(_)) || is_of_the_joiner(end), "{end}");
        }
    }
    if unambiguous && joined.end.is_none() {
        let (strict, wrong) = read_strictly(&joined.output);
        assert_eq!(wrong, None, "nor by the letter of the specification");
        assert_eq!(&strict[1..], &want[..]);
    }
    if joined.end.is_none() && joined.clean_start && !cuts_anew {
        assert_same_halves(stream, ear, ids);
    }
    assert!(joined.output.len() <= 64 + GROWTH * (stream.len() - joined.skipped.0) + joined.skipped.0);
}

/// The joiner has a bound of its own on what it withholds.
fn is_of_the_joiner(end: JoinError) -> bool {
    matches!(end, JoinError::Chunk(e) if e.reason() == "too_much_partial")
}

/// How the receiver is to hear a message of the sender.
fn expected((csid, time, kind, stream_id, mut payload): Meaning, ids: StreamIds, cuts_anew: bool) -> Option<Meaning> {
    let mapped = |id: u32| if id == ids.from { ids.to } else { id };
    match kind {
        kind::SET_CHUNK_SIZE | kind::ABORT if cuts_anew => return None,
        kind::SET_CHUNK_SIZE => {
            let size = payload.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b)) & 0x7FFF_FFFF;
            payload[..4].copy_from_slice(&size.min(MAX_FORWARD_CHUNK).to_be_bytes());
        }
        kind::USER_CONTROL if payload.len() >= 6 && payload[0] == 0 && u16::from(payload[1]) <= event::STREAM_IS_RECORDED => {
            let id = u32::from_be_bytes([payload[2], payload[3], payload[4], payload[5]]);
            payload[2..6].copy_from_slice(&mapped(id).to_be_bytes());
        }
        _ => {}
    }
    Some((csid, time, kind, mapped(stream_id), payload))
}

/// Joins `stream` to a receiver behind its first `skip` bytes; `None` where it cannot be read as far.
fn joined(stream: &[u8], skip: usize, seed: u16, ids: StreamIds, cuts_anew: bool) -> Option<Joined> {
    let mut reader = media_reader();
    let (mut at, mut messages) = (0, 0);
    while at < skip {
        let (taken, message) = reader.read(&stream[at..skip]).ok()?;
        at += taken;
        messages += usize::from(message.is_some());
        if message.is_none() {
            break;
        }
    }
    let (tracker, partial) = reader.into_parts();
    let clean_start = tracker.open() == 0;
    let mut joiner = Joiner::new(start((tracker, partial), ids));
    let mut output = told(joiner.chunk_size());
    if cuts_anew {
        joiner.cut_anew();
    }
    let end = feed(&mut joiner, &pieces(&stream[at..], seed), &mut output);
    Some(Joined { output, end, skipped: (at, messages), clean_start })
}

fn start(sender: (Tracker, Vec<(usize, Vec<u8>)>), stream_ids: StreamIds) -> Start {
    let chunk_size = sender.0.chunk_size().min(MAX_FORWARD_CHUNK);
    let mut writer = Writer::default();
    writer.write(&mut Vec::new(), 2, 0, kind::SET_CHUNK_SIZE, 0, &chunk_size.to_be_bytes());
    Start { sender, seen: writer.into_seen(), chunk_size, stream_ids }
}

/// What the receiver has been told before.
fn told(chunk_size: u32) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::default().write(&mut out, 2, 0, kind::SET_CHUNK_SIZE, 0, &chunk_size.to_be_bytes());
    out
}

fn feed(joiner: &mut Joiner, pieces: &[&[u8]], output: &mut Vec<u8>) -> Option<JoinError> {
    let mut held: Vec<u8> = Vec::new();
    // Follows what is sent, up to the last message boundary that was named.
    let (mut ear, mut heard) = (media_reader(), 0);
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut out = Outgoing::default();
        let result = joiner.advance(&held, &mut PassAll, &mut out);
        assert!(out.whole <= out.pass && out.pass <= held.len());
        if out.whole > 0 {
            let boundary = [&output[heard..], &held[..out.whole]].concat();
            let (_, wrong) = read(&mut ear, [&boundary[..]]);
            assert!(wrong.is_none() && ear.partial_bytes() == 0, "nothing is left half-sent there");
            heard = output.len() + out.whole;
        }
        output.extend_from_slice(&held[..out.pass]);
        output.extend_from_slice(&out.patched);
        match result {
            Ok(taken) => {
                assert!(out.pass <= taken);
                held.drain(..taken);
                assert!(held.len() <= MAX_HEADER, "{} bytes were left over", held.len());
            }
            Err(end) => {
                if let JoinError::Chunk(e) = end {
                    assert_is_a_word_of_ours(e.reason());
                }
                return Some(end);
            }
        }
    }
    None
}

/// Of a message that is not whole yet, and is not withheld until it is, the receiver has all that has come.
fn assert_same_halves(stream: &[u8], ear: Reader, ids: StreamIds) {
    let mut reader = media_reader();
    read(&mut reader, [stream]);
    let withheld = |kind: u8| {
        matches!(kind, kind::COMMAND | kind::COMMAND_AMF3 | kind::SET_CHUNK_SIZE | kind::WINDOW_ACK_SIZE)
            || kind == kind::USER_CONTROL && ids.from != ids.to
    };
    let halves = |reader: Reader| {
        let (tracker, partial) = reader.into_parts();
        let mut halves: Vec<(u32, Vec<u8>)> = partial
            .into_iter()
            .filter(|(slot, _)| !withheld(tracker.header(*slot).kind))
            .map(|(slot, payload)| (tracker.header(slot).csid, payload))
            .collect();
        halves.sort();
        halves
    };
    assert_eq!(halves(ear), halves(reader));
}
