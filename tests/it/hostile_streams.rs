//! Hostile inputs of clients that were let in: the same list as in `hostile`, behind publish or play.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::amf::{self, Amf, s};
use crate::client::{Client, hello};
use crate::ear::End;
use crate::parser::kind;
use crate::siege::Siege;
use crate::speech::{Say, body, set_chunk_size};
use crate::wait::wait_until;

/// What `bytes` of a publisher come to: how the session ends, and that publisher and origin are told in their own terms.
fn streamed(bytes: &[u8], want: &str) -> String {
    let siege = Siege::begin(json!({}));
    let mut client = Client::publishing(&siege, "live", "cam");
    client.write(bytes);
    let told = |m: &crate::parser::Message| m.told().is_some_and(|(code, _)| code != "NetStream.Publish.Start");
    let told = client.ear.wait_message("the client is told why", told);
    assert_eq!(told.stream, 1);
    siege.ends(&mut client, want);
    let line = siege.origin.line_of("cam");
    line.ear.wait_command("deleteStream");
    assert_eq!(line.ear.wait_end(), End::Fin);
    assert_eq!(line.ear.record().wrong, None);
    line.finish();
    siege.lifted();
    let (code, text) = told.told().expect("told");
    assert_eq!(code, "NetStream.Publish.Denied");
    text
}

#[test]
fn input_07_a_picture_of_sixteen_megabytes_passes() {
    let siege = Siege::begin(json!({}));
    let mut client = Client::publishing(&siege, "live", "cam");
    client.set_chunk_size(65_536);
    let said = client.say(6, 0, kind::VIDEO, 1, &vec![7; 0xFF_FFFF]);
    let after = client.say(6, 40, kind::VIDEO, 1, &body(1, 100));
    let got = siege.origin.line_of("cam").ear.wait_count(&[kind::VIDEO], 2);
    assert!(got == [said, after], "it arrives whole");
    assert_eq!(siege.status()["buffers"]["size_bytes"], 65_536, "and was never in one buffer");
    siege.lifted();
}

#[test]
fn input_08_a_flood_of_chunk_streams_while_streaming() {
    let flood: Vec<u8> = (100..200).flat_map(|csid| Say::full(csid, 0, kind::AUDIO, 1, &[0; 4]).bytes(128)).collect();
    streamed(&flood, "client too_many_chunk_streams success");
}

#[test]
fn input_09_messages_that_never_end_while_streaming_hold_no_memory() {
    let siege = Siege::begin(json!({}));
    let mut client = Client::publishing(&siege, "live", "cam");
    let line = siege.origin.line_of("cam");
    let opened = line.ear.record().bytes.len();
    let mut bytes = 0;
    for csid in 64..110 {
        let begin = Say::full(csid, 0, kind::VIDEO, 1, &[0; 4000]).chunks(128).remove(0);
        bytes += begin.len();
        client.write(&begin);
    }
    // They leave at the hold deadline, and with them the buffer.
    line.ear.wait("the beginnings are heard", |record| (record.bytes.len() == opened + bytes).then_some(()));
    // Commands are collected; that has its bound.
    client.write(&set_chunk_size(50_000));
    for csid in 110..116 {
        client.write(&Say::full(csid, 0, kind::COMMAND, 1, &[2; 60_000]).chunks(50_000).remove(0));
    }
    siege.ends(&mut client, "client too_much_partial success");
    siege.lifted();
}

#[test]
fn input_10_set_chunk_size_zero_while_streaming() {
    streamed(&set_chunk_size(0), "client chunk_size_zero success");
}

#[test]
fn input_06_a_command_of_sixteen_megabytes_while_streaming() {
    let header = [3, 0, 0, 0, 0xFF, 0xFF, 0xFF, kind::COMMAND, 0, 0, 0, 0];
    streamed(&header, "client message_too_long success");
}

#[test]
fn input_13_a_thousand_control_messages_while_streaming_are_passed_on() {
    let siege = Siege::begin(json!({}));
    let mut client = Client::publishing(&siege, "live", "cam");
    let ping = Say::full(2, 0, kind::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 0]).bytes(128);
    client.write(&ping.repeat(1000));
    let said = client.say(6, 0, kind::VIDEO, 1, &body(1, 100));
    let line = siege.origin.line_of("cam");
    assert_eq!(line.ear.wait_count(&[kind::VIDEO], 1), [said]);
    assert_eq!(line.ear.wait_count(&[kind::USER_CONTROL], 1000).len(), 1000);
    siege.lifted();
}

#[test]
fn input_15_a_chunk_stream_that_begins_without_a_full_header_while_streaming() {
    streamed(&Say::full(40, 0, kind::VIDEO, 1, &[0; 10]).fmt(1).bytes(128), "client chunk_without_header success");
}

#[test]
fn input_16_a_new_header_in_the_middle_of_a_message_while_streaming() {
    let siege = Siege::begin(json!({}));
    let mut client = Client::publishing(&siege, "live", "cam");
    client.write(&Say::full(6, 0, kind::VIDEO, 1, &[0; 300]).chunks(128).remove(0));
    client.write(&Say::full(6, 0, kind::VIDEO, 1, &[0; 300]).bytes(128));
    siege.ends(&mut client, "client chunk_mid_message success");
    siege.lifted();
}

#[test]
fn input_17_abort_of_a_message_in_progress_while_streaming() {
    let siege = Siege::begin(json!({}));
    let mut client = Client::publishing(&siege, "live", "cam");
    client.write(&Say::full(6, 0, kind::VIDEO, 1, &[0; 300]).chunks(128).remove(0));
    client.say(2, 0, kind::ABORT, 0, &6_u32.to_be_bytes());
    let said = client.say(6, 40, kind::VIDEO, 1, &body(1, 900));
    let line = siege.origin.line_of("cam");
    assert_eq!(line.ear.wait_count(&[kind::VIDEO], 1), [said]);
    let heard = line.ear.record();
    assert_eq!(heard.wrong, None);
    assert!(heard.messages.iter().any(|m| m.kind == kind::ABORT), "it is forwarded");
    drop(heard);
    siege.lifted();
}

#[test]
fn input_18_a_command_that_cannot_be_read_while_streaming() {
    let deep = [&amf::command("FCUnpublish", 1.0, &[])[..], &[3, 0, 1, b'a'].repeat(15_000)].concat();
    streamed(&Say::full(3, 0, kind::COMMAND, 0, &deep).bytes(128), "client malformed_command success");
}

#[test]
fn input_21_connect_again_while_streaming() {
    let connect = amf::command("connect", 9.0, &[amf::obj(&[("app", s("other"))])]);
    let text = streamed(&Say::full(3, 0, kind::COMMAND, 0, &connect).bytes(128), "client command_out_of_order success");
    assert_eq!(text, "connect came twice");
}

#[test]
fn input_24_a_second_publish_or_play_that_the_token_does_not_open() {
    let tokens = json!([{ "token": "studio-token", "streams": ["live/cam*", "live/honest"] }]);
    let siege = Siege::open(json!({ "security": { "auth_enabled": true, "auth_tokens": tokens } }), "honest?token=studio-token");
    for (command, stream, reason) in [
        ("publish", "victim?token=studio-token", "second_publish_refused"),
        ("publish", "cam2?token=wrong", "second_publish_refused"),
        ("play", "secret?token=studio-token", "second_play_refused"),
        ("play2", "cam2?token=studio-token", "second_play_refused"),
    ] {
        let mut client = Client::publishing(&siege, "live", "cam?token=studio-token");
        client.command(3, 0, "deleteStream", &[Amf::Null, amf::n(1)]);
        client.command(8, 1, command, &[Amf::Null, s(stream)]);
        siege.ends(&mut client, &format!("relay {reason} rejected"));
        let denied = client.ear.record().messages.iter().filter_map(|m| m.told()).next_back().expect("told");
        let want = if command.starts_with("play") { "NetStream.Play.Failed" } else { "NetStream.Publish.Denied" };
        assert_eq!(denied.0, want, "{}", denied.1);
    }
    assert_eq!(siege.metric("rtmp_relay_auth_failures_total"), 3);
    siege.lifted();
}

#[test]
fn input_25_a_player_that_reads_nothing_while_its_stream_goes_on() {
    let siege = Siege::begin(json!({ "write_timeout": "1s", "tcp": { "send_buffer": 65536 } }));
    let socket = TcpStream::connect(siege.address).expect("the relay accepts");
    socket2::SockRef::from(&socket).set_recv_buffer_size(8192).expect("a socket takes a size");
    let mut client = Client::over(socket);
    client.ear.stop_listening();
    let mut asking = hello();
    for (csid, stream, name, args) in [
        (3, 0, "connect", vec![amf::obj(&[("app", s("live"))])]),
        (3, 0, "createStream", vec![Amf::Null]),
        (8, 1, "play", vec![Amf::Null, s("cam")]),
    ] {
        asking.extend(Say::full(csid, 0, kind::COMMAND, stream, &amf::command(name, 1.0, &args)).bytes(128));
    }
    client.socket.write_all(&asking).expect("the relay takes it");
    let line = siege.origin.line_of("cam");
    // The origin sends as long as it can: into socket buffers and one buffer of the relay's, no further.
    let sender = line.clone();
    let sending = std::thread::spawn(move || (0..100).for_each(|i| drop(sender.say(7, i, kind::VIDEO, &body(i, 500_000)))));
    wait_until("the player is given up", || {
        assert!(siege.status()["buffers"]["lent"].as_u64().expect("a number") <= 4, "a buffer a direction and session");
        std::thread::park_timeout(Duration::from_millis(20));
        siege.ended("client", "client_not_reading") == 1
    });
    assert_eq!(siege.outcome(client.address()), "client client_not_reading success");
    line.ear.wait_command("deleteStream");
    sending.join().expect("what is sent to a closed socket is nobody's fault");
    siege.lifted();
}
