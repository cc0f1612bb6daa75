//! How RTSP sessions end, and how they do not begin: who is told what, and under which name it is counted.

use serde_json::json;

use crate::relay::{Process, Relay};
use crate::rtsp::{SDP, playing, publishing, publishing_to};
use crate::rtsp_peer::{Door, Heard, Peer, rtp};

#[test]
fn who_has_said_teardown_may_leave_as_it_likes() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let (mut player, mut origin) = playing(&relay, &door);
    player.request("TEARDOWN", "rtsp://relay.test/live/cam/", "Session: s1");
    let request = origin.message();
    player.reset();
    origin.answer(&request, "200 OK", "");
    assert_eq!(origin.end(), Heard::Fin);
    drop(origin);
    relay.wait_ended("client", "client_closed");
    assert_eq!(relay.ended("client", "client_reset"), 0);
}

#[test]
fn a_client_that_vanishes_is_told_to_the_upstream() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let (player, mut origin) = playing(&relay, &door);
    player.reset();
    assert!(origin.message().start.starts_with("TEARDOWN "));
    drop(origin);
    relay.wait_ended("client", "client_reset");
    relay.wait_empty();
}

#[test]
fn an_upstream_s_end_is_the_client_s_and_who_waits_is_answered() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let (mut publisher, mut origin) = publishing(&relay, &door);
    publisher.request("GET_PARAMETER", "rtsp://relay.test/live/cam", "Session: s1");
    origin.message();
    drop(origin);
    assert_eq!(publisher.message().status(), "502 The upstream has ended the stream");
    assert_eq!(publisher.hear(), Heard::Fin);
    drop(publisher);
    relay.wait_ended("upstream", "upstream_closed");
    let (mut player, origin) = playing(&relay, &door);
    drop(origin);
    assert_eq!(player.hear(), Heard::Fin);
    drop(player);
    relay.wait_empty();
    assert_eq!(relay.connections(), (1, 1, 0), "a player's stream ends so; a publisher has lost its origin");
}

#[test]
fn an_upstream_that_says_no_is_quoted() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", "rtsp://relay.test/live/cam", "");
    door.accept().serve("DESCRIBE ", "404 No such camera", "");
    assert_eq!(player.message().status(), "404 No such camera");
    assert_eq!(player.end(), Heard::Fin);
    relay.wait_ended("upstream", "upstream_refused");
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", "rtsp://relay.test/live/cam", "");
    door.accept().serve("DESCRIBE ", "302 Moved", "Location: rtsp://10.1.2.3/secret");
    let answer = player.message();
    assert!(answer.status().starts_with("502 The upstream sends elsewhere") && !answer.text().contains("10.1.2.3"), "{answer:?}");
}

#[test]
fn without_an_upstream_of_its_kind_a_client_is_told_404_and_with_a_dead_one_503() {
    let relay = Relay::to("rtmp://127.0.0.1:9/live");
    let mut player = Peer::to(&relay);
    let answer = player.ask("DESCRIBE", "rtsp://relay.test/live/cam", "");
    assert!(answer.status().starts_with("404 ") && answer.status().contains("RTSP"), "{answer:?}");
    assert_eq!(player.end(), Heard::Fin);
    relay.wait_ended("relay", "no_upstream_of_family");

    let url = Door::open().url("");
    let relay = Relay::with(&url, json!({ "retry": { "enabled": false } }));
    let mut player = Peer::to(&relay);
    let answer = player.ask("DESCRIBE", "rtsp://relay.test/live/cam", "");
    assert_eq!(answer.status(), "503 The upstream cannot be reached, try again later");
}

#[test]
fn an_upstream_that_answers_nonsense_or_nothing_is_tried_again() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "retry": { "max_attempts": 3, "initial_delay_sec": 0.01 } }));
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", "rtsp://relay.test/live/cam", "");
    drop(door.accept());
    door.accept().write("HTTP/1.1 400 Bad Request\r\n\r\n");
    door.accept().serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
    assert_eq!(player.message().status(), "200 OK");
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"handshake\"}"), 1);
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"protocol\"}"), 1);
}

#[test]
fn a_client_that_leaves_while_an_upstream_is_asked_ends_the_search() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", "rtsp://relay.test/live/cam", "");
    let mut origin = door.accept();
    origin.message();
    drop(player);
    assert_eq!(origin.hear(), Heard::Fin);
    relay.wait_ended("client", "client_left");
    relay.wait_empty();
}

#[test]
fn a_silent_publisher_is_ended_and_a_player_and_a_paused_session_are_not() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "idle_timeout": "1s" }));
    let (mut player, mut player_s) = playing(&relay, &door);
    let (mut paused, mut paused_s) = publishing(&relay, &door);
    paused.request("PAUSE", "rtsp://relay.test/live/cam", "Session: s1");
    paused_s.serve("PAUSE ", "200 OK", "");
    assert_eq!(paused.message().status(), "200 OK");
    let (mut publisher, mut publisher_s) = publishing_to(&relay, &door, "rtsp://relay.test/live/mic");
    assert!(publisher_s.message().start.starts_with("TEARDOWN "), "the upstream is told");
    assert_eq!(publisher.end(), Heard::Fin);
    drop((publisher, publisher_s));
    relay.wait_ended("client", "idle_timeout");
    player_s.frame(0, &rtp(true, 1, 10));
    assert_eq!(player.hear(), Heard::Frame(0, rtp(true, 1, 10)));
    paused.request("RECORD", "rtsp://relay.test/live/cam", "Session: s1");
    paused_s.serve("RECORD ", "200 OK", "");
    assert_eq!(paused.message().status(), "200 OK");
}

#[test]
fn a_relay_that_ends_tears_down_and_closes() {
    let door = Door::open();
    let mut relay = Process::with(&door.url(""), json!({ "shutdown_timeout": "0s" }));
    let (mut player, mut origin) = playing(&relay, &door);
    let address = player.address();
    player.request("GET_PARAMETER", "rtsp://relay.test/live/cam/", "Session: s1");
    origin.message();
    relay.signal(rustix::process::Signal::TERM);
    assert!(origin.message().start.starts_with("TEARDOWN "));
    drop(origin);
    assert_eq!(player.message().status(), "503 the relay is shutting down");
    assert_eq!(player.hear(), Heard::Fin);
    drop(player);
    assert_eq!(relay.exit().code(), Some(0));
    assert_eq!(relay.outcome(address), "relay shutdown success");
}

#[test]
fn the_same_publisher_again_takes_its_stream_over_and_anyone_else_is_refused() {
    let door = Door::open();
    let tokens = json!([{ "token": "one", "name": "studio" }, { "token": "two", "name": "other" }]);
    let relay = Relay::with(&door.url(""), json!({ "security": { "auth_enabled": true, "auth_tokens": tokens } }));
    let (mut old, mut old_s) = publishing_to(&relay, &door, "rtsp://relay.test/live/cam?token=one");
    old.frame(0, &rtp(true, 1, 10));
    old_s.hear();
    let mut other = Peer::to(&relay);
    let answer = other.ask("ANNOUNCE", "rtsp://relay.test/live/cam?token=two", &format!("\n\n{SDP}"));
    assert_eq!(answer.status(), "403 the stream is already being published");
    relay.wait_ended("relay", "already_publishing");

    let mut new = Peer::to(&relay);
    new.request("ANNOUNCE", "rtsp://relay.test/live/cam?token=one", &format!("\n\n{SDP}"));
    old_s.serve("TEARDOWN ", "200 OK", "");
    assert_eq!(old_s.end(), Heard::Fin);
    drop(old_s);
    assert_eq!(old.end(), Heard::Fin);
    // The origin has not noticed yet: it is asked again.
    door.accept().serve("ANNOUNCE ", "406 Somebody publishes that", "");
    let mut origin = door.accept();
    origin.serve("ANNOUNCE ", "200 OK", "");
    assert_eq!(new.message().status(), "200 OK");
    drop(old);
    relay.wait_ended("relay", "taken_over");
    // Players are many.
    let players: Vec<_> = (0..2)
        .map(|_| {
            let mut player = Peer::to(&relay);
            player.request("DESCRIBE", "rtsp://relay.test/live/cam?token=two", "");
            door.accept().serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
            assert_eq!(player.message().status(), "200 OK");
            player
        })
        .collect();
    drop((players, new, origin));
    relay.wait_empty();
}
