//! SIGTERM: nobody comes in, whoever is in may end by himself, and the rest is told before it is closed.

use rustix::process::Signal;
use serde_json::json;

use std::net::TcpStream;
use std::process::Command;

use crate::client::Client;
use crate::ear::End;
use crate::origin::Origin;
use crate::parser::kind;
use crate::relay::{Process, configured};
use crate::speech::{Say, body, user_control};
use crate::wait::{wait_equal, wait_until};

/// A relay with a publisher and a player on it, told to end; the turn of whoever came before them is at once.
fn ending(signal: Signal, timeout: &str) -> (Process, Origin, Client, Client) {
    let origin = Origin::willing();
    let more = json!({ "shutdown_timeout": timeout, "drain": { "spread": "1m" } });
    let relay = Process::with(&origin.url(""), more);
    let first = Client::playing(&relay, "live", "first");
    let publisher = Client::publishing(&relay, "live", "cam");
    let player = Client::playing(&relay, "live", "other");
    assert_eq!(relay.get("/ready").expect("/ready answers").0, 200);
    relay.signal(signal);
    wait_until("the door is closed", || relay.status()["listener"]["accepting"] == false);
    assert!(TcpStream::connect(relay.address).is_err());
    first.ended();
    drop(first);
    (relay, origin, publisher, player)
}

#[test]
fn sessions_that_end_in_time_are_left_alone_and_then_the_process_ends_with_code_0() {
    let (mut relay, origin, mut publisher, mut player) = ending(Signal::TERM, "60s");
    let (code, why) = relay.get("/ready").expect("/ready answers");
    assert_eq!(code, 503, "{why}");
    assert_eq!(relay.get("/health").expect("/health answers").0, 200);
    assert_eq!(relay.status()["draining"], true);
    // Streams go on.
    let said = publisher.say(6, 0, kind::VIDEO, 1, &body(1, 5000));
    assert_eq!(origin.line_of("cam").ear.wait_count(&[kind::VIDEO], 1), [said]);
    let said = origin.line_of("other").say(7, 0, kind::VIDEO, &body(2, 5000));
    assert_eq!(player.ear.wait_count(&[kind::VIDEO], 1), [said]);
    for client in [&mut publisher, &mut player] {
        client.leave();
    }
    origin.line_of("cam").finish();
    origin.line_of("other").finish();
    assert_eq!(relay.exit().code(), Some(0));
    let finished = &relay.events("drain_finished")[0];
    assert_eq!((&finished["ended"], &finished["closed"], &finished["cut"]), (&json!(2), &json!(1), &json!(0)));
    assert_eq!(relay.outcome(publisher.address()), "client client_closed success");
    assert_eq!(relay.events("stopped")[0]["code"], 0);
}

#[test]
fn sessions_that_do_not_end_are_told_and_closed_and_counted() {
    let (mut relay, origin, mut publisher, mut player) = ending(Signal::INT, "0s");
    let told = publisher.ear.wait_message("the end is told", |m| m.told().is_some_and(|(code, _)| code.contains("Failed")));
    assert_eq!(told.told().expect("told").1, "the relay is shutting down");
    assert_eq!((publisher.ended(), player.ended()), (End::Fin, End::Fin));
    let record = player.ear.record();
    let [.., eof, unpublish] = &record.messages[..] else { panic!("{:?}", record.messages) };
    assert_eq!(eof.body, user_control(1, 1));
    assert_eq!(unpublish.told(), Some(("NetStream.Play.UnpublishNotify".into(), "the relay is shutting down".into())));
    assert_eq!(record.wrong, None);
    drop(record);
    publisher.leave();
    player.leave();
    assert_eq!(relay.exit().code(), Some(0));
    for stream in ["cam", "other"] {
        let line = origin.line_of(stream);
        line.ear.wait_command("deleteStream");
        assert_eq!(line.ear.wait_end(), End::Fin);
    }
    for client in [&publisher, &player] {
        assert_eq!(relay.outcome(client.address()), "relay shutdown success");
    }
    let finished = &relay.events("drain_finished")[0];
    assert_eq!((&finished["ended"], &finished["closed"], &finished["cut"]), (&json!(0), &json!(0), &json!(3)));
}

#[test]
fn clients_at_every_other_phase_are_told_too() {
    use crate::origin::{At, Deed, Script};
    let origin = Origin::new(Script::doing(At::Connect, Deed::Stall));
    let more = json!({ "shutdown_timeout": "0s", "handshake_timeout": "1m", "dial_timeout": "1m" });
    let mut relay = Process::with(&origin.url(""), more);
    let silent = Client::to(&relay);
    let mut greeted = Client::hello(&relay);
    let mut connected = Client::hello(&relay);
    connected.connect("live");
    connected.ear.wait_command("_result");
    let mut dialing = Client::asking_to_publish(&relay, "live", "cam");
    origin.line(0).ear.wait_command("connect");
    relay.wait_active(4);
    wait_until("the handshake was answered", || greeted.ear.record().hello.len() == crate::ear::HANDSHAKE);
    relay.signal(Signal::TERM);
    assert_eq!(dialing.refused(), ("NetStream.Publish.Denied".into(), "the relay is shutting down".into()));
    for client in [&mut greeted, &mut connected] {
        assert_eq!(client.refused(), ("NetConnection.Connect.Rejected".into(), "the relay is shutting down".into()));
    }
    silent.ended();
    assert_eq!(relay.exit().code(), Some(0));
    for client in [&silent, &greeted, &connected, &dialing] {
        let line = relay.closing_line(client.address());
        assert_eq!((&line["side"], &line["reason"]), (&json!("relay"), &json!("shutdown")));
    }
}

#[test]
fn a_player_inside_a_message_is_not_told_but_reset() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({ "shutdown_timeout": "0s", "hold": { "max": "0s" } }));
    let player = Client::playing(&relay, "live", "cam");
    let half = Say::full(7, 40, kind::VIDEO, 1, &body(2, 3000)).bytes(4096);
    origin.line_of("cam").write(&half[..1000]);
    player.ear.wait("the half is heard", |record| record.bytes.ends_with(&half[500..1000]).then_some(()));
    relay.signal(Signal::TERM);
    assert_eq!(player.ended(), End::Reset);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (mut relay, _origin, publisher, player) = ending(Signal::TERM, "60s");
    relay.signal(Signal::TERM);
    assert_eq!(relay.exit().code(), Some(0));
    publisher.ended();
    player.ended();
}

#[test]
fn an_address_that_is_taken_is_said_and_ends_the_process_with_code_1() {
    let origin = Origin::willing();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp takes a directory");
    for key in ["listen_addr", "http_addr"] {
        let file = dir.path().join("config.json");
        let config = configured(&origin.url(""), json!({ key: origin.address.to_string() }));
        std::fs::write(&file, config.to_string()).expect("a fresh directory takes a file");
        let output = Command::new(env!("CARGO_BIN_EXE_relay")).arg(&file).env_clear().output().expect("the relay starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(key) && said.contains(&origin.address.to_string()), "{said}");
    }
    wait_equal("the origin was not bothered", &0, || origin.count());
}
