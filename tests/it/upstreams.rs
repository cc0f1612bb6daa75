//! Several upstreams: who gets which stream, whom a player follows, and what the client hears where nobody is left.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::client::Client;
use crate::origin::{At, Deed, Origin, Script};
use crate::relay::Relay;
use crate::wait::{wait_equal, wait_until};

/// A configuration of these upstreams; what `more` holds of an upstream is laid over it.
fn several(urls: &[String], more: &[Value]) -> Value {
    let upstream = |(at, url): (usize, &String)| {
        let mut upstream = json!({ "url": url, "name": format!("o{at}") });
        if let Some(more) = more.get(at).and_then(Value::as_object) {
            upstream.as_object_mut().expect("an object").extend(more.clone());
        }
        upstream
    };
    json!({ "upstreams": urls.iter().enumerate().map(upstream).collect::<Vec<_>>() })
}

fn with(mut config: Value, more: Value) -> Value {
    config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    config
}

/// A relay in front of these origins.
fn relay(origins: &[&Origin], strategy: &str, more: Value) -> Relay {
    let urls: Vec<_> = origins.iter().map(|origin| origin.url("")).collect();
    Relay::several(with(several(&urls, &[]), with(json!({ "upstream_strategy": strategy }), more)))
}

fn nobody(last: u8) -> String {
    let listener = TcpListener::bind(format!("127.82.9.{last}:0")).expect("a free port");
    format!("rtmp://{}", listener.local_addr().expect("a bound socket has an address"))
}

/// Which of the origins has heard of this stream.
fn home(origins: &[&Origin], stream: &str) -> usize {
    crate::wait::wait_for("an origin hears of the stream", || origins.iter().position(|origin| origin.knows(stream)))
}

#[test]
fn streams_take_turns_and_players_follow_them() {
    let (a, b) = (Origin::willing(), Origin::willing());
    let relay = relay(&[&a, &b], "round_robin", json!({}));
    let publishers: Vec<_> = (0..4).map(|n| Client::publishing(&relay, "live", &format!("cam{n}"))).collect();
    let homes: Vec<_> = (0..4).map(|n| home(&[&a, &b], &format!("cam{n}"))).collect();
    assert_eq!(homes, [0, 1, 0, 1]);
    for (n, home) in homes.iter().enumerate() {
        for _ in 0..2 {
            let player = Client::playing(&relay, "live", &format!("cam{n}"));
            let want = json!([&a, &b][*home].url(""));
            wait_equal(&format!("the upstream of a player of cam{n}"), &want, || relay.row(player.address())["upstream"].clone());
        }
    }
    drop(publishers);
}

#[test]
fn a_stream_has_one_home_by_its_name_on_every_relay() {
    let (a, b, c) = (Origin::willing(), Origin::willing(), Origin::willing());
    let origins = [&a, &b, &c];
    let relays = [relay(&origins, "consistent_hash", json!({})), relay(&origins, "consistent_hash", json!({}))];
    let mut homes = Vec::new();
    for n in 0..12 {
        let stream = format!("cam{n}");
        let _publisher = Client::publishing(&relays[0], "live", &stream);
        let player = Client::playing(&relays[1], "live", &stream);
        let home = home(&origins, &stream);
        let want = json!(origins[home].url(""));
        wait_equal(&stream, &want, || relays[1].row(player.address())["upstream"].clone());
        homes.push(home);
    }
    assert!((0..3).all(|origin| homes.contains(&origin)), "{homes:?}");
}

#[test]
fn a_client_does_not_notice_that_the_first_origins_are_down() {
    let origin = Origin::willing();
    let urls = [nobody(1), nobody(2), origin.url("")];
    // One attempt, and no wait within a round: each origin is tried once all the same.
    let more =
        json!({ "upstream_strategy": "failover", "retry": { "max_attempts": 1, "initial_delay_sec": 60, "max_delay_sec": 60 } });
    let relay = Relay::several(with(several(&urls, &[]), more));
    Client::publishing(&relay, "live", "cam");
    assert_eq!(relay.metric("rtmp_relay_upstream_retries_total"), 0);
    // The relay's own look may have found out about the first already.
    let failed = relay.metric("rtmp_relay_upstream_errors_total{error_type=\"connect_refused\"}");
    assert!((1..=2).contains(&failed), "{failed} failed dials");
}

#[test]
fn whatever_is_wrong_with_the_first_origin_the_second_takes_the_stream() {
    for (at, deed) in [
        (At::Accept, Deed::Close),
        (At::Accept, Deed::Reset),
        (At::Accept, Deed::Stall),
        (At::Handshake, Deed::Close),
        (At::Handshake, Deed::Stall),
        (At::Connect, Deed::Stall),
        (At::CreateStream, Deed::Stall),
        (At::Request, Deed::Stall),
    ] {
        let (bad, good) = (Origin::new(Script::doing(at, deed)), Origin::willing());
        let more = json!({ "dial_timeout": "300ms", "retry": { "initial_delay_sec": 60, "max_delay_sec": 60 } });
        let relay = relay(&[&bad, &good], "failover", more);
        Client::publishing(&relay, "live", "cam");
        assert!(good.knows("cam"), "{at:?} {deed:?}");
        assert_eq!(relay.metric("rtmp_relay_upstream_retries_total"), 0, "{at:?} {deed:?}: no back-off within a round");
    }
}

#[test]
fn an_origin_that_refuses_has_spoken_for_all() {
    let no = Deed::Refuse("NetStream.Publish.BadName", "taken");
    for deed in [no, Deed::Close] {
        let (first, second) = (Origin::new(Script::doing(At::Request, deed)), Origin::willing());
        let relay = relay(&[&first, &second], "failover", json!({}));
        Client::asking_to_publish(&relay, "live", "cam").refused();
        assert!(!second.knows("cam"), "{deed:?}");
    }
}

#[test]
fn a_full_origin_is_passed_over_and_its_place_is_free_again_at_once() {
    let (a, b) = (Origin::willing(), Origin::willing());
    let bound = json!({ "max_connections": 1 });
    let config = several(&[a.url(""), b.url("")], &[bound.clone(), bound]);
    let relay = Relay::several(with(config, json!({ "upstream_strategy": "failover" })));
    let mut first = Client::publishing(&relay, "live", "one");
    let _second = Client::publishing(&relay, "live", "two");
    assert!(a.knows("one") && b.knows("two"));
    let (code, text) = Client::asking_to_publish(&relay, "live", "three").refused();
    assert_eq!(code, "NetStream.Publish.Denied");
    assert!(text.starts_with("every upstream for this stream has as many connections as it may have"), "{text}");
    relay.wait_ended("relay", "upstream_full");
    assert_eq!(relay.metric("rtmp_relay_rejections_total{reason=\"upstream_full\"}"), 1);
    assert_eq!(sessions(&relay, &a), 1);
    first.leave();
    wait_equal("sessions at the first", &0, || sessions(&relay, &a));
    Client::publishing(&relay, "live", "three");
    assert!(a.knows("three"));
}

fn sessions(relay: &Relay, origin: &Origin) -> u64 {
    relay.metric(&format!("rtmp_relay_upstream_sessions{{upstream=\"{}\"}}", origin.url("")))
}

#[test]
fn routes_part_streams_and_a_stream_without_one_is_refused() {
    let (a, b) = (Origin::willing(), Origin::willing());
    let routes = json!({ "routes": [
        { "match": { "app": "studio/*", "action": "publish" }, "upstreams": ["o1"] },
        { "match": { "vhost": "relay.test", "stream": "cam*" }, "upstreams": ["o0"] },
    ] });
    let relay = relay(&[&a, &b], "round_robin", routes);
    Client::publishing(&relay, "studio/eu", "cam1");
    assert!(b.knows("cam1"));
    Client::publishing(&relay, "live", "cam2?vhost=RELAY.test");
    wait_until("the other has it", || a.knows("cam2?vhost=RELAY.test"));
    Client::playing(&relay, "studio/eu", "cam3");
    assert!(a.knows("cam3"), "it plays, so the first route is not its own");
    for (code, mut client) in [
        ("NetStream.Publish.Denied", Client::asking_to_publish(&relay, "live", "mic")),
        ("NetStream.Play.Failed", Client::asking_to_play(&relay, "live", "cam?vhost=elsewhere")),
    ] {
        assert_eq!(client.refused(), (code.into(), "no route of the relay leads this stream anywhere".into()));
    }
    relay.wait_ended("relay", "no_route");
    assert_eq!(relay.connections().2, 2);
    assert_eq!(relay.metric("rtmp_relay_rejections_total{reason=\"no_route\"}"), 2);
}
