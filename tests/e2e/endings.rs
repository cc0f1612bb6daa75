//! Clients, the origin and the relay die or leave: is everybody told, and is nothing left behind?

use std::time::Duration;

use serde_json::json;

use crate::peers::{Nginx, NginxOptions, Player, Publisher, Receiver, Sender, Take};
use crate::relay::Relay;
use crate::route::{Route, direct};
use crate::wait::SOON;

const SENDERS: [Sender; 3] = [Sender::Ffmpeg, Sender::Rtmp2Sink, Sender::RtmpSink];

/// A publisher of each sort on a stream of its own, and a player of each sort on the first of these.
fn everyone(route: &Route, origin: &Nginx) -> (Vec<Publisher>, Vec<Player>) {
    let publish = |sender| Publisher::start(sender, &route.url(&format!("{sender:?}")), Take::live());
    let publishers: Vec<Publisher> = SENDERS.map(publish).into();
    let players = Player::start_all(&route.url("Ffmpeg"));
    origin.wait_for_clients("Ffmpeg", 1 + players.len());
    origin.wait_for_clients("Rtmp2Sink", 1);
    origin.wait_for_clients("RtmpSink", 1);
    (publishers, players)
}

#[test]
fn killed_clients_leave_nothing_behind() {
    let origin = Nginx::start(&NginxOptions::default());
    let route = Route::to(&origin);
    let before = route.relay().map(Relay::descriptors);
    let (mut publishers, mut players) = everyone(&route, &origin);
    if let Some(relay) = route.relay() {
        relay.wait_for_active(6);
    }
    players[0].kill();
    origin.wait_for_clients("Ffmpeg", 3);
    publishers.iter_mut().for_each(Publisher::kill);
    players.iter_mut().for_each(Player::kill);
    for sender in SENDERS {
        origin.wait_for_clients(&format!("{sender:?}"), 0);
    }
    if let (Some(relay), Some(before)) = (route.relay(), before) {
        relay.wait_for_active(0);
        relay.wait_for_descriptors(before);
        assert_eq!(relay.metric("rtmp_relay_active_connections"), Some(0.0));
    }
}

#[test]
fn a_killed_origin_ends_its_clients_and_leaves_nothing_behind() {
    let mut origin = Nginx::start(&NginxOptions::default());
    let route = Route::to_mortal(&origin);
    let before = route.relay().map(Relay::descriptors);
    let (mut publishers, mut players) = everyone(&route, &origin);
    origin.kill();
    for publisher in &mut publishers {
        assert!(!publisher.finish(SOON).success(), "a publisher must not think that all went well");
    }
    for player in &mut players {
        player.finish(SOON);
    }
    if let (Some(relay), Some(before)) = (route.relay(), before) {
        relay.wait_for_active(0);
        relay.wait_for_descriptors(before);
        assert_eq!(relay.metric("rtmp_relay_active_connections"), Some(0.0));
    }
}

#[test]
fn a_relay_that_is_asked_to_end_lets_everyone_go() {
    if direct() {
        return;
    }
    let origin = Nginx::start(&NginxOptions::default());
    let mut route = Route::through(Relay::start(&origin.address(), json!({ "shutdown_timeout": "1s" })));
    let (mut publishers, mut players) = everyone(&route, &origin);
    let status = route.relay_mut().map(|relay| relay.shut_down(SOON)).expect("there is a relay");
    assert_eq!(status.code(), Some(0));
    for sender in SENDERS {
        origin.wait_for_clients(&format!("{sender:?}"), 0);
    }
    for publisher in &mut publishers {
        publisher.finish(SOON);
    }
    for player in &mut players {
        player.finish(SOON);
    }
}

#[test]
fn clients_are_told_when_there_is_no_origin() {
    if direct() {
        return;
    }
    let mut origin = Nginx::start(&NginxOptions::default());
    origin.kill();
    let retry = json!({ "max_attempts": 2, "initial_delay_sec": 0.1, "max_delay_sec": 0.1 });
    let route = Route::through(Relay::start(&origin.address(), json!({ "retry": retry })));
    let mut publisher = Publisher::start(Sender::Ffmpeg, &route.url("cam"), Take::live());
    let mut player = Player::start(Receiver::Ffmpeg, &route.url("cam"));
    assert!(!publisher.finish(SOON).success());
    assert!(!player.finish(SOON).success());
    for said in [publisher.output(), player.output()] {
        assert!(said.contains("Server error: "), "{said}");
        assert!(!said.contains(&origin.address()), "the origin's address is nobody's business: {said}");
    }
    let relay = route.relay().expect("there is a relay");
    relay.wait_for_active(0);
    assert!(relay.metrics().contains("rtmp_relay_upstream_errors_total{"), "the failure is counted");
}

#[test]
fn librtmp_stops_soon_after_the_origin_does() {
    // It does not read while it sends: only a reset stops it, and it must not send into nothing for ever.
    let mut origin = Nginx::start(&NginxOptions::default());
    let route = Route::to_mortal(&origin);
    let mut publisher = Publisher::start(Sender::RtmpSink, &route.url("cam"), Take::live());
    origin.wait_for_clients("cam", 1);
    origin.kill();
    assert!(!publisher.finish(Duration::from_secs(5)).success());
}
