//! The operations that are counted and timed: what the wire costs, without sockets.
//!
//! Inputs are recordings of real clients (`tests/golden`) and generated media: a second of a 2.5 Mb/s stream as OBS cuts it.

use std::hint::black_box;

use relay::protocol::name::Names;
use relay::protocol::rtmp::amf0;
use relay::protocol::rtmp::chunk::{Reader, Writer};
use relay::protocol::rtmp::client::ClientSession;
use relay::protocol::rtmp::command::kind;
use relay::protocol::rtmp::handshake::TOTAL;
use relay::protocol::rtmp::joiner::{Filter, Joiner, Outgoing, Start, StreamIds, Verdict};
use relay::protocol::rtmp::replay::Renamer;
use relay::protocol::rtmp::server::{Progress, Request, ServerSession};
use relay::protocol::rtmp::tracker::{Header, Limits, Step, Tracker};

#[path = "../../tests/it/recording.rs"]
mod recording;

/// Chunk size of OBS.
const CHUNK: u32 = 4096;
/// A TCP segment on an Ethernet path.
const SEGMENT: usize = 1448;

/// One of them.
pub struct Operation {
    /// As the tables name it.
    pub name: &'static str,
    /// Bytes that one run goes through.
    pub bytes: usize,
    /// One run.
    pub run: Box<dyn FnMut()>,
}

/// All of them.
pub fn all() -> Vec<Operation> {
    let all = recording::recordings();
    let of = |name: &str| all.iter().find(|recording| recording.name == name).expect("it is recorded");
    let publish = of("ffmpeg-5.1-publish-stream-token");
    let second = second();
    let request = requested(&publish.client);
    let connect = request.recorded.iter().find(|m| m.header.kind == kind::COMMAND).expect("connect comes first").payload.clone();
    let values = amf0::decode_all(&connect).expect("ffmpeg speaks AMF0");
    let client = up_to_publish(&publish.client);
    let server = publish.server.clone();
    let [whole, segments, frames, kept] = [(); 4].map(|()| second.clone());
    let recorded = publish.client[TOTAL..].to_vec();
    vec![
        operation("tracker: a second of 2.5 Mb/s at once", whole.len(), move || follow([&whole[..]])),
        operation("tracker: the same by segments", segments.len(), move || follow(segments.chunks(SEGMENT))),
        operation("joiner: the same, switched, by 64 KiB", frames.len(), move || join(&frames, false)),
        operation("joiner: the same, and what lasts is kept", kept.len(), move || join(&kept, true)),
        operation("reader: ffmpeg publishes", recorded.len(), move || read(&recorded)),
        operation("amf0: decode ffmpeg's connect", connect.len(), {
            let connect = connect.clone();
            move || _ = black_box(amf0::decode_all(&connect))
        }),
        operation("amf0: encode it", connect.len(), move || {
            let mut out = Vec::new();
            values.iter().for_each(|value| amf0::encode(value, &mut out));
            black_box(out);
        }),
        operation("server: ffmpeg up to publish", client.len(), move || _ = black_box(requested(&client))),
        operation("client: the same to nginx-rtmp", server.len(), move || introduce(&request, &server)),
    ]
}

fn operation(name: &'static str, bytes: usize, run: impl FnMut() + 'static) -> Operation {
    Operation { name, bytes, run: Box::new(run) }
}

/// Thirty frames and 47 AAC messages, in their order.
fn second() -> Vec<u8> {
    let mut writer = Writer::default();
    let mut out = Vec::new();
    writer.write(&mut out, 2, 0, kind::SET_CHUNK_SIZE, 0, &CHUNK.to_be_bytes());
    writer.set_chunk_size(CHUNK);
    let (mut video, mut audio) = (0, 0);
    while video < 30 {
        if video * 1000 / 30 <= audio * 1000 / 47 {
            writer.write(&mut out, 6, video * 1000 / 30, kind::VIDEO, 1, &[0x27; 10_124]);
            video += 1;
        } else {
            writer.write(&mut out, 4, audio * 1000 / 47, kind::AUDIO, 1, &[0xAF; 328]);
            audio += 1;
        }
    }
    out
}

fn follow<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) {
    let mut tracker = Tracker::new(Limits::MEDIA);
    // The start of a header that is not whole.
    let mut held: Vec<u8> = Vec::new();
    for piece in pieces {
        if held.is_empty() {
            held.extend_from_slice(&piece[pass(&mut tracker, piece)..]);
        } else {
            held.extend_from_slice(piece);
            let taken = pass(&mut tracker, &held);
            held.drain(..taken);
        }
        // Asked where a read has drained the socket.
        black_box(tracker.missing());
    }
}

fn pass(tracker: &mut Tracker, input: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match tracker.next(&input[at..]).expect("a chunk stream") {
            Step::NeedMore => return at,
            Step::Header { length, .. } | Step::Payload { length, .. } => at += length,
        }
    }
}

struct PassAll;

impl Filter for PassAll {
    fn message(&mut self, _: &Header, _: &[u8]) -> Verdict {
        Verdict::Pass
    }
}

fn join(stream: &[u8], keeps: bool) {
    let sender = Reader::commands().into_parts();
    let mut joiner = Joiner::new(Start { sender, seen: Vec::new(), chunk_size: 128, stream_ids: StreamIds { from: 1, to: 1 } });
    if keeps {
        joiner.keep(Box::default());
    }
    let mut at = 0;
    while at < stream.len() {
        let end = (at + 64 * 1024).min(stream.len());
        let mut out = Outgoing::default();
        at += joiner.advance(&stream[at..end], &mut PassAll, &mut out).expect("a chunk stream");
        black_box(out);
    }
}

fn read(stream: &[u8]) {
    let mut reader = Reader::commands();
    reader.allow_media(0xFF_FFFF);
    let mut at = 0;
    loop {
        let (taken, message) = reader.read(&stream[at..]).expect("a chunk stream");
        at += taken;
        if black_box(message).is_none() {
            return;
        }
    }
}

/// Without the media behind it.
fn up_to_publish(client: &[u8]) -> Vec<u8> {
    let mut session = ServerSession::new(&mut |bytes| bytes.fill(7));
    session.handle_input(client).expect("ffmpeg speaks RTMP");
    let rest = session.into_parts().rest;
    client[..client.len() - rest.len()].to_vec()
}

fn requested(client: &[u8]) -> Box<Request> {
    let mut session = ServerSession::new(&mut |bytes| bytes.fill(7));
    for piece in client.chunks(SEGMENT) {
        let progress = session.handle_input(piece).expect("ffmpeg speaks RTMP");
        black_box(session.take_output());
        if let Progress::Requested(request) = progress {
            return request;
        }
    }
    unreachable!("ffmpeg publishes")
}

fn introduce(request: &Request, server: &[u8]) {
    let names = Names { app: b"live".to_vec(), stream: b"cam".to_vec(), tc_url: b"rtmp://origin/live".to_vec() };
    let script = Renamer::new(request, names, true).replay(request);
    let mut session = ClientSession::new(script, request.stream_id, &mut |bytes| bytes.fill(7));
    black_box(session.take_output());
    black_box(session.handle_input(server).expect("nginx speaks RTMP"));
    black_box((session.take_output(), session.take_forward()));
}
