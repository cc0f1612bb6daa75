//! A relay that empties: who is told what, when, and that nobody is hurt. Signals are in `shutdown`, a new binary in `upgrade`.

use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::amf::{Amf, n, obj, s};
use crate::client::Client;
use crate::ear::End;
use crate::hold::Encoder;
use crate::origin::{Line, Origin};
use crate::parser::{Message, kind};
use crate::relay::{Face, Process};
use crate::speech::{Say, body};
use crate::wait::{wait_equal, wait_until};

const RECONNECT: &str = "NetConnection.Connect.ReconnectRequest";

/// A client that has said connect with this `capsEx`.
fn capable(relay: &Face, caps: f64) -> Client {
    let mut client = Client::hello(relay);
    let object = [("app", s("live")), ("tcUrl", s("rtmp://relay.test/live")), ("capsEx", Amf::Num(caps))];
    client.command(3, 0, "connect", &[obj(&object)]);
    client.create_stream();
    client
}

fn request(message: &Message) -> bool {
    message.command().is_some_and(|(name, ..)| name == "onStatus") && message.told().is_some_and(|(code, _)| code == RECONNECT)
}

fn finished(relay: &Process) -> [u64; 4] {
    let line = relay.events("drain_finished").pop().unwrap_or(Value::Null);
    ["ended", "reconnected", "closed", "cut"].map(|count| line[count].as_u64().unwrap_or(u64::MAX))
}

/// Media that the origin has heard on `line`.
const IS_MEDIA: [u8; 3] = [kind::AUDIO, kind::VIDEO, kind::DATA];

fn media(line: &Line) -> Vec<Message> {
    let record = line.ear.record();
    record.messages.iter().filter(|m| IS_MEDIA.contains(&m.kind)).cloned().collect()
}

#[test]
fn readiness_says_no_at_once_and_the_door_closes_after_the_delay() {
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), json!({ "drain": { "delay": "700ms" }, "shutdown_timeout": "1m" }));
    relay.signal(Signal::TERM);
    wait_equal("/ready", &503, || relay.get("/ready").expect("/ready answers").0);
    let mut late = Client::publishing(&relay, "live", "late");
    wait_until("the door is closed", || relay.status()["listener"]["accepting"] == false);
    assert!(TcpStream::connect(relay.address).is_err());
    // It is the only one: its turn is at once.
    assert_eq!(late.ended(), End::Fin);
    late.leave();
    assert_eq!(relay.exit().code(), Some(0));
    assert_eq!(finished(&relay), [0, 0, 1, 0]);
    assert_eq!(relay.outcome(late.address()), "relay drained success");
}

#[test]
fn whoever_announced_it_is_asked_to_connect_anew_and_goes_on_until_it_does() {
    let origin = Origin::willing();
    let drain = json!({ "drain": { "spread": "0s" }, "shutdown_timeout": "1m" });
    let mut relay = Process::with(&origin.url(""), drain);
    let mut publisher = capable(&relay, 1.0);
    publisher.publish("cam");
    let mut player = capable(&relay, 3.0);
    player.play("other");
    let mut unable = capable(&relay, 2.0);
    unable.publish("third");
    for client in [&publisher, &player, &unable] {
        client.started();
    }
    relay.signal(Signal::TERM);
    for client in [&publisher, &player] {
        let asked = client.ear.wait_message("the client is asked", request);
        assert_eq!((asked.csid, asked.stream, asked.time), (31, 0, 0), "a message of the connection, on a chunk stream of ours");
    }
    assert_eq!(unable.ended(), End::Fin);
    unable.leave();
    // The others are served as ever.
    let said = publisher.say(6, 0, kind::VIDEO, 1, &body(1, 9000));
    assert_eq!(origin.line_of("cam").ear.wait_count(&[kind::VIDEO], 1), [said]);
    let said = origin.line_of("other").say(7, 0, kind::VIDEO, &body(2, 9000));
    assert_eq!(player.ear.wait_count(&[kind::VIDEO], 1), [said]);
    for client in [&mut publisher, &mut player] {
        client.leave();
    }
    origin.line_of("cam").finish();
    origin.line_of("other").finish();
    assert_eq!(relay.exit().code(), Some(0));
    assert_eq!(finished(&relay), [0, 2, 1, 0]);
    assert_eq!(relay.outcome(publisher.address()), "client client_closed success");
}

#[test]
fn a_request_waits_for_the_end_of_the_message_in_progress() {
    let origin = Origin::willing();
    let relay =
        Process::with(&origin.url(""), json!({ "drain": { "spread": "0s" }, "shutdown_timeout": "1m", "hold": { "max": "0s" } }));
    let mut player = capable(&relay, 1.0);
    player.play("cam");
    player.started();
    let line = origin.line_of("cam");
    let frame = Say::full(7, 40, kind::VIDEO, 1, &body(2, 30_000)).bytes(4096);
    line.write(&frame[..10_000]);
    player.ear.wait("the half is heard", |record| record.bytes.ends_with(&frame[5000..10_000]).then_some(()));
    relay.signal(Signal::TERM);
    wait_until("the drain has begun", || relay.status()["listener"]["accepting"] == false);
    line.write(&frame[10_000..]);
    player.ear.wait_message("the player is asked", request);
    let record = player.ear.record();
    let [.., video, asked] = &record.messages[..] else { panic!("{:?}", record.messages) };
    assert_eq!((video.body == body(2, 30_000), request(asked), &record.wrong), (true, true, &None));
}

/// Whether a key frame passes, the media then being `count` messages; else it is the end. Sessions are told one after the other once the door
/// is closed: which key frame is the end, nobody knows.
fn passes(line: &Line, count: usize) -> bool {
    line.ear.wait("the key frame passes, or is the end", |record| {
        let passed = record.messages.iter().filter(|m| IS_MEDIA.contains(&m.kind)).count() >= count;
        (passed || record.end.is_some()).then_some(passed)
    })
}

#[test]
fn a_publisher_of_video_goes_before_its_next_key_frame_and_the_origin_is_told() {
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "0s" }, "shutdown_timeout": "1m" }));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.key();
    encoder.inter();
    let line = origin.line_of("cam");
    line.ear.wait_count(&[kind::VIDEO], 3);
    relay.signal(Signal::TERM);
    wait_until("the door is closed", || relay.status()["listener"]["accepting"] == false);
    encoder.inter();
    encoder.sound();
    line.ear.wait_count(&[kind::VIDEO], 4);
    let before = loop {
        let before = encoder.said.len();
        encoder.key();
        encoder.inter();
        if !passes(&line, encoder.said.len()) {
            break before;
        }
    };
    assert_eq!(encoder.client.ended(), End::Fin);
    encoder.client.leave();
    line.ear.wait_command("FCUnpublish");
    line.ear.wait_command("deleteStream");
    assert_eq!(line.ear.wait_end(), End::Fin);
    assert_eq!(media(&line), encoder.said[..before]);
    assert_eq!(relay.exit().code(), Some(0));
    assert_eq!(finished(&relay), [0, 0, 1, 0]);
}

/// The same, where the key frame comes in pieces cut at `at`, and each piece is followed before the next comes.
fn cut_at(at: usize) {
    let origin = Origin::willing();
    let relay =
        Process::with(&origin.url(""), json!({ "drain": { "spread": "0s" }, "shutdown_timeout": "1m", "hold": { "max": "1s" } }));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.key();
    encoder.inter();
    let line = origin.line_of("cam");
    line.ear.wait_count(&[kind::VIDEO], 3);
    relay.signal(Signal::TERM);
    wait_until("the door is closed", || relay.status()["listener"]["accepting"] == false);
    let address = encoder.client.address();
    let reads = || relay.row(address)["to_upstream"]["reads"].as_u64().unwrap_or(u64::MAX);
    for number in 0_u32.. {
        let before = reads();
        let (time, picture) = (90_000_000 + number, [&b"\x17\x01\0\0\0"[..], &body(9, 3000)].concat());
        let key = Say::full(6, time, kind::VIDEO, 1, &picture).bytes(4096);
        encoder.client.try_write(&key[..at]).expect("the relay reads");
        wait_until("the first piece is read", || reads() > before);
        let _ = encoder.client.try_write(&key[at..]);
        if !passes(&line, encoder.said.len() + 1) {
            break;
        }
        // It had not been told yet.
        encoder.said.push(Message { csid: 6, time, kind: kind::VIDEO, stream: 1, body: picture, fmt: 0, end: 0 });
    }
    assert_eq!(encoder.client.ended(), End::Fin, "cut at {at}");
    line.ear.wait_command("deleteStream");
    assert_eq!(media(&line), encoder.said, "cut at {at}");
    assert_eq!(line.ear.record().wrong, None, "cut at {at}");
}

#[test]
fn a_key_frame_whose_header_comes_by_itself_stays_here_too() {
    // Inside the header, behind it (16 bytes with its long time), inside the payload.
    [1, 8, 12, 15, 16, 17, 100].into_iter().for_each(cut_at);
}

#[test]
fn who_has_no_video_or_plays_goes_in_turn_and_who_is_left_is_cut() {
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "0s" }, "shutdown_timeout": "500ms" }));
    let sound = Client::publishing(&relay, "live", "sound");
    let player = Client::playing(&relay, "live", "other");
    let mut asked = capable(&relay, 1.0);
    asked.publish("stubborn");
    asked.started();
    let mut no_key = Encoder::publishing(&relay, "no-key");
    no_key.key();
    origin.line_of("no-key").ear.wait_count(&[kind::VIDEO], 2);
    relay.signal(Signal::TERM);
    for (client, how) in [(sound, "drained"), (player, "drained"), (asked, "shutdown")] {
        assert_eq!(client.ended(), End::Fin);
        let address = client.address();
        drop(client);
        assert_eq!(relay.outcome(address), format!("relay {how} success"));
    }
    no_key.client.ended();
    drop(no_key);
    assert_eq!(relay.exit().code(), Some(0));
    let [ended, reconnected, closed, cut] = finished(&relay);
    assert_eq!((ended, reconnected, closed + cut), (0, 0, 4));
    assert!(cut >= 1 && closed >= 2, "{closed} closed, {cut} cut");
}

#[test]
fn who_has_just_come_may_begin_its_stream_before_it_is_told() {
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "0s" }, "shutdown_timeout": "1m" }));
    let mut late = Client::hello(&relay);
    late.connect("live");
    wait_until("it is in", || relay.row(late.address())["state"] == "negotiating");
    relay.signal(Signal::TERM);
    wait_until("the door is closed", || relay.status()["listener"]["accepting"] == false);
    late.create_stream().publish("late");
    late.started();
    assert_eq!(late.ended(), End::Fin);
    assert_eq!(relay.exit().code(), Some(0));
    assert_eq!(finished(&relay), [0, 0, 1, 0]);
}

#[test]
fn turns_are_spread_and_whoever_leaves_before_its_own_has_ended_by_itself() {
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "1m" }, "shutdown_timeout": "1m" }));
    let clients: Vec<Client> = (0..3).map(|n| Client::publishing(&relay, "live", &format!("cam{n}"))).collect();
    relay.signal(Signal::TERM);
    let [first, mut second, mut third] = <[Client; 3]>::try_from(clients).unwrap_or_else(|_| panic!("three"));
    assert_eq!(first.ended(), End::Fin, "the first in is the first out");
    drop(first);
    for (client, stream) in [(&mut second, "cam1"), (&mut third, "cam2")] {
        let said = client.say(4, 0, kind::AUDIO, 1, &body(1, 300));
        assert_eq!(origin.line_of(stream).ear.wait_count(&[kind::AUDIO], 1), [said]);
        client.leave();
        origin.line_of(stream).finish();
    }
    assert_eq!(relay.exit().code(), Some(0));
    assert_eq!(finished(&relay), [2, 0, 1, 0]);
}

#[test]
fn thousands_of_turns_are_no_thousands_of_timers() {
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "300ms" }, "shutdown_timeout": "1m" }));
    let clients: Vec<Client> = (0..100).map(|n| Client::playing(&relay, "live", &format!("cam{n}"))).collect();
    relay.signal(Signal::TERM);
    for client in clients {
        assert_eq!(client.ended(), End::Fin);
    }
    assert_eq!(relay.exit().code(), Some(0));
    assert_eq!(finished(&relay), [0, 0, 100, 0]);
}

#[test]
fn a_client_that_announces_nonsense_is_not_asked() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "0s" }, "shutdown_timeout": "1m" }));
    let mut clients = Vec::new();
    for (number, caps) in [-1.0, f64::NAN, f64::INFINITY, 1e300, 4.0].into_iter().enumerate() {
        let mut client = capable(&relay, caps);
        client.publish(&format!("cam{number}"));
        client.started();
        clients.push(client);
    }
    let mut word = Client::hello(&relay);
    word.command(3, 0, "connect", &[obj(&[("app", s("live")), ("tcUrl", s("rtmp://relay.test/live")), ("capsEx", s("1"))])]);
    word.create_stream().command(8, 1, "publish", &[Amf::Null, s("word"), n(0)]);
    word.started();
    clients.push(word);
    relay.signal(Signal::TERM);
    for client in clients {
        assert_eq!(client.ended(), End::Fin);
        assert!(!client.ear.record().messages.iter().any(request));
    }
}
