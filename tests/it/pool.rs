//! Warm connections: streams over connections that were there before their clients, and what becomes of those that were not really there.

use serde_json::{Value, json};

use crate::client::Client;
use crate::origin::{At, Deed, Origin, Script};
use crate::parser::kind;
use crate::relay::{Face, Relay};
use crate::speech::body;
use crate::wait::{wait_equal, wait_until};

fn pool(min_idle: u32, more: Value) -> Value {
    let mut config = json!({ "pool": { "min_idle": min_idle, "max_idle": min_idle } });
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
    let connects = || relay.metric("rtmp_relay_upstream_connect_duration_seconds_count");
    let mut publisher = Client::publishing(&relay, "live", "cam");
    assert_eq!((pool_of(&relay, "hits"), pool_of(&relay, "misses"), connects()), (1, 0, 0));
    let said = publisher.say(6, 0, kind::VIDEO, 1, &body(1, 5000));
    assert_eq!(origin.line_of("cam").ear.wait_count(&[kind::VIDEO], 1), [said]);
    wait_idle(&relay, 1);
    let player = Client::playing(&relay, "live", "cam");
    let said = origin.line_of_player("cam").say(7, 0, kind::VIDEO, &body(2, 5000));
    assert_eq!(player.ear.wait_count(&[kind::VIDEO], 1), [said]);
    assert_eq!(relay.metric("rtmp_relay_upstream_pool_total{result=\"hit\"}"), 2);
    assert_eq!(origin.heard() as u64, 2 + pool_of(&relay, "idle"), "one connection a stream, and the spare one");
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
    assert_eq!((pool_of(&relay, "hits"), pool_of(&relay, "misses"), pool_of(&relay, "stale")), (0, 1, 2));
    assert_eq!(relay.metric("rtmp_relay_upstream_retries_total"), 0);
}

#[test]
fn one_that_ends_as_its_client_begins_to_speak_is_no_refusal_and_the_origin_is_dialled_anew() {
    // Those of before any client close at its first word: as if they had ended in that moment.
    for deed in [Deed::Close, Deed::Reset] {
        let origin =
            Origin::scripted(move |number| if number < 3 { Script::doing(At::Connect, deed) } else { Script::default() });
        let more = json!({ "retry": { "enabled": false }, "circuit_breaker": { "max_failures": 1, "reset_timeout_sec": 60 } });
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
