//! A publisher outlives its upstream: it is told nothing, and its stream goes on at another from a key frame, byte for byte.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::amf::{self, Amf, obj, s};
use crate::client::Client;
use crate::ear::End;
use crate::origin::{At, Deed, Line, Origin, Script};
use crate::parser::{Message, kind};
use crate::relay::{Face, Relay};
use crate::speech::body;
use crate::wait::{wait_equal, wait_for, wait_until};

/// A relay in front of two origins; the first session goes to the first.
pub(crate) fn between(a: &Origin, b: &Origin, mut more: Value) -> Relay {
    more["upstreams"] = json!([{ "url": a.url("") }, { "url": b.url("") }]);
    Relay::with("", more)
}

/// A publisher that says what it sends in the test's order, and remembers it.
pub(crate) struct Encoder {
    pub(crate) client: Client,
    time: u32,
    pub(crate) said: Vec<Message>,
}

impl Encoder {
    /// Publishes `stream`, and has said its metadata and headers. Its times pass the bound of three bytes early on.
    pub(crate) fn publishing(relay: &Face, stream: &str) -> Self {
        let mut client = Client::publishing(relay, "live", stream);
        client.set_chunk_size(4096);
        let mut encoder = Self { client, time: 16_777_100, said: Vec::new() };
        let meta = amf::values(&[s("@setDataFrame"), s("onMetaData"), obj(&[("width", Amf::Num(640.0))])]);
        encoder.say(4, kind::DATA, &meta);
        encoder.say(6, kind::VIDEO, b"\x17\x00\0\0\0avc");
        encoder.say(4, kind::AUDIO, b"\xAF\x00\x12\x10");
        encoder
    }

    pub(crate) fn say(&mut self, csid: u32, kind: u8, body: &[u8]) {
        self.time += 20;
        let message = self.client.say(csid, self.time, kind, 1, body);
        self.said.push(message);
    }

    fn picture(&mut self, front: &[u8], length: usize) {
        let picture = [front, &body(self.time, length)].concat();
        self.say(6, kind::VIDEO, &picture);
    }

    pub(crate) fn key(&mut self) {
        self.picture(b"\x17\x01\0\0\0", 9000);
    }

    pub(crate) fn inter(&mut self) {
        self.picture(b"\x27\x01\0\0\0", 2000);
    }

    pub(crate) fn sound(&mut self) {
        let sound = [&b"\xAF\x01"[..], &body(self.time, 300)].concat();
        self.say(4, kind::AUDIO, &sound);
    }

    /// A key frame and what follows it: five messages.
    pub(crate) fn group(&mut self) {
        self.key();
        for _ in 0..2 {
            self.sound();
            self.inter();
        }
    }

    /// Waits until `line` has heard everything said so far that is media, from its `from`th message on.
    pub(crate) fn arrives(&self, line: &Line, from: usize) {
        let want = &self.said[from..];
        let got = media(line, want.len());
        for (number, (got, want)) in got.iter().zip(want).enumerate() {
            // On the message stream that this origin gave.
            assert_eq!(
                (got.csid, got.time, got.kind, &got.body),
                (want.csid, want.time, want.kind, &want.body),
                "message {number}"
            );
        }
        assert_eq!(got.len(), want.len());
        assert_eq!(line.ear.record().wrong, None);
    }
}

const MEDIA: [u8; 3] = [kind::AUDIO, kind::VIDEO, kind::DATA];

/// Media that a line has heard behind metadata and headers, once there is so much.
fn media(line: &Line, count: usize) -> Vec<Message> {
    line.ear.wait_count(&MEDIA, count + 3)[3..].to_vec()
}

/// What a line has heard first of a stream: metadata and headers.
fn headers(line: &Line) -> Vec<Message> {
    line.ear.wait_count(&MEDIA, 3)[..3].to_vec()
}

/// Waits until the session is held.
pub(crate) fn wait_held(relay: &Face, client: SocketAddr) {
    wait_equal("the session", &json!("holding"), || relay.row(client)["state"].clone());
}

/// Retries fast, and never gives up.
pub(crate) fn eager(mut more: Value) -> Value {
    more["retry"] = json!({ "initial_delay_sec": 0.02, "max_delay_sec": 0.05, "max_attempts": 1000 });
    more["circuit_breaker"] = json!({ "enabled": false });
    more
}

/// Publishes to the first of two origins, lets it die, and looks whether the stream goes on at the second.
fn goes_on(relay: &Relay, a: &Origin, b: &Origin, die: impl FnOnce(&Line)) -> (Encoder, Line) {
    let mut encoder = Encoder::publishing(relay, "cam");
    encoder.group();
    encoder.inter();
    let first = a.line_of("cam");
    encoder.arrives(&first, 3);
    let heard = encoder.client.ear.record().messages.len();
    die(&first);
    let second = b.line_of("cam");
    // Of the group that the first has begun with, the second hears nothing.
    encoder.sound();
    encoder.inter();
    let next = encoder.said.len();
    encoder.group();
    encoder.arrives(&second, next);
    encoder.group();
    encoder.arrives(&second, next);
    let said = encoder.said[..3].to_vec();
    for (got, want) in headers(&second).iter().zip(said) {
        assert_eq!((got.csid, got.kind, &got.body), (want.csid, want.kind, &want.body));
        assert!(got.time >= encoder.said[3].time && got.time <= encoder.said[next].time, "headers stand at the stream's time");
    }
    assert_eq!(encoder.client.ear.record().messages.len(), heard, "the client is told nothing");
    (encoder, second)
}

#[test]
fn a_publisher_whose_origin_closes_or_resets_goes_on_at_the_other_from_the_next_key_frame() {
    for die in [Line::finish, Line::reset] {
        let (a, b) = (Origin::willing(), Origin::willing());
        let relay = between(&a, &b, json!({}));
        let (mut encoder, line) = goes_on(&relay, &a, &b, die);
        let row = relay.row(encoder.client.address());
        assert_eq!((row["state"].as_str(), row["holds"].as_u64()), (Some("relaying"), Some(1)));
        assert_eq!(row["upstream_addr"], json!(b.address));
        // It ends as if nothing had been.
        encoder.client.command(3, 0, "FCUnpublish", &[Amf::Null, s("cam")]);
        encoder.client.command(3, 0, "deleteStream", &[Amf::Null, Amf::Num(1.0)]);
        encoder.client.leave();
        line.ear.wait_command("deleteStream");
        line.finish();
        relay.wait_ended("client", "client_closed");
        assert_eq!(relay.connections(), (1, 0, 0));
        let over = |result: &str| relay.metric(&format!("rtmp_relay_publish_holds_over_total{{result=\"{result}\"}}"));
        assert_eq!((relay.metric("rtmp_relay_publish_holds_total"), over("resumed"), over("expired")), (1, 1, 0));
        assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"lost\"}"), 1);
        assert_eq!(relay.metric("rtmp_relay_publishers_held"), 0);
        relay.wait_empty();
    }
}

#[test]
fn the_second_origin_hears_what_the_client_said_when_it_came_and_may_differ_in_all_that_it_chooses() {
    let a = Origin::willing();
    let b = Origin::new(Script { stream_id: 5, chunk_size: 300, ..Script::default() });
    let auth = json!({ "security": { "auth_enabled": true, "auth_tokens": ["t0ken"] } });
    let relay = between(&a, &b, auth);
    let mut encoder = Encoder::publishing(&relay, "cam?token=t0ken");
    encoder.group();
    let first = a.line_of("cam");
    encoder.arrives(&first, 3);
    first.reset();
    let second = b.line_of("cam");
    let next = encoder.said.len();
    encoder.group();
    encoder.arrives(&second, next);
    let record = second.ear.record();
    let commands: Vec<_> = record.messages.iter().filter_map(Message::command).map(|(name, ..)| name).collect();
    assert_eq!(commands, ["connect", "createStream", "publish"]);
    let sizes: Vec<_> = record.messages.iter().filter(|m| m.kind == kind::SET_CHUNK_SIZE).map(|m| m.body.clone()).collect();
    assert_eq!(sizes, [4096_u32.to_be_bytes()], "once, where it begins to count");
    assert!(record.messages.iter().filter(|m| MEDIA.contains(&m.kind)).all(|m| m.stream == 5));
    assert!(!record.bytes.windows(5).any(|w| w == b"t0ken"));
    drop(record);
    // What it says later reaches the client in chunks that the client understands.
    let text = "x".repeat(900);
    let status = amf::command(
        "onStatus",
        0.0,
        &[Amf::Null, obj(&[("level", s("status")), ("code", s("Some.Thing")), ("description", s(&text))])],
    );
    second.say(5, 0, kind::COMMAND, &status);
    let told = |m: &Message| m.told().is_some_and(|(code, description)| code == "Some.Thing" && description == text);
    assert_eq!(encoder.client.ear.wait_message("the status is heard", told).stream, 1);
    assert_eq!(encoder.client.ear.record().wrong, None);
}

#[test]
fn a_publisher_is_held_until_its_only_origin_is_there_again_and_loses_only_the_group_that_was_cut() {
    let a = Origin::willing();
    let address = a.address;
    let relay = Relay::with(&a.url(""), eager(json!({})));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.group();
    encoder.arrives(&a.line_of("cam"), 3);
    drop(a);
    wait_held(&relay, encoder.client.address());
    assert_eq!(relay.metric("rtmp_relay_publishers_held"), 1);
    encoder.inter();
    // A header that changes meanwhile is the one that the new upstream hears first.
    encoder.say(4, kind::AUDIO, b"\xAF\x00\x13\x90");
    let next = encoder.said.len();
    encoder.group();
    encoder.group();
    let b = Origin::over(listen(address), |_| Script::default());
    let line = b.line_of("cam");
    encoder.arrives(&line, next);
    assert_eq!(headers(&line)[2].body, b"\xAF\x00\x13\x90");
    encoder.group();
    encoder.arrives(&line, next);
    assert_eq!(relay.metric("rtmp_relay_publish_hold_dropped_groups_total"), 0);
}

/// Listens where somebody did a moment ago.
pub(crate) fn listen(address: SocketAddr) -> TcpListener {
    wait_for("the address is free again", || TcpListener::bind(address).ok())
}

#[test]
fn beyond_the_bound_whole_groups_go_and_the_oldest_first() {
    let a = Origin::willing();
    let address = a.address;
    let relay = Relay::with(&a.url(""), eager(json!({ "publish_hold": { "max_bytes": 65536 } })));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.key();
    encoder.arrives(&a.line_of("cam"), 3);
    drop(a);
    wait_held(&relay, encoder.client.address());
    // 13.6 KB each, and with what each message weighs by itself 13.9: four fit.
    let starts: Vec<usize> = (0..7)
        .map(|_| {
            let start = encoder.said.len();
            encoder.group();
            start
        })
        .collect();
    let count = 4 + 7 * 5;
    wait_equal("messages that have come", &json!(count), || {
        relay.row(encoder.client.address())["to_upstream"]["messages"].clone()
    });
    let b = Origin::over(listen(address), |_| Script::default());
    let line = b.line_of("cam");
    encoder.arrives(&line, starts[3]);
    assert_eq!(relay.metric("rtmp_relay_publish_hold_dropped_groups_total"), 3);
}

#[test]
fn a_stream_without_video_goes_on_with_any_sound() {
    let (a, b) = (Origin::willing(), Origin::willing());
    let relay = between(&a, &b, json!({}));
    let mut client = Client::publishing(&relay, "live", "cam");
    let header = client.say(4, 0, kind::AUDIO, 1, b"\xAF\x00\x12\x10");
    client.say(4, 0, kind::AUDIO, 1, b"\xAF\x01one");
    let first = a.line_of("cam");
    first.ear.wait_count(&[kind::AUDIO], 2);
    first.reset();
    let second = b.line_of("cam");
    let next = client.say(4, 40, kind::AUDIO, 1, b"\xAF\x01two");
    let heard = second.ear.wait_count(&[kind::AUDIO], 2);
    assert_eq!((&heard[0].body, &heard[1]), (&header.body, &next));
}

#[test]
fn a_frame_cut_in_two_by_its_origins_end_is_left_out_whole() {
    let (a, b) = (Origin::willing(), Origin::willing());
    let relay = between(&a, &b, json!({}));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.key();
    let first = a.line_of("cam");
    encoder.arrives(&first, 3);
    let before = first.ear.record().bytes.len();
    // More than is held: its front leaves at once.
    let long = [&b"\x27\x01\0\0\0"[..], &body(1, 200_000)].concat();
    let bytes = crate::speech::Say::full(6, 16_800_000, kind::VIDEO, 1, &long).bytes(4096);
    let (front, rest) = bytes.split_at(120_000);
    encoder.client.write(front);
    first.ear.wait("half a frame is heard", |record| (record.bytes.len() > before).then_some(()));
    first.reset();
    let second = b.line_of("cam");
    encoder.client.write(rest);
    let next = encoder.said.len();
    encoder.group();
    encoder.arrives(&second, next);
}

#[test]
fn an_origin_that_asks_to_be_reconnected_to_is_left_in_order() {
    let (a, b) = (Origin::willing(), Origin::willing());
    let relay = between(&a, &b, json!({}));
    let ask = obj(&[
        ("level", s("status")),
        ("code", s("NetConnection.Connect.ReconnectRequest")),
        ("tcUrl", s("rtmp://elsewhere/live")),
    ]);
    let request = amf::command("onStatus", 0.0, &[Amf::Null, ask]);
    goes_on(&relay, &a, &b, |line| {
        line.say(3, 0, kind::COMMAND, &request);
        line.ear.wait_command("deleteStream");
        let names: Vec<_> = line.ear.record().messages.iter().filter_map(Message::command).map(|(name, ..)| name).collect();
        assert!(names.ends_with(&["FCUnpublish".to_owned(), "deleteStream".to_owned()]), "{names:?}");
        assert_eq!(line.ear.wait_end(), End::Fin);
        line.finish();
    });
}

#[test]
fn an_origin_that_takes_nothing_more_is_lost_and_the_stream_goes_on() {
    let (a, b) = (Origin::willing(), Origin::willing());
    let relay = between(&a, &b, json!({ "upstream_stall_timeout": "1s", "tcp": { "send_buffer": 65536 } }));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.key();
    let line = a.line_of("cam");
    encoder.arrives(&line, 3);
    line.ear.stop_listening();
    // What its kernel takes is more than an encoder sends in a while: this one hurries.
    let flood = encoder.client.socket.try_clone().expect("a socket can be cloned");
    let stop = Flood::begin(flood);
    wait_until("the upstream is lost", || relay.metric("rtmp_relay_publish_holds_total") == 1);
    let second = b.line_of("cam");
    stop.end();
    let next = encoder.said.len();
    encoder.group();
    let last = encoder.said[next..].to_vec();
    let want = last.len();
    second.ear.wait("the next group is heard", |record| {
        let heard: Vec<_> = record.messages.iter().filter(|m| MEDIA.contains(&m.kind)).collect();
        heard.windows(want).any(|heard| heard.iter().zip(&last).all(|(heard, said)| **heard == *said)).then_some(())
    });
}

/// Writes frames as fast as they are taken, each whole.
struct Flood {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Flood {
    fn begin(mut socket: TcpStream) -> Self {
        use std::io::Write;
        use std::sync::atomic::Ordering::SeqCst;
        let stop = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let told = std::sync::Arc::clone(&stop);
        let frame = [&b"\x27\x01\0\0\0"[..], &body(1, 50_000)].concat();
        let bytes = crate::speech::Say::full(6, 16_777_300, kind::VIDEO, 1, &frame).bytes(4096);
        let thread = std::thread::spawn(move || {
            while !told.load(SeqCst) {
                socket.write_all(&bytes).expect("the relay keeps its client");
            }
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        self.thread.join().expect("the relay keeps its client");
    }
}

#[test]
fn two_hundred_publishers_whose_origin_dies_all_go_on_at_one_that_has_few_places_to_wait_in() {
    const STREAMS: usize = 200;
    let start = || relay::origin::Origin::start(([127, 0, 0, 1], 0).into()).expect("an origin");
    // Its listening socket has a queue of 128.
    let (a, b) = (start(), start());
    let url = |origin: &relay::origin::Origin| json!({ "url": format!("rtmp://{}", origin.addr()), "weight": 1 });
    let relay = Relay::with("", json!({ "upstreams": [url(&a), url(&b)] }));
    let mut clients: Vec<TcpStream> = (0..STREAMS).map(|number| silent(&relay, &format!("cam{number}"))).collect();
    wait_equal("streams", &STREAMS, || a.figures().streams + b.figures().streams);
    let at_a = a.figures().streams;
    assert!(at_a > 0, "some are to be moved");
    drop(a);
    wait_equal("streams", &STREAMS, || b.figures().streams);
    wait_equal("held", &at_a, || relay.metric("rtmp_relay_publish_holds_over_total{result=\"resumed\"}") as usize);
    assert_eq!(relay.metric("rtmp_relay_publish_holds_total") as usize, at_a);
    relay.wait_active(STREAMS as u64);
    let received = b.figures().received;
    for client in &mut clients {
        use std::io::Write;
        let key = [&b"\x17\x01\0\0\0"[..], &body(1, 100)].concat();
        client.write_all(&crate::speech::Say::full(6, 0, kind::VIDEO, 1, &key).bytes(128)).expect("the relay keeps its client");
    }
    wait_until("all of them are heard", || b.figures().received >= received + 105 * STREAMS as u64);
    clients.iter().for_each(|client| client.shutdown(Shutdown::Write).expect("it is open"));
    relay.wait_active(0);
    assert_eq!(relay.connections(), (STREAMS as u64, 0, 0));
}

/// A publisher that does not listen.
fn silent(relay: &Face, stream: &str) -> TcpStream {
    let mut client = Client::asking_to_publish(relay, "live", stream);
    client.write(&[]);
    client.started();
    client.socket.try_clone().expect("a socket can be cloned")
}

#[test]
fn an_origin_that_is_not_ready_in_the_middle_of_the_search_is_not_the_end_of_it() {
    let a = Origin::willing();
    let address = a.address;
    let relay = Relay::with(&a.url(""), eager(json!({ "dial_timeout": "200ms" })));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.key();
    encoder.arrives(&a.line_of("cam"), 3);
    drop(a);
    wait_held(&relay, encoder.client.address());
    // It comes back badly: resets, says nothing, closes inside its handshake.
    let b = Origin::over(listen(address), |number| match number {
        0 => Script::doing(At::Accept, Deed::Reset),
        1 => Script::doing(At::Connect, Deed::Stall),
        2 => Script::doing(At::Handshake, Deed::Close),
        _ => Script::default(),
    });
    let line = b.line_of("cam");
    let next = encoder.said.len();
    encoder.group();
    wait_until("it has come back well", || relay.row(encoder.client.address())["state"] == "relaying");
    encoder.arrives(&line, next);
}
