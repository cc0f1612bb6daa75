//! The RTMP wire against recordings of real clients and nginx-rtmp, in every split, and the joiner at every joining point.

#![allow(clippy::unwrap_used, reason = "a recording that cannot be read is a failed test")]

#[path = "it/recording.rs"]
mod recording;

use proptest::prelude::*;
use recording::{Recording, recordings};
use relay::protocol::rtmp::chunk::{Message, Reader, Writer};
use relay::protocol::rtmp::client::{Answer, ClientSession};
use relay::protocol::rtmp::command::{Command, kind};
use relay::protocol::rtmp::handshake::TOTAL;
use relay::protocol::rtmp::joiner::{Filter, Joiner, Outgoing, Start, StreamIds, Verdict};
use relay::protocol::rtmp::server::{Progress, Request, ServerSession};
use relay::protocol::rtmp::tracker::Header;

/// What a stock reader makes of a chunk stream that is fed in pieces.
fn messages<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Message> {
    let mut reader = Reader::commands();
    reader.allow_media(0xFF_FFFF);
    let (mut held, mut messages) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let (taken, message) = reader.read(&held[at..]).unwrap();
            at += taken;
            match message {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        held.drain(..at);
        assert!(held.len() < 18, "only a header may be left over");
    }
    messages
}

/// What matters of a message, whatever header it had.
fn meaning(message: &Message) -> (u32, u32, u8, u32, &[u8]) {
    let Header { csid, timestamp, kind, stream_id, .. } = message.header;
    (csid, timestamp, kind, stream_id, &message.payload)
}

fn assert_same(got: &[Message], want: &[Message], context: &str) {
    assert_eq!(got.len(), want.len(), "{context}: number of messages");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(meaning(got), meaning(want), "{context}: message {i}");
    }
}

#[test]
fn every_recording_reads_the_same_in_every_split() {
    for Recording { name, client, server } in recordings() {
        for (side, bytes) in [("client", &client), ("server", &server)] {
            let stream = &bytes[TOTAL..];
            let whole = messages([stream]);
            assert!(whole.len() > 4, "{name} {side}");
            assert_same(&messages(stream.chunks(1)), &whole, &format!("{name} {side} byte by byte"));
            // Every split of the command phase, and of the first media behind it.
            for at in 0..stream.len().min(1500) {
                let (a, b) = stream[..stream.len().min(3000)].split_at(at);
                let want = messages([&stream[..stream.len().min(3000)]]);
                assert_same(&messages([a, b]), &want, &format!("{name} {side} split at {at}"));
            }
        }
    }
}

fn requested<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Request, Vec<u8>, Vec<u8>) {
    let mut session = ServerSession::new(&mut |bytes| bytes.fill(7));
    let (mut request, mut output) = (None, Vec::new());
    for piece in pieces {
        match session.handle_input(piece).unwrap() {
            Progress::Requested(r) => request = Some(*r),
            Progress::More => {}
            Progress::Refused | Progress::Connecting => panic!("nothing was refused, and nobody asked to look at connect"),
        }
        output.extend(session.take_output());
    }
    (request.expect("publish or play"), session.into_parts().rest, output)
}

#[test]
fn every_client_is_understood_in_every_split_and_what_follows_its_request_is_kept() {
    for Recording { name, client, .. } in recordings() {
        let (want, rest, output) = requested([&client[..]]);
        assert!(client.ends_with(&rest), "{name}: what follows is untouched");
        assert!(output.len() > TOTAL, "{name}: it was answered");
        let phase = client.len() - rest.len();
        for at in (0..phase).filter(|at| *at < 64 || *at > TOTAL - 64) {
            let (got, got_rest, _) = requested([&client[..at], &client[at..]]);
            assert_eq!((got.action, &got.app, &got.stream), (want.action, &want.app, &want.stream), "{name} split at {at}");
            assert_eq!(got.recorded, want.recorded, "{name} split at {at}");
            assert_eq!(got_rest, rest, "{name} split at {at}");
        }
    }
}

#[test]
fn every_answer_of_nginx_is_understood_in_every_split() {
    for Recording { name, client, server } in recordings() {
        let (request, _, _) = requested([&client[..]]);
        let mut session = ClientSession::new(request.recorded.clone(), request.stream_id, &mut |bytes| bytes.fill(7));
        let answer = session.handle_input(&server).unwrap();
        let forward = session.take_forward();
        // nginx-rtmp says nothing to a player while nobody publishes.
        let want = if name.ends_with("idle-ping") { Answer::More } else { Answer::Started };
        assert_eq!(answer, want, "{name}");
        assert!(forward.iter().any(|m| m.header.kind == kind::SET_CHUNK_SIZE), "{name}: Set Chunk Size reaches the client");
        let results = forward.iter().filter_map(|m| Command::decode(m.header.kind, &m.payload).ok());
        assert!(results.into_iter().all(|c| c.name != b"_result"), "{name}: the results are swallowed");
        for at in (TOTAL..TOTAL + 700).filter(|at| *at < server.len()) {
            let mut session = ClientSession::new(request.recorded.clone(), request.stream_id, &mut |bytes| bytes.fill(7));
            let first = session.handle_input(&server[..at]).unwrap();
            let second = if first == Answer::More { session.handle_input(&server[at..]).unwrap() } else { first };
            assert_eq!(second, want, "{name} split at {at}");
            assert_eq!(session.take_forward(), forward, "{name} split at {at}");
        }
    }
}

/// Lets everything pass, but counts commands.
struct PassAll(usize);

impl Filter for PassAll {
    fn message(&mut self, _: &Header, _: &[u8]) -> Verdict {
        self.0 += 1;
        Verdict::Pass
    }
}

/// A stream joined behind its first `skip` bytes, the rest fed in pieces of `piece`; what a stock reader that was only told the chunk
/// size makes of it.
fn joined(stream: &[u8], skip: usize, piece: usize, ids: StreamIds) -> Vec<Message> {
    let mut reader = Reader::commands();
    reader.allow_media(0xFF_FFFF);
    let mut at = 0;
    while at < skip {
        let (taken, message) = reader.read(&stream[at..skip]).unwrap();
        at += taken;
        if message.is_none() {
            break;
        }
    }
    let (tracker, partial) = reader.into_parts();
    let mut writer = Writer::default();
    let mut output = Vec::new();
    writer.write(&mut output, 2, 0, kind::SET_CHUNK_SIZE, 0, &tracker.chunk_size().to_be_bytes());
    writer.set_chunk_size(tracker.chunk_size());
    let chunk_size = writer.chunk_size();
    let start = Start { sender: (tracker, partial), seen: writer.into_seen(), chunk_size, stream_ids: ids };
    let mut joiner = Joiner::new(start);
    let mut held: Vec<u8> = Vec::new();
    for piece in stream[at..].chunks(piece) {
        held.extend_from_slice(piece);
        let mut out = Outgoing::default();
        let taken = joiner.advance(&held, &mut PassAll(0), &mut out).unwrap();
        assert!(out.whole <= out.pass && out.pass <= taken);
        output.extend_from_slice(&held[..out.pass]);
        output.extend_from_slice(&out.patched);
        held.drain(..taken);
    }
    let mut got = messages([&output[..]]);
    got.remove(0);
    got
}

const SAME: StreamIds = StreamIds { from: 1, to: 1 };

#[test]
fn a_stream_joined_at_any_point_says_the_rest_of_what_it_said() {
    for Recording { name, client, server } in recordings() {
        for (side, bytes) in [("client", &client), ("server", &server)] {
            let stream = &bytes[TOTAL..bytes.len().min(TOTAL + 12_000)];
            let whole = messages([stream]);
            for skip in (0..stream.len().min(2500)).step_by(7) {
                let before = messages([&stream[..skip]]).len();
                let got = joined(stream, skip, 1 + skip % 997, SAME);
                assert_same(&got, &whole[before..], &format!("{name} {side} joined at {skip}"));
            }
        }
    }
}

#[test]
fn joined_at_its_start_a_stream_of_full_headers_passes_byte_for_byte() {
    for Recording { name, server, .. } in recordings() {
        let stream = &server[TOTAL..];
        let (tracker, partial) = Reader::commands().into_parts();
        let start = Start { sender: (tracker, partial), seen: Vec::new(), chunk_size: 128, stream_ids: SAME };
        let mut joiner = Joiner::new(start);
        let mut output = Vec::new();
        let mut out = Outgoing::default();
        let taken = joiner.advance(stream, &mut PassAll(0), &mut out).unwrap();
        output.extend_from_slice(&stream[..out.pass]);
        output.extend_from_slice(&out.patched);
        assert_eq!(&stream[..taken], &output[..], "{name}");
    }
}

/// A sender that uses every header the specification allows it to.
#[derive(Debug, Clone)]
struct Said {
    csid: u32,
    fmt: u8,
    delta: u32,
    kind: u8,
    payload: Vec<u8>,
}

fn any_said() -> impl Strategy<Value = Said> {
    let delta = prop_oneof![4 => 0u32..100, 1 => 16_777_200u32..16_777_400, 1 => any::<u32>()];
    let size = prop_oneof![6 => 0usize..60, 2 => 100usize..700];
    (
        prop_oneof![Just(4u32), Just(6), Just(70), Just(400)],
        0u8..4,
        delta,
        prop_oneof![Just(8u8), Just(9), Just(18), Just(20)],
        size,
    )
        .prop_flat_map(|(csid, fmt, delta, kind, size)| {
            prop::collection::vec(any::<u8>(), size).prop_map(move |payload| Said { csid, fmt, delta, kind, payload })
        })
}

/// Writes what was said, with the most compressed header that the wish allows and the state permits, extended timestamps
/// repeated on each chunk.
fn spoken(said: &[Said], chunk_size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut states: Vec<(u32, u32, usize, u8)> = Vec::new();
    out.extend_from_slice(&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
    out.extend_from_slice(&(chunk_size as u32).to_be_bytes());
    for Said { csid, fmt, delta, kind, payload } in said {
        let known = states.iter().position(|(c, ..)| c == csid);
        let fmt = match (known.map(|i| states[i]), *fmt) {
            (None, _) => 0,
            (Some((_, _, length, k)), fmt @ 2..) if length != payload.len() || k != *kind => fmt.min(1),
            (Some((_, d, ..)), 3) if d != *delta => 2,
            (_, fmt) => fmt,
        };
        let basic = |out: &mut Vec<u8>, fmt: u8| match csid {
            64..320 => out.extend_from_slice(&[fmt << 6, (csid - 64) as u8]),
            320.. => out.extend_from_slice(&[fmt << 6 | 1, ((csid - 64) % 256) as u8, ((csid - 64) / 256) as u8]),
            _ => out.push(fmt << 6 | *csid as u8),
        };
        basic(&mut out, fmt);
        let extended = *delta >= 0xFF_FFFF;
        if fmt < 3 {
            out.extend_from_slice(&if extended { 0xFF_FFFFu32 } else { *delta }.to_be_bytes()[1..]);
        }
        if fmt < 2 {
            out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
            out.push(*kind);
        }
        if fmt == 0 {
            out.extend_from_slice(&1u32.to_le_bytes());
        }
        if extended {
            out.extend_from_slice(&delta.to_be_bytes());
        }
        for (i, chunk) in payload.chunks(chunk_size).enumerate() {
            if i > 0 {
                basic(&mut out, 3);
                if extended {
                    out.extend_from_slice(&delta.to_be_bytes());
                }
            }
            out.extend_from_slice(chunk);
        }
        let state = (*csid, *delta, payload.len(), *kind);
        match known {
            Some(i) => states[i] = state,
            None => states.push(state),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sender_joined_anywhere_keeps_its_meaning(
        said in prop::collection::vec(any_said(), 1..14),
        chunk_size in prop_oneof![Just(1usize), Just(3), Just(128), Just(4096)],
        skip in 0.0..1.0f64,
        piece in 1usize..300,
        to in prop_oneof![Just(1u32), Just(5)],
    ) {
        let stream = spoken(&said, chunk_size);
        let skip = (stream.len() as f64 * skip) as usize;
        let mut whole = messages([&stream[..]]);
        prop_assert_eq!(whole.len(), said.len() + 1);
        let before = messages([&stream[..skip]]).len();
        whole.iter_mut().filter(|m| m.header.stream_id == 1).for_each(|m| m.header.stream_id = to);
        let got = joined(&stream, skip, piece, StreamIds { from: 1, to });
        prop_assert_eq!(got.len(), whole.len() - before);
        for (got, want) in got.iter().zip(&whole[before..]) {
            prop_assert_eq!(meaning(got), meaning(want));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_or_the_joiner_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), piece in 1usize..200) {
        let mut reader = Reader::commands();
        let mut joiner = Joiner::new(Start { sender: Reader::commands().into_parts(), seen: Vec::new(), chunk_size: 128, stream_ids: StreamIds { from: 1, to: 5 } });
        let (mut a, mut b): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            a.extend_from_slice(piece);
            b.extend_from_slice(piece);
            while let Ok((taken, message)) = reader.read(&a) {
                a.drain(..taken);
                if message.is_none() { break; }
            }
            if let Ok(taken) = joiner.advance(&b, &mut PassAll(0), &mut Outgoing::default()) {
                b.drain(..taken);
            } else {
                break;
            }
        }
    }

    #[test]
    fn no_bytes_make_a_session_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut hello = vec![3; TOTAL];
        hello.extend_from_slice(&bytes);
        let mut server = ServerSession::new(&mut |b| b.fill(0));
        let _ = server.handle_input(&hello);
        let mut client = ClientSession::new(Vec::new(), 1, &mut |b| b.fill(0));
        let _ = client.handle_input(&hello);
    }
}
