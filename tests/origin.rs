//! The embedded origin over sockets, with the relay's own protocol on the other side.
//!
//! What it gives to real encoders and players is seen in `tests/e2e`; what its parts decide, in their unit tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use relay::origin::script::{STREAM_ID, script};
use relay::origin::{Figures, Options, Origin};
use relay::protocol::name::Action;
use relay::protocol::rtmp::chunk::{Message, Reader, Writer};
use relay::protocol::rtmp::client::{Answer, ClientSession};
use relay::protocol::rtmp::command::{Command, event, kind};

const SOON: Duration = Duration::from_secs(10);

const META: &[u8] = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x00\x00\x00\x09";
const AVC: &[u8] = &[0x17, 0, 0, 0, 0, 1, 77];
const AAC: &[u8] = &[0xAF, 0, 0x12, 0x10];
const SOUND: &[u8] = &[0xAF, 1, 1, 2, 3];

fn frame(first: u8, number: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![first, 1, 0, 0, 0, number];
    frame.resize(length, number);
    frame
}

fn origin() -> Origin {
    Origin::start(loopback()).expect("loopback has a free port")
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn wait_for(origin: &Origin, what: &str, is: impl Fn(Figures) -> bool) {
    let deadline = Instant::now() + SOON;
    while !is(origin.figures()) {
        assert!(Instant::now() < deadline, "waited in vain until {what}: {:?}", origin.figures());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A peer of the origin that has been answered.
struct Peer {
    socket: TcpStream,
    reader: Reader,
    writer: Writer,
    input: Vec<u8>,
    heard: Vec<Message>,
}

impl Peer {
    fn ask(origin: &Origin, action: Action, app: &str, stream: &str) -> (Self, Answer) {
        let mut socket = TcpStream::connect(origin.addr()).expect("the origin accepts");
        socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        let script = script(action, &origin.addr().to_string(), app, stream);
        let mut session = ClientSession::new(script, STREAM_ID, &mut |_| {});
        let mut piece = [0; 4096];
        let answer = loop {
            socket.write_all(&session.take_output()).expect("the origin reads");
            let read = socket.read(&mut piece).expect("the origin answers");
            match session.handle_input(&piece[..read]).expect("the origin speaks RTMP") {
                Answer::More => assert_ne!(read, 0, "closed without an answer"),
                answer => break answer,
            }
        };
        let heard = session.take_forward();
        let (mut reader, input, writer) = session.into_reader();
        reader.allow_media(1 << 20);
        let mut peer = Peer { socket, reader, writer, input, heard };
        peer.listen();
        (peer, answer)
    }

    fn publish(origin: &Origin, stream: &str) -> Self {
        let (peer, answer) = Self::ask(origin, Action::Publish, "live", stream);
        assert_eq!(answer, Answer::Started);
        peer
    }

    fn play(origin: &Origin, stream: &str) -> Self {
        let (peer, answer) = Self::ask(origin, Action::Play, "live", stream);
        assert_eq!(answer, Answer::Started);
        peer
    }

    /// Reads once; false at the end.
    fn step(&mut self) -> bool {
        let mut piece = [0; 65536];
        let read = self.socket.read(&mut piece).expect("the origin says something or closes");
        self.input.extend_from_slice(&piece[..read]);
        self.listen();
        read > 0
    }

    fn listen(&mut self) {
        loop {
            let (taken, message) = self.reader.read(&self.input).expect("the origin speaks RTMP");
            self.input.drain(..taken);
            match message {
                Some(message) => self.heard.push(message),
                None => return,
            }
        }
    }

    fn send(&mut self, kind: u8, time: u32, payload: &[u8]) {
        let mut out = Vec::new();
        self.writer.write(&mut out, 4, time, kind, STREAM_ID, payload);
        self.socket.write_all(&out).expect("the origin reads");
    }

    fn order(&mut self, name: &str) {
        let command = Command::new(name, 0.0, vec![]);
        self.send(command.kind(), 0, &command.encode());
    }

    /// Waits for so many packets of the stream, and gives kind, time and body of each.
    fn packets(&mut self, count: usize) -> Vec<(u8, u32, Vec<u8>)> {
        loop {
            let packets: Vec<_> = self.media().collect();
            if packets.len() >= count {
                return packets;
            }
            assert!(self.step(), "closed after {} packets of {count}", self.media().count());
        }
    }

    fn media(&self) -> impl Iterator<Item = (u8, u32, Vec<u8>)> {
        let is_media = |m: &&Message| matches!(m.header.kind, kind::AUDIO | kind::VIDEO | kind::DATA);
        self.heard.iter().filter(is_media).map(|m| (m.header.kind, m.header.timestamp, m.payload.clone()))
    }

    /// Reads to the end of the connection.
    fn read_to_end(&mut self) {
        while self.step() {}
    }

    fn heard_code(&self, code: &str) -> bool {
        self.heard.iter().any(|m| m.header.kind == kind::COMMAND && m.payload.windows(code.len()).any(|w| w == code.as_bytes()))
    }

    fn heard_event(&self, event: u16) -> bool {
        self.heard.iter().any(|m| m.header.kind == kind::USER_CONTROL && m.payload.starts_with(&event.to_be_bytes()))
    }
}

#[test]
fn two_players_get_what_one_publisher_sends() {
    let origin = origin();
    let mut one = Peer::play(&origin, "cam?a=b");
    let mut publisher = Peer::publish(&origin, "cam");
    let mut two = Peer::play(&origin, "cam");
    wait_for(&origin, "everyone is there", |f| (f.streams, f.players) == (1, 2));
    let sent = [
        (kind::DATA, 0, META.to_vec()),
        (kind::VIDEO, 0, AVC.to_vec()),
        (kind::AUDIO, 0, AAC.to_vec()),
        (kind::VIDEO, 10, frame(0x17, 1, 100_000)),
        (kind::AUDIO, 12, SOUND.to_vec()),
        (kind::VIDEO, 0x0100_0000, frame(0x27, 2, 5000)),
    ];
    for (kind, time, payload) in &sent {
        publisher.send(*kind, *time, payload);
    }
    assert_eq!(one.packets(sent.len()), sent);
    assert_eq!(two.packets(sent.len()), sent);
}

#[test]
fn metadata_reaches_players_without_its_envelope() {
    let origin = origin();
    let mut player = Peer::play(&origin, "cam");
    let mut publisher = Peer::publish(&origin, "cam");
    publisher.send(kind::DATA, 0, &[&b"\x02\x00\x0d@setDataFrame"[..], META].concat());
    publisher.send(kind::DATA_AMF3, 1, &[&b"\x00\x02\x00\x0d@setDataFrame"[..], META].concat());
    assert_eq!(player.packets(2), [(kind::DATA, 0, META.to_vec()), (kind::DATA, 1, META.to_vec())]);
    assert_eq!(Peer::play(&origin, "cam").packets(1), [(kind::DATA, 1, META.to_vec())]);
}

#[test]
fn a_late_player_gets_headers_and_the_last_group_of_pictures_first() {
    let origin = origin();
    let mut early = Peer::play(&origin, "cam");
    let mut publisher = Peer::publish(&origin, "cam");
    publisher.send(kind::VIDEO, 0, AVC);
    publisher.send(kind::AUDIO, 0, AAC);
    for (time, first) in [(0, 0x17), (40, 0x27), (80, 0x17), (120, 0x27)] {
        publisher.send(kind::VIDEO, time, &frame(first, 0, 20));
    }
    early.packets(6);
    let mut late = Peer::play(&origin, "cam");
    publisher.send(kind::VIDEO, 160, &frame(0x27, 3, 20));
    let want = [
        (kind::VIDEO, 80, AVC.to_vec()),
        (kind::AUDIO, 80, AAC.to_vec()),
        (kind::VIDEO, 80, frame(0x17, 0, 20)),
        (kind::VIDEO, 120, frame(0x27, 0, 20)),
        (kind::VIDEO, 160, frame(0x27, 3, 20)),
    ];
    assert_eq!(late.packets(5), want);
}

#[test]
fn an_aggregate_is_taken_apart() {
    let origin = origin();
    let mut player = Peer::play(&origin, "cam");
    let mut publisher = Peer::publish(&origin, "cam");
    let mut body = b"\x08\0\0\x05\0\0\x07\0\0\0\0".to_vec();
    body.extend_from_slice(SOUND);
    body.extend_from_slice(b"\0\0\0\x10\x09\0\0\x07\0\0\x09\0\0\0\0");
    body.extend_from_slice(AVC);
    body.extend_from_slice(b"\0\0\0\x12");
    publisher.send(kind::AGGREGATE, 1000, &body);
    assert_eq!(player.packets(2), [(kind::AUDIO, 1000, SOUND.to_vec()), (kind::VIDEO, 1002, AVC.to_vec())]);
}

#[test]
fn a_second_publisher_of_a_stream_is_refused_and_the_first_goes_on() {
    let origin = origin();
    let mut first = Peer::publish(&origin, "cam");
    let (mut second, answer) = Peer::ask(&origin, Action::Publish, "", "live/cam");
    assert!(matches!(answer, Answer::Refused { code, .. } if code == "NetStream.Publish.BadName"));
    let mut piece = [0; 64];
    assert_eq!(second.socket.read(&mut piece).expect("it is closed in order"), 0);
    let mut player = Peer::play(&origin, "cam");
    first.send(kind::AUDIO, 5, SOUND);
    assert_eq!(player.packets(1).len(), 1);
    drop(first);
    player.read_to_end();
    Peer::publish(&origin, "cam");
}

#[test]
fn the_end_of_a_stream_is_said_to_its_players_who_are_then_closed() {
    for order in ["FCUnpublish", "deleteStream", "closeStream"] {
        let origin = origin();
        let mut player = Peer::play(&origin, "cam");
        let mut publisher = Peer::publish(&origin, "cam");
        publisher.send(kind::VIDEO, 0, &frame(0x17, 1, 300_000));
        publisher.order(order);
        player.read_to_end();
        assert_eq!(player.media().count(), 1, "what was sent before the end comes before it");
        assert!(player.heard_code("NetStream.Play.UnpublishNotify") && player.heard_event(event::STREAM_EOF));
        wait_for(&origin, "nobody is left", |f| (f.streams, f.players) == (0, 0));
        // Not closed: a publisher that still says goodbye would take it for a fault.
        while !publisher.heard_code("NetStream.Unpublish.Success") {
            assert!(publisher.step(), "closed before it was told");
        }
    }
}

#[test]
fn a_player_that_leaves_is_forgotten() {
    let origin = origin();
    let player = Peer::play(&origin, "cam");
    let (stopped, _) = Peer::ask(&origin, Action::Play, "live", "cam");
    wait_for(&origin, "both are there", |f| f.players == 2);
    drop(player);
    wait_for(&origin, "one is left", |f| f.players == 1);
    drop(stopped);
    wait_for(&origin, "none is left", |f| f.players == 0);
}

#[test]
fn a_player_that_does_not_read_loses_frames_and_the_publisher_nothing() {
    let options = Options { queue: 200_000, ..Options::default() };
    let origin = Origin::start_with(loopback(), options).expect("loopback has a free port");
    let mut slow = Peer::play(&origin, "cam");
    let mut publisher = Peer::publish(&origin, "cam");
    // More than the sockets between them hold.
    let key = frame(0x17, 1, 100_000);
    for time in 0..400 {
        publisher.send(kind::VIDEO, time, &key);
    }
    wait_for(&origin, "all has arrived", |f| f.received > 40_000_000);
    publisher.order("deleteStream");
    slow.read_to_end();
    let times: Vec<u32> = slow.media().map(|(_, time, _)| time).collect();
    assert!(times.len() < 400 && times.is_sorted() && times.last() == Some(&399), "{} of 400", times.len());
}

#[test]
fn names_that_no_stream_can_have_are_refused_with_a_reason() {
    let origin = origin();
    let (_peer, answer) = Peer::ask(&origin, Action::Play, "live", "../secret");
    assert!(matches!(answer, Answer::Refused { description, .. } if description.contains("segment")));
}

#[test]
fn what_is_not_rtmp_is_closed() {
    let origin = origin();
    let mut socket = TcpStream::connect(origin.addr()).expect("the origin accepts");
    socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the origin reads");
    assert_eq!(socket.read(&mut [0; 16]).expect("it is closed in order"), 0);
}

#[test]
fn connections_beyond_the_bound_are_closed_at_once() {
    let options = Options { connections: 1, ..Options::default() };
    let origin = Origin::start_with(loopback(), options).expect("loopback has a free port");
    let _first = Peer::publish(&origin, "cam");
    let mut second = TcpStream::connect(origin.addr()).expect("the kernel accepts");
    second.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    assert_eq!(second.read(&mut [0; 16]).expect("it is closed in order"), 0);
}

#[test]
fn dropping_the_origin_closes_everyone() {
    let origin = origin();
    let addr = origin.addr();
    let mut player = Peer::play(&origin, "cam");
    drop(origin);
    player.read_to_end();
    assert!(TcpStream::connect(addr).is_err());
}
