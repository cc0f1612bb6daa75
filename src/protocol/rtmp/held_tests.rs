//! A stream that loses its upstream: whatever it sent, wherever it was cut, what the next upstream hears is a readable stream that
//! begins with headers and then a key frame, within the bound, in the client's own time.

use proptest::prelude::*;

use super::*;
use crate::protocol::rtmp::chunk::Reader;
use crate::protocol::rtmp::joiner::{Filter, Joiner, Outgoing, Start, Verdict};
use crate::protocol::rtmp::tracker::Header;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Metadata,
    VideoHeader,
    AudioHeader,
    Key,
    Inter,
    Sound,
    Text,
}

/// A message that says what it is and which one.
fn message(what: What, number: u32, length: usize) -> Message {
    let (csid, kind, front): (u32, u8, &[u8]) = match what {
        What::Metadata => (4, kind::DATA, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData"),
        What::VideoHeader => (6, kind::VIDEO, b"\x17\x00\0\0\0"),
        What::AudioHeader => (4, kind::AUDIO, b"\xAF\x00"),
        What::Key => (6, kind::VIDEO, b"\x17\x01\0\0\0"),
        What::Inter => (6, kind::VIDEO, b"\x27\x01\0\0\0"),
        What::Sound => (4, kind::AUDIO, b"\xAF\x01"),
        What::Text => (4, kind::DATA, b"\x02\x00\x0aonTextData"),
    };
    let mut payload = [front, &number.to_be_bytes()].concat();
    payload.resize(payload.len() + length, number as u8);
    let length = u32::try_from(payload.len()).expect("a short message");
    // Crosses the bound of three-byte timestamps on the way.
    let timestamp = 0xFF_FF00 + 23 * number;
    Message { header: Header { csid, kind, timestamp, length, stream_id: 1, ..Header::default() }, payload }
}

fn what(message: &Message) -> What {
    match (message.header.kind, role(message.header.kind, &message.payload)) {
        (_, Role::Metadata) => What::Metadata,
        (kind::VIDEO, Role::Header(_)) => What::VideoHeader,
        (_, Role::Header(_)) => What::AudioHeader,
        (_, Role::Key(_)) => What::Key,
        (kind::VIDEO, _) => What::Inter,
        (kind::AUDIO, _) => What::Sound,
        _ => What::Text,
    }
}

fn any_what(video: bool) -> impl Strategy<Value = What> {
    let pictures = if video { 1 } else { 0 };
    prop_oneof![
        1 => Just(What::Metadata),
        pictures => Just(What::VideoHeader),
        1 => Just(What::AudioHeader),
        2 * pictures => Just(What::Key),
        8 * pictures => Just(What::Inter),
        6 => Just(What::Sound),
        1 => Just(What::Text),
    ]
}

fn any_stream() -> impl Strategy<Value = Vec<Message>> {
    any::<bool>().prop_flat_map(|video| {
        prop::collection::vec((any_what(video), prop_oneof![4 => 0usize..100, 1 => 0usize..2000]), 1..60).prop_map(
            move |mut list| {
                // As every encoder does.
                list.insert(0, (if video { What::VideoHeader } else { What::AudioHeader }, 0));
                (0..).zip(list).map(|(number, (what, length))| message(what, number, length)).collect()
            },
        )
    })
}

/// What a stock reader hears.
fn heard(bytes: &[u8]) -> Vec<Message> {
    let mut reader = Reader::commands();
    reader.allow_media(0xFF_FFFF);
    let (mut at, mut messages) = (0, Vec::new());
    loop {
        let (taken, message) = reader.read(&bytes[at..]).expect("a readable stream");
        at += taken;
        match message {
            Some(message) => messages.push(message),
            None => break,
        }
    }
    assert_eq!((at, reader.partial_bytes()), (bytes.len(), 0), "it ends with a message");
    messages
}

fn is_media(message: &Message) -> bool {
    matches!(what(message), What::Key | What::Inter | What::Sound | What::Text)
}

/// The newest of what lasts in `stream`, in any order.
fn lasting(stream: &[Message]) -> Vec<&[u8]> {
    let newest = |kind| stream.iter().rev().find(|m| what(m) == kind).map(|m| &m.payload[..]);
    let mut found: Vec<_> = [What::Metadata, What::VideoHeader, What::AudioHeader].into_iter().filter_map(newest).collect();
    found.sort_unstable();
    found
}

const SAME: StreamIds = StreamIds { from: 1, to: 1 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn what_is_held_is_headers_then_whole_groups_to_the_newest_message_within_the_bound(
        stream in any_stream(),
        seen in 0.0..1.0f64,
        room in prop_oneof![Just(0usize), 200usize..6000, Just(usize::MAX)],
    ) {
        let seen = (stream.len() as f64 * seen) as usize;
        let mut keep = Keep::default();
        stream[..seen].iter().for_each(|m| keep.note(&m.header, &m.payload));
        let mut held = Held::new(keep);
        for message in &stream[seen..] {
            held.take(message.clone(), room);
            prop_assert!(held.bytes() <= room);
        }
        let (bytes, dropped) = (held.bytes(), held.dropped());
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        let Resumed { keep, begun } = held.resume(&mut writer, &mut out, StreamIds { from: 1, to: 7 });
        let heard = heard(&out);
        prop_assert!(heard.iter().all(|m| m.header.stream_id == 7));
        let front = heard.iter().take_while(|m| !is_media(m)).count();
        let media = &heard[front..];
        prop_assert_eq!(begun, !media.is_empty());
        let first = media.first().map(|m| m.header.timestamp);
        let at = stream.iter().position(|m| Some(m.header.timestamp) == first).unwrap_or(stream.len());
        let mut said: Vec<_> = heard[..front].iter().map(|m| &m.payload[..]).collect();
        said.sort_unstable();
        prop_assert_eq!(said, lasting(&stream[..at]));
        prop_assert!(heard[..front].iter().all(|m| first.is_none_or(|first| m.header.timestamp == first)));
        // From there on nothing is missing but frames whose key frame never came.
        let has_video = stream[..at].iter().any(|m| m.header.kind == kind::VIDEO);
        if let Some(first) = media.first() {
            prop_assert!(what(first) == What::Key || (!has_video && what(first) == What::Sound));
        }
        let mut keyed = false;
        let want = stream[at.min(stream.len())..].iter().filter(|m| {
            keyed |= what(m) == What::Key;
            what(m) != What::Inter || keyed
        });
        let want: Vec<_> = want.map(|m| (m.header.kind, m.header.timestamp, &m.payload[..])).collect();
        let got: Vec<_> = media.iter().map(|m| (m.header.kind, m.header.timestamp, &m.payload[..])).collect();
        prop_assert_eq!(got, want);
        // Only the bound drops anything that could have been the beginning.
        let begins = stream[seen..].iter().position(|m| what(m) == What::Key);
        if room == usize::MAX {
            prop_assert_eq!(dropped, 0);
            prop_assert!(begins.is_none_or(|begins| seen + begins >= at));
        }
        prop_assert!(bytes <= room);
        let mut keep_says = Vec::new();
        keep.write(&mut Writer::default(), &mut keep_says, 0, |id| id);
        let kept = self::heard(&keep_says);
        let mut newest: Vec<_> = kept.iter().map(|m| &m.payload[..]).collect();
        newest.sort_unstable();
        prop_assert_eq!(newest, lasting(&stream));
    }

    #[test]
    fn a_stream_cut_from_its_upstream_anywhere_goes_on_at_another_from_the_next_key_frame(
        stream in any_stream(),
        chunk_size in prop_oneof![Just(1usize), Just(128), Just(4096)],
        cut in 0.0..1.0f64,
        resumed in 0.0..1.0f64,
        piece in 1usize..700,
        weave in prop::collection::vec(any::<bool>(), 16),
        to in prop_oneof![Just(1u32), Just(5)],
    ) {
        let bytes = spoken(&stream, chunk_size, &weave);
        let cut = (bytes.len() as f64 * cut) as usize;
        let resumed = cut + ((bytes.len() - cut) as f64 * resumed) as usize;
        let out = failed_over(&bytes, cut, resumed, piece, StreamIds { from: 1, to });
        let got: Vec<_> = heard(&out).into_iter().filter(|m| m.header.kind != kind::SET_CHUNK_SIZE).collect();
        prop_assert!(got.iter().all(|m| m.header.stream_id == to));
        let front = got.iter().take_while(|m| !is_media(m)).count();
        if let Some(first) = got.get(front) {
            // Video of which nothing was known but one frame, and that one was cut, has not begun for whoever goes on.
            let pictures = stream.iter().filter(|m| m.header.kind == kind::VIDEO);
            let known = pictures.filter(|m| m.header.timestamp < first.header.timestamp).count();
            let is_sound = what(first) == What::Sound;
            prop_assert!(what(first) == What::Key || is_sound && known <= 1, "{:?} behind {} pictures", what(first), known);
        }
        // On each chunk stream the messages come as they were sent, to the last; video from a key frame on.
        for csid in [4, 6] {
            let media = |list: &[Message]| list.iter().filter(|m| m.header.csid == csid && is_media(m)).map(|m| {
                (m.header.kind, m.header.timestamp, m.payload.clone())
            }).collect::<Vec<_>>();
            let (got, sent) = (media(&got), media(&stream));
            prop_assert!(sent.ends_with(&got), "csid {}: {} of {}", csid, got.len(), sent.len());
            if csid == 6 && let Some(first) = got.first() {
                prop_assert!(matches!(role(first.0, &first.2), Role::Key(_)));
            }
        }
    }
}

/// Writes a stream with the short headers that real senders use, chunks of the two chunk streams woven into each other.
fn spoken(stream: &[Message], chunk_size: usize, weave: &[bool]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    out.extend_from_slice(&(chunk_size as u32).to_be_bytes());
    let mut lanes = [4u32, 6].map(|csid| {
        let mut before: Option<&Message> = None;
        let mut chunks = Vec::new();
        for message in stream.iter().filter(|m| m.header.csid == csid) {
            for (number, payload) in message.payload.chunks(chunk_size).enumerate() {
                let first = number == 0;
                chunks.push((first.then_some(message.header.timestamp), [&head(message, before, first), payload].concat()));
            }
            before = Some(message);
        }
        chunks.into_iter().peekable()
    });
    let mut turns = weave.iter().cycle();
    let (mut inside, mut said, alone) = ([false, false], 0, stream[0].payload.len().div_ceil(chunk_size));
    loop {
        let starts: Vec<Option<u32>> = lanes.iter_mut().map(|lane| lane.peek().map(|(start, _)| start.unwrap_or(0))).collect();
        let lane = match (starts[0], starts[1]) {
            (None, None) => break,
            (None, Some(_)) => 1,
            (Some(_), None) => 0,
            // Every encoder says a header first.
            _ if said < alone => usize::from(stream[0].header.csid == 6),
            // A message begins when its time has come; inside one, chance decides.
            (Some(a), Some(b)) if inside == [false, false] => usize::from(b < a),
            _ => usize::from(*turns.next().unwrap_or(&true)),
        };
        let Some((_, chunk)) = lanes[lane].next() else { break };
        out.extend_from_slice(&chunk);
        said += 1;
        inside[lane] = lanes[lane].peek().is_some_and(|(start, _)| start.is_none());
    }
    out
}

fn head(message: &Message, before: Option<&Message>, first: bool) -> Vec<u8> {
    let Header { csid, kind, timestamp, length, .. } = message.header;
    let basic = |fmt: u8| fmt << 6 | csid as u8;
    let u24 = |n: u32| n.to_be_bytes()[1..].to_vec();
    let Some(before) = before else {
        let extended = timestamp >= 0xFF_FFFF;
        let tail = if extended { timestamp.to_be_bytes().to_vec() } else { Vec::new() };
        if !first {
            return [vec![basic(3)], tail].concat();
        }
        let field = timestamp.min(0xFF_FFFF);
        return [vec![basic(0)], u24(field), u24(length), vec![kind], 1u32.to_le_bytes().to_vec(), tail].concat();
    };
    if !first {
        return vec![basic(3)];
    }
    let delta = timestamp - before.header.timestamp;
    if (before.header.length, before.header.kind) == (length, kind) {
        return [vec![basic(2)], u24(delta)].concat();
    }
    [vec![basic(1)], u24(delta), u24(length), vec![kind]].concat()
}

struct Pass;

impl Filter for Pass {
    fn message(&mut self, _: &Header, _: &[u8]) -> Verdict {
        Verdict::Pass
    }
}

fn feed(joiner: &mut Joiner, bytes: &[u8], piece: usize, out: &mut Vec<u8>) -> usize {
    let (mut held, mut done) = (Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        held.extend_from_slice(piece);
        let mut outgoing = Outgoing::default();
        let taken = joiner.advance(&held, &mut Pass, &mut outgoing).expect("the stream can be followed");
        out.extend_from_slice(&held[..outgoing.pass]);
        out.extend_from_slice(&outgoing.patched);
        held.drain(..taken);
        done += taken;
    }
    done
}

/// What a second upstream hears of a stream whose first one died at `cut`, and that was taken up again at `resumed`.
fn failed_over(bytes: &[u8], cut: usize, resumed: usize, piece: usize, stream_ids: StreamIds) -> Vec<u8> {
    let start = Start { sender: Reader::commands().into_parts(), seen: Vec::new(), chunk_size: 128, stream_ids: SAME };
    let mut first = Joiner::new(start);
    first.keep(Box::default());
    let mut at = feed(&mut first, &bytes[..cut], piece, &mut Vec::new());
    let sender = first.into_sender();
    let keep = sender.keep.expect("it was to keep");
    let mut reader = Reader::resume(sender.sender, usize::MAX);
    let mut held = Held::new(*keep);
    loop {
        let (taken, message) = reader.read(&bytes[at..resumed]).expect("the stream can be followed");
        at += taken;
        match message {
            Some(message) => held.take(message, usize::MAX),
            None => break,
        }
    }
    let (mut writer, mut out) = (Writer::default(), Vec::new());
    writer.write(&mut out, 2, 0, kind::SET_CHUNK_SIZE, 0, &reader.chunk_size().to_be_bytes());
    writer.set_chunk_size(reader.chunk_size());
    let Resumed { keep, begun } = held.resume(&mut writer, &mut out, stream_ids);
    let chunk_size = writer.chunk_size();
    let start = Start { sender: reader.into_parts(), seen: writer.into_seen(), chunk_size, stream_ids };
    let mut second = Joiner::new(start);
    second.keep(Box::new(keep));
    second.resume(begun, usize::MAX);
    feed(&mut second, &bytes[at..], piece, &mut out);
    out
}

#[test]
fn a_decoder_s_header_of_which_only_the_chunk_header_had_passed_is_said_to_the_next_upstream() {
    let stream = [What::VideoHeader, What::Key, What::Inter].into_iter().zip(1..).map(|(what, number)| message(what, number, 50));
    let stream: Vec<_> = stream.collect();
    let bytes = spoken(&stream, 4096, &[]);
    let behind_the_first_header = 16 + 12;
    for resumed in [behind_the_first_header, behind_the_first_header + 1, bytes.len()] {
        let out = failed_over(&bytes, behind_the_first_header, resumed, 700, SAME);
        let got: Vec<_> = heard(&out).iter().filter(|m| m.header.kind != kind::SET_CHUNK_SIZE).map(what).collect();
        assert_eq!(got, [What::VideoHeader, What::Key, What::Inter], "{resumed}");
    }
}

#[test]
fn the_oldest_group_goes_first_and_its_headers_are_remembered() {
    let list = [
        (What::VideoHeader, 1),
        (What::Key, 1),
        (What::Inter, 2),
        (What::VideoHeader, 3),
        (What::Key, 4),
        (What::Inter, 5),
        (What::Key, 6),
    ];
    let stream: Vec<_> = list.into_iter().map(|(what, number)| message(what, number, 100)).collect();
    let mut held = Held::new(Keep::default());
    stream.iter().for_each(|m| held.take(m.clone(), usize::MAX));
    assert_eq!((held.dropped(), held.bytes()), (0, 6 * (109 + OVERHEAD)), "what comes before the first group is not of it");
    held.shrink(3 * (109 + OVERHEAD));
    assert_eq!((held.dropped(), held.bytes()), (1, 3 * (109 + OVERHEAD)));
    let mut out = Vec::new();
    held.resume(&mut Writer::default(), &mut out, SAME);
    let heard = heard(&out);
    let got: Vec<_> = heard.iter().map(|m| (what(m), m.payload[8])).collect();
    assert_eq!(got, [(What::VideoHeader, 3), (What::Key, 4), (What::Inter, 5), (What::Key, 6)]);
    assert_eq!(heard[0].header.timestamp, heard[1].header.timestamp, "headers stand at the time of what follows");
}

#[test]
fn a_group_that_is_too_large_alone_is_dropped_and_the_next_key_frame_begins_anew() {
    let mut held = Held::new(Keep::default());
    held.take(message(What::Key, 1, 1000), 1500);
    held.take(message(What::Inter, 2, 1000), 1500);
    assert_eq!((held.bytes(), held.dropped()), (0, 1));
    held.take(message(What::Inter, 3, 10), 1500);
    assert_eq!(held.bytes(), 0, "a frame without its key frame is nothing");
    held.take(message(What::Key, 4, 10), 1500);
    assert!(held.bytes() > 0);
}

#[test]
fn a_stream_without_key_frames_goes_on_with_any_frame_in_the_end() {
    let start = Start { sender: Reader::commands().into_parts(), seen: Vec::new(), chunk_size: 128, stream_ids: SAME };
    let mut joiner = Joiner::new(start);
    let mut keep = Keep::default();
    let header = message(What::VideoHeader, 0, 10);
    keep.note(&header.header, &header.payload);
    joiner.keep(Box::new(keep));
    joiner.resume(false, 1000);
    let (mut writer, mut sent, mut out) = (Writer::default(), Vec::new(), Vec::new());
    for number in 0..1000 {
        let Message { header, payload } = message(if number % 2 == 0 { What::Inter } else { What::Sound }, number, 10);
        writer.write(&mut sent, header.csid, header.timestamp, header.kind, 1, &payload);
    }
    feed(&mut joiner, &sent, 4096, &mut out);
    let heard = heard(&out);
    let first = &heard[0];
    assert_eq!(what(first), What::Inter);
    // 23 ms a message.
    let left_out = (first.header.timestamp - 0xFF_FF00) / 23;
    assert_eq!(left_out, crate::protocol::rtmp::joiner::MAX_AWAITED.div_ceil(46) * 2);
    assert_eq!(heard.len(), 1000 - left_out as usize, "and nothing is missing from there");
}
