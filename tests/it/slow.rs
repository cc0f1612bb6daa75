//! Who is slow, and who never comes to the point: players that read a tenth of what they are sent, handshakes that stay half, and what one
//! connection can cost before anything is known of its client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, Stream};

use crate::amf::{self, Amf, obj, s};
use crate::client::{Client, hello};
use crate::origin::{Line, Origin};
use crate::parser::kind;
use crate::private::{Authority, believing};
use crate::relay::{Face, Process, configured};
use crate::siege::Honest;
use crate::speech::{Say, body, set_chunk_size};
use crate::wait::{pace, wait_equal, wait_until};

/// Memory that the relay may take for one player who is slow, kB.
const SLOW_PLAYER: u64 = 256;
/// Memory that it may take for one connection that says nothing, or half of what it should, kB.
const HALF_OPEN: u64 = 24;
/// Memory that it may take for one connection that sends as much as it may before anything is known of it, kB.
const UNKNOWN: u64 = 320;

/// A player who reads so much in so long.
fn slow_player(relay: &Face, stream: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(8192).expect("a socket takes a size");
    socket.connect(&relay.address.into()).expect("the relay accepts");
    let mut socket = TcpStream::from(socket);
    let mut asking = hello();
    for (csid, message_stream, name, args) in [
        (3, 0, "connect", vec![obj(&[("app", s("live"))])]),
        (3, 0, "createStream", vec![Amf::Null]),
        (8, 1, "play", vec![Amf::Null, s(stream)]),
    ] {
        asking.extend(Say::full(csid, 0, kind::COMMAND, message_stream, &amf::command(name, 1.0, &args)).bytes(128));
    }
    socket.write_all(&asking).expect("the relay takes it");
    socket
}

/// Sends `seconds` of a stream of 50 frames a second, as fast as it is taken.
fn streams(line: Line, frames: u32) -> JoinHandle<()> {
    std::thread::spawn(move || (0..frames).for_each(|n| drop(line.say(7, n * 20, kind::VIDEO, &body(n, 5000)))))
}

#[test]
fn players_that_read_a_tenth_cost_bounded_memory_and_nobody_else_a_frame_and_end_when_they_stop() {
    const PLAYERS: usize = 50;
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({ "write_timeout": "4s", "tcp": { "send_buffer": 65536 } }));
    let honest = Honest::begin(&relay, "honest");
    let fast = Client::playing(&relay, "live", "fast");
    relay.wait_active(2);
    let before = relay.resident();
    let players: Vec<TcpStream> = (0..PLAYERS).map(|n| slow_player(&relay, &format!("slow{n}"))).collect();
    let addresses: Vec<SocketAddr> = players.iter().map(|p| p.local_addr().expect("connected")).collect();
    // Two megabytes each: in no buffer is room for that.
    let senders: Vec<_> = (0..PLAYERS).map(|n| streams(origin.line_of(&format!("slow{n}")), 400)).collect();
    let (line, mut most) = (origin.line_of("fast"), 0);
    // Each reads 500 bytes every 20 ms of a stream of 5,000.
    let mut taken = [0; 500];
    for turn in 0..100_u32 {
        let next = Instant::now() + Duration::from_millis(20);
        line.say(7, turn * 20, kind::VIDEO, &body(turn, 5000));
        for mut player in &players {
            player.read_exact(&mut taken).expect("the slow one is served, as slow as it is");
        }
        most = most.max(relay.resident());
        pace(next);
    }
    let frames: Vec<_> = fast.ear.wait_count(&[kind::VIDEO], 100).into_iter().map(|m| m.body).collect();
    assert!(frames == (0..100).map(|n| body(n, 5000)).collect::<Vec<_>>(), "the fast one misses nothing");
    let each = most.saturating_sub(before) / PLAYERS as u64;
    println!("a slow player: {} kB", each >> 10);
    assert!(each < SLOW_PLAYER << 10, "a slow player costs {each} bytes");
    relay.wait_active(2 + PLAYERS as u64);
    // Slow is not dead. Who takes nothing at all for write_timeout is.
    for address in &addresses {
        assert_eq!(relay.outcome(*address), "client client_not_reading success");
    }
    senders.into_iter().for_each(|sender| sender.join().expect("what is sent to a closed socket is nobody's fault"));
    drop(fast);
    honest.lost_nothing(&origin);
    drop(players);
    relay.wait_empty();
}

/// The relay, and a port of it where TLS is spoken too.
struct Doors {
    relay: Process,
    private: SocketAddr,
    /// What a client must believe there.
    trust: Arc<ClientConfig>,
    _dir: TempDir,
}

fn doors(origin: &Origin, more: Value) -> Doors {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let (cert, key) = authority.paper(&["localhost"]).put_into(dir.path());
    let mut config = configured(&origin.url(""), more);
    config["listeners"] = json!([{ "addr": "127.0.0.1:0", "tls": "optional" }]);
    config["connection_limit"] = json!({ "max_total_connections": 2200 });
    config["security"]["tls_cert"] = json!(cert);
    config["security"]["tls_key"] = json!(key);
    let relay = Process::of(&config);
    let private = relay.optional_door();
    Doors { relay, private, trust: Arc::new(believing(&authority, None)), _dir: dir }
}

/// This process has a socket for each of the relay's.
fn many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit can be raised to the hard one");
}

/// `count` connections that have said `bytes` and say nothing more. They are told nothing that they would have to read.
fn said(to: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let one = |_| {
        let mut socket = TcpStream::connect(to).expect("the relay accepts");
        socket.set_write_timeout(Some(Duration::from_secs(15))).expect("a socket takes a timeout");
        socket.write_all(bytes).expect("the relay takes it");
        socket
    };
    (0..count).map(one).collect()
}

/// The same within TLS.
fn said_in_private(doors: &Doors, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let one = |mut socket: TcpStream| {
        let name = "localhost".try_into().expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(&doors.trust), name).expect("a configuration");
        Stream::new(&mut tls, &mut socket).write_all(bytes).expect("the relay takes it");
        socket
    };
    said(doors.private, count, b"").into_iter().map(one).collect()
}

/// The first bytes of a TLS hello of which 16 KiB are promised.
fn half_a_tls_hello(length: usize) -> Vec<u8> {
    let mut hello = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x3F, 0xFC, 3, 3];
    hello.resize(length, 0);
    hello
}

/// A TLS hello of 64 KiB, in four records of which the last is not whole.
fn long_tls_hello() -> Vec<u8> {
    let message = [&[1, 0, 0xFF, 0xF0, 3, 3][..], &[0; 65_000]].concat();
    let record = |part: &[u8]| [&[0x16, 3, 1, 0x40, 0][..], part].concat();
    message.chunks(0x4000).flat_map(record).collect()
}

#[test]
fn two_thousand_half_open_handshakes_cost_little_and_end_at_the_deadline_while_others_enter() {
    many_descriptors();
    let origin = Origin::willing();
    let Doors { relay, private, _dir, .. } = doors(&origin, json!({ "handshake_timeout": "6s" }));
    let honest = Honest::begin(&relay, "honest");
    relay.wait_active(1);
    let (descriptors, before) = (relay.settled_descriptors(), relay.resident());
    let open = [
        said(relay.address, 400, b""),
        said(relay.address, 400, &hello()[..1 + 768]),
        said(relay.address, 400, &hello()[..1537 + 768]),
        said(relay.address, 400, b"OPTIONS rtsp://relay.test/live/cam RTSP/1.0\r\nCSe"),
        said(private, 400, &half_a_tls_hello(300)),
    ];
    wait_until("all are there", || relay.status()["connections"]["active"].as_u64().is_some_and(|active| active > 1900));
    let each = relay.resident().saturating_sub(before) / 2000;
    println!("a half-open handshake: {} kB", each >> 10);
    assert!(each < HALF_OPEN << 10, "a half-open handshake costs {each} bytes");
    let mut client = Client::publishing(&relay, "live", "meanwhile");
    let frame = client.say(6, 0, kind::VIDEO, 1, &body(1, 3000));
    assert_eq!(origin.line_of("meanwhile").ear.wait_count(&[kind::VIDEO], 1), [frame]);
    relay.wait_active(2);
    wait_equal("those who were heard, and those who said nothing", &(1200, 400, 400), || {
        let late = relay.ended("client", "handshake_timeout");
        let empty = relay.metric("rtmp_relay_empty_connections_total");
        (late.saturating_sub(empty), empty, relay.ended("client", "command_timeout"))
    });
    drop(open);
    client.leave();
    origin.line_of("meanwhile").finish();
    relay.wait_descriptors(descriptors);
    honest.lost_nothing(&origin);
    relay.wait_empty();
}

/// Bytes on their way to sockets of this port: not sent, or not read (/proc/net/tcp, proc(5)).
fn unread(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let ours = format!(":{port:04X}");
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Established; of a listening socket the field is another one.
        let (unsent, unread) = fields.get(4).filter(|_| fields[3] == "01")?.split_once(':')?;
        let queue = match (fields[1].ends_with(&ours), fields[2].ends_with(&ours)) {
            (true, _) => unread,
            (_, true) => unsent,
            _ => return None,
        };
        u64::from_str_radix(queue, 16).ok()
    };
    table.lines().filter_map(of).sum()
}

/// As much as an RTMP client may say before it is known: messages that are kept to be said again, and one that is not whole.
fn rtmp_before_connect() -> Vec<u8> {
    let mut bytes = hello();
    bytes.extend(set_chunk_size(65_000));
    bytes.extend(Say::full(3, 0, kind::ACK, 0, &[0; 65_000]).bytes(65_000));
    bytes.extend(Say::full(4, 0, kind::COMMAND, 0, &[2; 65_500]).chunks(65_000).remove(0));
    bytes
}

/// A message more than that: one that is kept, or another that is not whole.
fn rtmp_too_much(whole: bool) -> Vec<u8> {
    let more = Say::full(5, 0, kind::ACK, 0, &[0; 600]);
    let more = if whole { more.bytes(65_000) } else { more.chunks(599).remove(0) };
    [rtmp_before_connect(), more].concat()
}

/// As much as an RTSP client may: a head and a body that are not whole.
fn rtsp_before_a_stream() -> Vec<u8> {
    let mut bytes = b"ANNOUNCE rtsp://relay.test/live/cam RTSP/1.0\r\nCSeq: 1\r\n".to_vec();
    for number in 0..3 {
        bytes.extend(format!("X-{number}: {}\r\n", "b".repeat(4000)).bytes());
    }
    bytes.extend(b"Content-Length: 131072\r\n\r\n");
    bytes.extend([b'a'; 131_000]);
    bytes
}

#[test]
fn what_one_connection_can_cost_before_its_client_is_known_is_bounded() {
    const EACH: usize = 200;
    many_descriptors();
    let origin = Origin::willing();
    let tokens = json!({ "handshake_timeout": "8s", "security": { "auth_enabled": true, "auth_tokens": ["s3cret"] } });
    for (what, private, inside, bytes) in [
        ("RTMP", false, false, rtmp_before_connect()),
        ("RTSP", false, false, rtsp_before_a_stream()),
        ("TLS", true, false, long_tls_hello()),
        ("RTMP in TLS", true, true, rtmp_before_connect()),
        ("a head", false, false, [b"OPTIONS * RTSP/1.0\r\nX: ", &[b'a'; 4000][..]].concat()),
    ] {
        let doors = doors(&origin, tokens.clone());
        let relay = &doors.relay;
        let before = relay.resident();
        let to = if private { doors.private } else { relay.address };
        let open = if inside { said_in_private(&doors, EACH, &bytes) } else { said(to, EACH, &bytes) };
        wait_until("all are there", || relay.status()["connections"]["active"] == EACH);
        wait_equal("bytes that the relay has not read", &0, || unread(to.port()));
        let each = relay.resident().saturating_sub(before) / EACH as u64;
        println!("{what}, {} bytes sent: {} kB", bytes.len(), each >> 10);
        assert!(each < UNKNOWN << 10, "{what}: {each} bytes a connection");
        assert_eq!(relay.status()["connections"]["active"], EACH, "{what} is within what may be sent");
        drop(open);
        relay.wait_empty();
    }
}

#[test]
fn a_client_of_whom_nothing_is_known_is_closed_for_a_byte_too_much() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({}));
    for (whole, reason) in [(true, "too_many_commands"), (false, "too_much_partial")] {
        let mut client = Client::to(&relay);
        client.write(&rtmp_too_much(whole));
        client.leave();
        assert_eq!(relay.outcome(client.address()), format!("client {reason} error"));
    }
}

#[test]
#[ignore = "waits for the default deadline, 10 s; `make campaign` runs it"]
fn campaign_one_byte_a_second_is_ended_at_the_default_deadline_wherever_it_stands() {
    let origin = Origin::willing();
    let Doors { relay, private, _dir, .. } = doors(&origin, json!({}));
    let honest = Honest::begin(&relay, "honest");
    let connect = amf::command("connect", 1.0, &[obj(&[("app", s("live")), ("tcUrl", s("rtmp://relay.test/live"))])]);
    let connect = [hello(), Say::full(3, 0, kind::COMMAND, 0, &connect).bytes(128)].concat();
    let options =
        b"OPTIONS rtsp://relay.test/live/cam RTSP/1.0\r\nCSeq: 1\r\n\r\nDESCRIBE rtsp://relay.test/live/cam RTSP/1.0".to_vec();
    let clients: Vec<_> = [
        (relay.address, hello(), 0, "handshake_timeout"),
        (relay.address, hello(), 1000, "handshake_timeout"),
        (relay.address, hello(), 2000, "handshake_timeout"),
        (relay.address, connect.clone(), 3080, "command_timeout"),
        (relay.address, [connect, vec![3, 0, 0, 0, 0, 0, 99, 20]].concat(), 3172, "command_timeout"),
        (relay.address, options.clone(), 10, "command_timeout"),
        (relay.address, options, 70, "command_timeout"),
        (private, half_a_tls_hello(300), 5, "handshake_timeout"),
    ]
    .into_iter()
    .map(|(to, bytes, at_once, reason)| {
        let mut socket = TcpStream::connect(to).expect("the relay accepts");
        let address = socket.local_addr().expect("connected");
        let trickle = std::thread::spawn(move || {
            let (first, rest) = bytes.split_at(at_once.min(bytes.len()));
            let mut sent = socket.write_all(first);
            let mut rest = rest.chunks(1);
            while let Some(byte) = rest.next().filter(|_| sent.is_ok()) {
                sent = socket.write_all(byte);
                pace(Instant::now() + Duration::from_secs(1));
            }
            // Not closed by us.
            let _ = socket.read_to_end(&mut Vec::new());
        });
        (address, reason, trickle)
    })
    .collect();
    for (address, reason, trickle) in clients {
        assert_eq!(relay.outcome(address), format!("client {reason} error"));
        trickle.join().expect("it is over");
    }
    honest.lost_nothing(&origin);
    relay.wait_empty();
}
