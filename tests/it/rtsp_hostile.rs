//! What an RTSP client may send that it should not: each is answered 400 where it can be, ends the session under its own name, and
//! costs no more than its bound.

use std::time::Duration;

use serde_json::json;

use crate::relay::{Face, Relay};
use crate::rtsp::{playing, publishing};
use crate::rtsp_peer::{Door, Heard, Peer, frame, rtp};
use crate::wait::wait_until;

/// What the relay answers to `bytes` as the first of a connection; it then ends for `reason`.
fn first(relay: &Face, bytes: &[u8], reason: &str) -> String {
    let mut client = Peer::to(relay);
    let before = relay.ended("client", reason);
    client.write(bytes);
    let answer = match client.hear() {
        Heard::Message(said) => said.status().to_owned(),
        other => panic!("{other:?} in place of an answer"),
    };
    client.end();
    drop(client);
    wait_until("the session has ended", || relay.ended("client", reason) > before);
    answer
}

#[test]
fn hostile_26_floods_of_headers_and_lines_without_an_end() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let line = [b"OPTIONS rtsp://", &vec![b'a'; 1 << 20][..]].concat();
    assert_eq!(first(&relay, &line, "rtsp_message_too_long"), "400 A line is longer than 4096 bytes");
    let flood = [b"OPTIONS * RTSP/1.0\r\n", &b"A: b\r\n".repeat(10_000)[..]].concat();
    assert_eq!(first(&relay, &flood, "rtsp_message_too_long"), "400 More than 64 headers");
    let long = [b"OPTIONS * RTSP/1.0\r\n", &[b"A: ", &[b'b'; 4000][..], b"\r\n"].concat().repeat(10)[..]].concat();
    assert_eq!(first(&relay, &long, "rtsp_message_too_long"), "400 The head is longer than 16 KiB");
    assert!(door.is_quiet());
    relay.wait_empty();
}

#[test]
fn hostile_27_lengths_that_lie() {
    let relay = Relay::to(&Door::open().url(""));
    let with = |headers: &str| format!("ANNOUNCE rtsp://h/live/cam RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n\r\n");
    for (headers, reason, answer) in [
        ("Content-Length: 99999999999", "rtsp_message_too_long", "400 The body is longer than 128 KiB"),
        ("Content-Length: -1", "malformed_rtsp", "400 Content-Length is not one number"),
        ("Content-Length: +1", "malformed_rtsp", "400 Content-Length is not one number"),
        ("Content-Length: 4\r\nContent-Length: 0", "malformed_rtsp", "400 Content-Length is not one number"),
        ("Transfer-Encoding: chunked", "malformed_rtsp", "400 RTSP has no Transfer-Encoding"),
    ] {
        assert_eq!(first(&relay, with(headers).as_bytes(), reason), answer, "{headers}");
    }
}

#[test]
fn hostile_28_requests_inside_requests() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    for bytes in [
        &b"DESCRIBE rtsp://h/live/cam RTSP/1.0\r\nCSeq: 1\r\nSession: a\rX: b\r\n\r\n"[..],
        b"DESCRIBE rtsp://h/live/cam RTSP/1.0\r\nCSeq: 1\r\nSession: a\r\n folded\r\n\r\n",
        b"DESCRIBE rtsp://h/live/cam RTSP/1.0\r\nCSeq: 1\r\nSession: \0\r\n\r\n",
    ] {
        assert_eq!(first(&relay, bytes, "malformed_rtsp"), "400 A header cannot be read");
    }
    assert_eq!(
        first(&relay, b"DESCRIBE rtsp://h/\rlive RTSP/1.0\r\nCSeq: 1\r\n\r\n", "malformed_rtsp"),
        "400 Neither an RTSP request nor a response"
    );
    assert_eq!(
        first(&relay, b"DESCRIBE rtsp://h/live/cam RTSP/2.0\r\nCSeq: 1\r\n\r\n", "malformed_rtsp"),
        "505 RTSP/1.0 is spoken here"
    );
    assert!(door.is_quiet());
    // Bare LF ends a line, and what goes on has CRLF whatever came.
    let mut client = Peer::to(&relay);
    client.write("DESCRIBE rtsp://h/live/cam RTSP/1.0\nCSeq: 1\nX-Odd:   caf\n\n");
    let request = door.accept().message();
    assert_eq!(request.get("X-Odd"), Some("caf"));
}

#[test]
fn hostile_29_frames_of_nobody_and_frames_without_an_end() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "idle_timeout": "1s" }));
    let mut client = Peer::to(&relay);
    client.ask("OPTIONS", "*", "");
    client.write(frame(0, b"early"));
    assert_eq!(client.message().status(), "400 An interleaved frame came on a channel that was not set up");
    relay.wait_ended("client", "unexpected_rtsp_frame");

    let (mut player, mut origin) = playing(&relay, &door);
    player.write([frame(1, b"report"), frame(9, b"of nobody")].concat());
    assert_eq!(origin.hear(), Heard::Frame(1, b"report".to_vec()), "what came before it passes");
    assert!(origin.message().start.starts_with("TEARDOWN "));
    assert_eq!(player.message().status(), "400 An interleaved frame came on a channel that was not set up");
    drop((player, origin));

    // A frame of 65535 bytes that stops after ten: nothing is kept for it, and a publisher's silence ends it.
    let (mut publisher, mut origin) = publishing(&relay, &door);
    publisher.write([&b"$\0\xff\xff"[..], &rtp(false, 1, 0)[..10]].concat());
    wait_until("no buffer is lent", || relay.status()["buffers"]["lent"] == 0);
    relay.wait_ended("client", "idle_timeout");
    let mut heard = [0; 14];
    std::io::Read::read_exact(&mut origin.socket, &mut heard).expect("what came has passed");
    assert_eq!(&heard[..4], b"$\0\xff\xff");
}

#[test]
fn hostile_30_numbers_that_are_none_and_pipelined_floods() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    for cseq in ["", "CSeq: 99999999999\r\n", "CSeq: x\r\n", "CSeq: 1\r\nCSeq: 2\r\n"] {
        let request = format!("OPTIONS * RTSP/1.0\r\n{cseq}\r\n");
        assert_eq!(first(&relay, request.as_bytes(), "malformed_rtsp"), "400 CSeq is missing or no number of up to 10 digits");
    }
    let mut client = Peer::to(&relay);
    client.write("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(10_000));
    let mut answers = 0;
    loop {
        match client.hear() {
            Heard::Message(said) if said.status() == "200 OK" => answers += 1,
            Heard::Message(said) => break assert_eq!(said.status(), "400 More than 100 requests without a stream"),
            end => panic!("{end:?} after {answers}"),
        }
    }
    assert_eq!(answers, 100);
    relay.wait_ended("client", "too_many_rtsp_requests");

    let (mut player, mut origin) = playing(&relay, &door);
    player.write("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(10_000));
    assert!((0..16).all(|_| origin.message().start.starts_with("OPTIONS ")));
    assert!(origin.message().start.starts_with("TEARDOWN "));
    assert_eq!(player.message().status(), "400 More than 16 requests wait for their answers");
    drop((player, origin));
    relay.wait_empty();
}

#[test]
fn a_client_that_says_nothing_more_is_not_waited_for() {
    let relay = Relay::with(&Door::open().url(""), json!({ "handshake_timeout": "300ms" }));
    let mut client = Peer::to(&relay);
    client.ask("OPTIONS", "*", "");
    client.write("DESCRIBE rtsp://h/live/c");
    client.socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    let mut nothing = [0];
    assert!(matches!(std::io::Read::read(&mut client.socket, &mut nothing), Ok(0) | Err(_)));
    relay.wait_ended("client", "command_timeout");
}
