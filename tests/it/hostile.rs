//! Hostile inputs, numbered as the list of them that the relay was built against (shared facts, section 9): each ends with a
//! word of its own and leaves everybody else untouched. Here is what comes before publish or play.

use serde_json::json;

use crate::amf::{self, Amf, obj, s};
use crate::client::{Client, hello};
use crate::parser::kind;
use crate::siege::Siege;
use crate::speech::{Say, set_chunk_size};
use crate::wait::wait_until;

/// One attack on a relay with default settings: what is sent at once, and how the session ends.
fn sent(bytes: &[u8], want: &str) -> Option<(String, String)> {
    let siege = Siege::begin(json!({}));
    let mut client = Client::to(&siege);
    client.write(bytes);
    siege.ends(&mut client, want);
    client.ended();
    siege.lifted();
    client.ear.record().told()
}

/// The same behind the handshake; the client must be told something.
fn said(bytes: &[u8], want: &str) -> String {
    let (code, text) = sent(&[&hello(), bytes].concat(), want).expect("the client is told why");
    assert_eq!(code, "NetConnection.Connect.Rejected");
    assert!(!text.is_empty());
    text
}

fn connect() -> Vec<u8> {
    command("connect", 1.0, &[obj(&[("app", s("live")), ("tcUrl", s("rtmp://relay.test/live"))])])
}

fn command(name: &str, transaction: f64, args: &[Amf]) -> Vec<u8> {
    Say::full(3, 0, kind::COMMAND, 0, &amf::command(name, transaction, args)).bytes(128)
}

fn payload(body: &[u8]) -> Vec<u8> {
    Say::full(3, 0, kind::COMMAND, 0, body).bytes(128)
}

#[test]
fn input_01_connects_and_sends_nothing() {
    let siege = Siege::begin(json!({ "handshake_timeout": "300ms" }));
    let mut client = Client::to(&siege);
    client.ended();
    siege.ends(&mut client, "client handshake_timeout empty");
    siege.lifted();
}

#[test]
fn input_02_slow_loris_in_the_handshake() {
    let siege = Siege::begin(json!({ "handshake_timeout": "500ms" }));
    let mut client = Client::to(&siege);
    // A byte now and then: the deadline is absolute.
    wait_until("the relay has had enough", || {
        client.write(&[3]);
        client.ear.record().end.is_some()
    });
    siege.ends(&mut client, "client handshake_timeout error");
    siege.lifted();
}

#[test]
fn input_03_another_protocol_or_an_encrypted_one() {
    assert_eq!(sent(&[6; 1537], "client rtmpe error"), None);
    sent(&[8], "client rtmpe error");
    sent(b"$\0\0\x04abcd", "client stray_rtsp_frame error");
    sent(&[0xAB; 40], "client not_rtmp error");
}

#[test]
fn input_04_a_tls_hello_on_the_plain_port() {
    sent(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3], "client tls_on_plain_port error");
}

#[test]
fn input_05_a_proxy_header_from_anybody() {
    let siege = Siege::begin(json!({}));
    let headers: [&[u8]; 2] =
        [b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 1935\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x07"];
    for header in headers {
        let mut client = Client::to(&siege);
        client.write(&[header, &hello()].concat());
        siege.ends(&mut client, "relay proxy_untrusted rejected");
        // The closing line, found by the socket's own address, is the proof that the header was not believed.
        assert!(!siege.log().join("\n").contains("192.0.2.7"));
    }
    siege.lifted();
}

#[test]
fn input_06_a_message_of_sixteen_megabytes_before_publish() {
    let header = [3, 0, 0, 0, 0xFF, 0xFF, 0xFF, kind::COMMAND, 0, 0, 0, 0];
    let text = said(&header, "client message_too_long error");
    assert!(text.contains("16777215") && text.contains("65536"), "{text}");
    let header = [4, 0, 0, 0, 1, 0, 1, kind::ACK, 0, 0, 0, 0];
    said(&[&connect()[..], &header].concat(), "client message_too_long error");
}

#[test]
fn input_08_a_flood_of_chunk_streams_before_publish() {
    let flood: Vec<u8> = (3..30).flat_map(|csid| Say::full(csid, 0, kind::ACK, 0, &[0; 4]).bytes(128)).collect();
    said(&flood, "client too_many_chunk_streams error");
}

#[test]
fn input_09_messages_that_never_end_before_publish() {
    let mut flood = set_chunk_size(50_000);
    for csid in 4..10 {
        flood.extend(Say::full(csid, 0, kind::COMMAND, 0, &[2; 60_000]).chunks(50_000).remove(0));
    }
    said(&flood, "client too_much_partial error");
}

#[test]
fn input_10_set_chunk_size_zero() {
    said(&set_chunk_size(0), "client chunk_size_zero error");
}

#[test]
fn input_11_set_chunk_size_one_and_a_flood_of_chunks() {
    let flood = Say::full(3, 0, kind::COMMAND, 0, &[2; 12_000]).bytes(1);
    said(&[set_chunk_size(1), flood].concat(), "client too_many_chunks error");
    // By itself it is legal.
    let siege = Siege::begin(json!({}));
    let mut client = Client::hello(&siege);
    client.set_chunk_size(1);
    client.connect("live").create_stream().publish("cam");
    client.started();
    siege.lifted();
}

#[test]
fn input_12_set_chunk_size_with_the_first_bit_set() {
    let siege = Siege::begin(json!({}));
    let mut client = Client::hello(&siege);
    client.set_chunk_size(0xFFFF_FFFF);
    client.connect("live").create_stream().publish("cam");
    client.started();
    let size = siege.origin.line_of("cam").ear.wait_message("Set Chunk Size is heard", |m| m.kind == kind::SET_CHUNK_SIZE);
    assert_eq!(size.body, 10_485_760_u32.to_be_bytes());
    siege.lifted();
}

#[test]
fn input_13_a_flood_of_control_messages_before_publish() {
    let ack = Say::full(2, 0, kind::ACK, 0, &[0, 0, 1, 0]).bytes(128);
    let ping = Say::full(2, 0, kind::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 0]).bytes(128);
    said(&[connect(), ack.repeat(60), ping.repeat(60)].concat(), "client too_many_commands error");
}

#[test]
fn input_14_a_window_so_small_that_every_read_is_acknowledged() {
    let window = |size: u32| Say::full(2, 0, kind::WINDOW, 0, &size.to_be_bytes()).bytes(128);
    for size in [1, 1023] {
        said(&window(size), "client tiny_ack_window error");
    }
    let siege = Siege::begin(json!({}));
    let mut client = Client::hello(&siege);
    client.write(&[window(0), window(1024)].concat());
    client.connect("live").create_stream().publish("cam");
    client.started();
    // Once the stream flows it is no better.
    client.write(&window(1));
    siege.ends(&mut client, "client tiny_ack_window success");
    siege.lifted();
}

#[test]
fn input_15_a_chunk_stream_that_begins_without_a_full_header() {
    for fmt in [1, 2, 3] {
        let connect = Say::full(3, 0, kind::COMMAND, 0, b"x").fmt(fmt).bytes(128);
        said(&connect, "client chunk_without_header error");
    }
    // librtmp's pings do.
    let siege = Siege::begin(json!({}));
    let mut client = Client::hello(&siege);
    client.write(&Say::full(2, 0, kind::USER_CONTROL, 0, &[0, 7, 0, 0, 0, 0]).fmt(1).bytes(128));
    client.connect("live").create_stream().publish("cam");
    client.started();
    assert_eq!(siege.origin.line_of("cam").ear.record().wrong, None);
    siege.lifted();
}

#[test]
fn input_16_a_new_header_in_the_middle_of_a_message() {
    let first = Say::full(3, 0, kind::COMMAND, 0, &[2; 300]).chunks(128).remove(0);
    for fmt in [0, 1, 2] {
        let second = Say::full(3, 0, kind::COMMAND, 0, &[2; 400]).fmt(fmt).bytes(128);
        said(&[&first[..], &second].concat(), "client chunk_mid_message error");
    }
}

#[test]
fn input_17_abort_of_a_message_in_progress_before_publish() {
    let siege = Siege::begin(json!({}));
    let mut client = Client::hello(&siege);
    client.write(&Say::full(3, 0, kind::COMMAND, 0, &[2; 300]).chunks(128).remove(0));
    client.say(2, 0, kind::ABORT, 0, &3_u32.to_be_bytes());
    client.connect("live").create_stream().publish("cam");
    client.started();
    let heard = siege.origin.line_of("cam").ear.record().messages.clone();
    assert!(heard.iter().any(|m| m.kind == kind::ABORT), "it is forwarded");
    siege.lifted();
    said(&Say::full(2, 0, kind::ABORT, 0, &[0, 3]).bytes(128), "client short_control_message error");
}

#[test]
fn input_18_amf_nested_twenty_thousand_deep() {
    let deep = [&amf::command("connect", 1.0, &[])[..], &[3, 0, 1, b'a'].repeat(15_000)].concat();
    said(&payload(&deep), "client malformed_command error");
    let deep = [&amf::command("connect", 1.0, &[])[..], &[10, 0, 0, 0, 1].repeat(12_000)].concat();
    said(&payload(&deep), "client malformed_command error");
}

#[test]
fn input_19_amf_counts_that_lie() {
    for marker in [8, 10, 12] {
        let lie = [&amf::command("connect", 1.0, &[])[..], &[marker, 0xFF, 0xFF, 0xFF, 0xFF]].concat();
        said(&payload(&lie), "client malformed_command error");
    }
    // An ECMA array's count is a guess of its sender, and no more.
    let siege = Siege::begin(json!({}));
    let mut client = Client::hello(&siege);
    let mut connect = amf::command("connect", 1.0, &[Amf::Ecma(vec![("app".into(), s("live"))])]);
    let count = connect.iter().position(|&b| b == 8).expect("the marker");
    connect[count + 1..count + 5].fill(0xFF);
    client.say(3, 0, kind::COMMAND, 0, &connect);
    client.create_stream().publish("cam");
    client.started();
    siege.lifted();
}

#[test]
fn input_20_strings_that_are_too_long_or_hold_what_no_name_holds() {
    let long = command("connect", 1.0, &[obj(&[("app", s(&"a".repeat(5000)))])]);
    said(&long, "client malformed_command error");
    let siege = Siege::begin(json!({}));
    for (app, stream) in [("live", "a\0b"), ("live", "a\r\nb"), ("li\nve", "cam"), ("live", "\x7F"), ("live", &"x".repeat(1025))]
    {
        let mut client = Client::asking_to_publish(&siege, app, stream);
        let (code, text) = client.refused();
        assert_eq!(code, "NetStream.Publish.BadName", "{text}");
        siege.ends(&mut client, "relay bad_name rejected");
    }
    // Bytes that are no UTF-8 are a name like any other.
    let mut client = Client::hello(&siege);
    client.connect("live").create_stream();
    let mut publish = amf::command("publish", 3.0, &[Amf::Null, s("caXX"), s("live")]);
    let at = publish.windows(2).position(|w| w == b"XX").expect("the name");
    publish[at..at + 2].copy_from_slice(&[0xFF, 0xFE]);
    client.say(8, 0, kind::COMMAND, 1, &publish);
    client.started();
    siege.lifted();
}

#[test]
fn input_21_commands_in_an_order_that_makes_no_sense() {
    let create = command("createStream", 2.0, &[Amf::Null]);
    let publish = command("publish", 3.0, &[Amf::Null, s("cam"), s("live")]);
    let media = Say::full(6, 0, kind::VIDEO, 1, &[1; 10]).bytes(128);
    for order in [
        [connect(), connect()].concat(),
        publish.clone(),
        create.clone(),
        [connect(), create.repeat(5)].concat(),
        [connect(), publish].concat(),
        [connect(), media].concat(),
        command("connect", 1.0, &[Amf::Null]),
    ] {
        said(&order, "client command_out_of_order error");
    }
}

#[test]
fn input_22_connect_or_publish_that_never_comes() {
    for commands in [Vec::new(), connect()] {
        let siege = Siege::begin(json!({ "handshake_timeout": "400ms" }));
        let mut client = Client::hello(&siege);
        client.write(&commands);
        let (code, text) = client.refused();
        assert_eq!((&code[..], &text[..]), ("NetConnection.Connect.Rejected", "publish or play did not come within 0.4 s"));
        siege.ends(&mut client, "client command_timeout error");
        siege.lifted();
    }
}

#[test]
fn input_23_names_that_try_to_be_paths_and_arguments() {
    let siege = Siege::begin(json!({ "forward_query": ["user"] }));
    for (app, stream) in
        [("live", "../secret"), ("live/..", "x"), ("live", "a//b"), ("live/.", "x"), ("live", "./x"), ("live", "x/")]
    {
        let mut client = Client::asking_to_play(&siege, app, stream);
        assert_eq!(client.refused().0, "NetStream.Play.StreamNotFound", "{app} {stream}");
        siege.ends(&mut client, "relay bad_name rejected");
    }
    for name in ["%2e%2e", "cam#x", "mp4:cam@host"] {
        let _client = Client::publishing(&siege, "a/_definst_", &format!("{name}?name=x&user=7&call=y"));
        let line = siege.origin.line_of(&format!("{name}?user=7"));
        let connect = line.ear.wait_command("connect").command().expect("a command");
        assert_eq!(connect.2[0].get("tcUrl"), Some(&s(&siege.origin.url("/a/_definst_"))), "the host is the upstream's");
    }
    // What is no trick: the URL of a server with a slash at its end, as people write it into an encoder.
    let _client = Client::publishing(&siege, "live/", "slashed");
    let connect = siege.origin.line_of("slashed").ear.wait_command("connect").command().expect("a command");
    assert_eq!(connect.2[0].get("app"), Some(&s("live")));
    siege.lifted();
}

#[test]
fn input_31_http_on_the_rtmp_port() {
    let siege = Siege::begin(json!({}));
    for (request, want, words) in [
        ("GET / HTTP/1.1\r\nHost: relay\r\n\r\n", "client http_on_rtmp_port error", "publish or play with rtmp://"),
        ("POST /live HTTP/1.1\r\nContent-Length: 1\r\n\r\n\0", "client http_on_rtmp_port error", "with rtmp://"),
        ("POST /open/1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n\0", "client rtmpt error", "(rtmpt, rtmpte) is not spoken"),
        ("POST /fcs/ident2 HTTP/1.1\r\nContent-Length: 1\r\n\r\n\0", "client rtmpt error", "use rtmp or rtmps"),
    ] {
        let mut client = Client::to(&siege);
        // In two pieces: what its first letters could also be is not said too early.
        client.write(&request.as_bytes()[..3]);
        wait_until("the relay has looked", || siege.row(client.address())["state"] == "negotiating");
        client.write(&request.as_bytes()[3..]);
        siege.ends(&mut client, want);
        client.ended();
        // It is no chunk stream: the whole answer is where a handshake would be.
        let answer = String::from_utf8_lossy(&client.ear.record().hello).into_owned();
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n") && answer.contains(words), "{answer}");
    }
    sent(b"SSH-2.0-OpenSSH_9.2\r\n", "client not_rtmp error");
    // Half a word is no word, and the deadline holds for it too.
    let slow = Siege::begin(json!({ "handshake_timeout": "300ms" }));
    let mut client = Client::to(&slow);
    client.write(b"PL");
    client.ended();
    slow.ends(&mut client, "client handshake_timeout error");
    slow.lifted();
    siege.lifted();
}
