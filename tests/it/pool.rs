//! Warm connections: streams over connections that were there before their clients, and what becomes of those that were not really there.

use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::Client;
use crate::ear::End;
use crate::origin::{At, Deed, Origin, Script};
use crate::parser::kind;
use crate::private::{Authority, Tunnel};
use crate::relay::{Face, Process, Relay, configured};
use crate::reload::reload;
use crate::rtsp::SDP;
use crate::rtsp_peer::{Peer, Said};
use crate::speech::body;
use crate::wait::{wait_equal, wait_for, wait_until};

fn pool(min_idle: u32, more: Value) -> Value {
    let mut config = json!({ "pool": { "min_idle": min_idle, "max_idle": min_idle, "max_idle_time": "10m" } });
    config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    config
}

fn pool_of(relay: &Face, what: &str) -> u64 {
    relay.status()["upstreams"][0]["pool"][what].as_u64().unwrap_or(u64::MAX)
}

fn wait_idle(relay: &Face, count: u64) {
    wait_equal("spare connections", &count, || pool_of(relay, "idle"));
}

#[test]
fn a_stream_passes_over_a_connection_that_was_there_before_its_client() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), pool(1, json!({})));
    wait_idle(&relay, 1);
    let took = |what: &str| relay.metric(&format!("rtmp_relay_upstream_{what}_duration_seconds_count"));
    let mut publisher = Client::publishing(&relay, "live", "cam");
    assert_eq!((pool_of(&relay, "hits"), pool_of(&relay, "misses")), (1, 0));
    assert_eq!((took("connect"), took("handshake")), (0, 0), "no dial, no handshake");
    let said = publisher.say(6, 0, kind::VIDEO, 1, &body(1, 5000));
    assert_eq!(origin.line_of("cam").ear.wait_count(&[kind::VIDEO], 1), [said]);
    wait_equal("connections", &2, || origin.heard());
    wait_idle(&relay, 1);
    let player = Client::playing(&relay, "live", "cam");
    let said = origin.line_of_player("cam").say(7, 0, kind::VIDEO, &body(2, 5000));
    assert_eq!(player.ear.wait_count(&[kind::VIDEO], 1), [said]);
    assert_eq!(relay.metric("rtmp_relay_upstream_pool_total{result=\"hit\"}"), 2);
    wait_idle(&relay, 1);
    assert_eq!(origin.heard(), 3, "one connection a stream, and the spare one");
}

#[test]
fn connections_that_ended_while_they_waited_are_noticed_before_a_client_is_there() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), pool(2, json!({})));
    wait_idle(&relay, 2);
    for number in 0..2 {
        origin.line(number).finish();
    }
    Client::publishing(&relay, "live", "cam");
    // Whether the relay looked by itself or for the client.
    assert_eq!((pool_of(&relay, "hits") + pool_of(&relay, "misses"), pool_of(&relay, "stale")), (1, 2));
    assert_eq!(relay.metric("rtmp_relay_upstream_retries_total"), 0);
    assert_eq!(relay.status()["circuit_breaker"]["targets"][0]["failures"], 0);
}

#[test]
fn one_that_ends_or_is_silent_as_its_client_begins_to_speak_is_no_refusal_and_the_origin_is_dialled_anew() {
    // Those of before any client close at its first word: as if they had ended in that moment.
    for deed in [Deed::Close, Deed::Reset, Deed::Stall] {
        let origin =
            Origin::scripted(move |number| if number < 3 { Script::doing(At::Connect, deed) } else { Script::default() });
        let more = json!({ "dial_timeout": "2s", "retry": { "enabled": false }, "circuit_breaker": { "max_failures": 1, "reset_timeout_sec": 60 } });
        let relay = Relay::with(&origin.url(""), pool(2, more));
        wait_idle(&relay, 2);
        // The relay's own look is one of the three.
        wait_until("all three are there", || origin.count() == 3);
        Client::publishing(&relay, "live", "cam");
        assert_eq!((pool_of(&relay, "hits"), pool_of(&relay, "stale")), (1, 1), "{deed:?}");
        assert_eq!(relay.status()["circuit_breaker"]["targets"][0]["state"], "closed");
        assert_eq!(relay.status()["upstreams"][0]["health"]["state"], "healthy");
    }
}

#[test]
fn an_origin_that_refuses_over_a_warm_connection_has_refused() {
    for deed in [Deed::Refuse("NetStream.Publish.BadName", "taken"), Deed::Close] {
        let origin = Origin::new(Script::doing(At::Request, deed));
        let relay = Relay::with(&origin.url(""), pool(1, json!({})));
        wait_idle(&relay, 1);
        Client::asking_to_publish(&relay, "live", "cam").refused();
        relay.wait_ended("upstream", "upstream_refused");
        assert_eq!((pool_of(&relay, "hits"), pool_of(&relay, "stale")), (1, 0), "{deed:?}: it had spoken");
        let asked = |line: &crate::parser::Message| line.is("publish");
        assert_eq!(origin.heard_how_often(asked), 1, "{deed:?}: nobody is asked twice");
    }
}

#[test]
fn no_warm_connections_are_made_to_an_origin_that_is_not_well_until_it_is() {
    let bad = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mood = std::sync::Arc::clone(&bad);
    let origin = Origin::scripted(move |_| {
        if mood.load(std::sync::atomic::Ordering::SeqCst) { Script::doing(At::Handshake, Deed::Close) } else { Script::default() }
    });
    let checks =
        json!({ "upstream_health_check": { "enabled": true, "interval_sec": 0.1, "timeout_sec": 1, "rise": 1, "fall": 1 } });
    let relay = Relay::with(&origin.url(""), pool(1, checks));
    wait_equal("its health", &json!("unhealthy"), || relay.status()["upstreams"][0]["health"]["state"].clone());
    assert_eq!(pool_of(&relay, "idle"), 0);
    bad.store(false, std::sync::atomic::Ordering::SeqCst);
    wait_idle(&relay, 1);
    Client::publishing(&relay, "live", "cam");
    assert_eq!(pool_of(&relay, "hits"), 1);
}

#[test]
fn an_origin_that_dies_takes_its_warm_connections_along_and_gets_new_ones_when_it_is_back() {
    let origin = Origin::willing();
    let checks =
        json!({ "upstream_health_check": { "enabled": true, "interval_sec": 0.1, "timeout_sec": 1, "rise": 1, "fall": 1 } });
    let relay = Relay::with(&origin.url(""), pool(2, checks));
    wait_idle(&relay, 2);
    let address = origin.address;
    drop(origin);
    wait_idle(&relay, 0);
    wait_equal("stale ones", &2, || pool_of(&relay, "stale"));
    let listener = wait_for("the port is free", || TcpListener::bind(address).ok());
    let _back = Origin::over(listener, |_| Script::default());
    wait_idle(&relay, 2);
    Client::publishing(&relay, "live", "cam");
    assert_eq!(pool_of(&relay, "hits"), 1);
}

#[test]
fn a_reload_closes_what_is_warm_to_an_upstream_that_is_gone_and_warms_the_new_one() {
    let (old, new) = (Origin::willing(), Origin::willing());
    let relay = Process::with(&old.url(""), pool(2, json!({})));
    wait_idle(&relay, 2);
    let mut publisher = Client::publishing(&relay, "live", "cam");
    wait_idle(&relay, 2);
    reload(&relay, &configured(&new.url(""), pool(1, json!({}))));
    // All but the one that is in use.
    let cam = old.line_of("cam");
    wait_until("the spares are closed", || {
        let ended = (0..old.heard()).filter(|&number| old.line(number).ear.record().end.is_some()).count();
        ended == old.heard() - 1 && old.heard() >= 3
    });
    assert_eq!(cam.ear.record().end, None);
    let said = publisher.say(6, 0, kind::VIDEO, 1, &body(1, 5000));
    assert_eq!(cam.ear.wait_count(&[kind::VIDEO], 1), [said]);
    wait_idle(&relay, 1);
    Client::publishing(&relay, "live", "late");
    assert_eq!((pool_of(&relay, "hits"), new.knows("late")), (1, true));
    // And off again.
    reload(&relay, &configured(&new.url(""), json!({})));
    assert_eq!(relay.status()["upstreams"][0]["pool"], Value::Null);
    wait_until("nobody is left", || (0..new.heard()).all(|number| new.line(number).ear.record().end.is_some()));
}

#[test]
fn a_drain_closes_what_is_warm_at_once() {
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), pool(2, json!({ "drain": { "delay": "1m" } })));
    wait_idle(&relay, 2);
    relay.signal(Signal::TERM);
    for number in 0..2 {
        assert_eq!(origin.line(number).ear.wait_end(), End::Fin);
    }
    wait_idle(&relay, 0);
    // Whoever comes before the door closes is served as ever.
    Client::publishing(&relay, "live", "cam");
    assert_eq!(origin.heard(), 3, "and no more are made");
    relay.signal(Signal::TERM);
    relay.exit();
}

/// RTSP's connections, where nobody says anything before a client has come.
struct Silent {
    listener: TcpListener,
    sockets: Vec<TcpStream>,
}

impl Silent {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener can be polled");
        Self { listener, sockets: Vec::new() }
    }

    /// The next on which something is said.
    fn spoken(&mut self) -> Peer {
        let socket = wait_for("something is said", || {
            while let Ok((socket, _)) = self.listener.accept() {
                socket.set_nonblocking(true).expect("a socket can be polled");
                self.sockets.push(socket);
            }
            let at = self.sockets.iter().position(|socket| socket.peek(&mut [0]).is_ok_and(|bytes| bytes > 0))?;
            Some(self.sockets.remove(at))
        });
        socket.set_nonblocking(false).expect("a socket can block");
        Peer::over(socket)
    }
}

fn described(player: &mut Peer, mut origin: Peer) -> (Said, Peer) {
    origin.serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
    (player.message(), origin)
}

#[test]
fn rtsp_upstreams_are_warm_up_to_tls_and_its_tickets_are_not_taken_for_words() {
    let (authority, mut silent) = (Authority::new(), Silent::open());
    let address = silent.listener.local_addr().expect("bound");
    let front = Tunnel::before(address, &authority.paper(&["127.0.0.1"]));
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("it can be written");
    let relay = Relay::with(&format!("rtsps://{}", front.address), pool(1, json!({ "upstream_tls": { "ca_file": ca } })));
    wait_idle(&relay, 1);
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", "rtsp://relay.test/live/cam", "");
    let (answer, _origin) = described(&mut player, silent.spoken());
    assert_eq!(answer.status(), "200 OK");
    assert_eq!((pool_of(&relay, "hits"), pool_of(&relay, "misses"), pool_of(&relay, "stale")), (1, 0, 0));
    assert_eq!(relay.metric("rtmp_relay_upstream_tls_duration_seconds_count"), 0);
}

#[test]
fn an_rtsp_request_over_a_warm_connection_that_just_ended_is_said_again_over_another() {
    let mut silent = Silent::open();
    let address = silent.listener.local_addr().expect("bound");
    let relay = Relay::with(&format!("rtsp://{address}"), pool(1, json!({ "retry": { "enabled": false } })));
    wait_idle(&relay, 1);
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", "rtsp://relay.test/live/cam", "");
    drop(silent.spoken());
    let (answer, _origin) = described(&mut player, silent.spoken());
    assert_eq!(answer.status(), "200 OK");
    assert_eq!((pool_of(&relay, "hits"), pool_of(&relay, "stale")), (1, 1));
    assert_eq!(relay.status()["upstreams"][0]["health"]["state"], "healthy");
}
