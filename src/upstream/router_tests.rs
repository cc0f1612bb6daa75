//! Tests of the way from a stream to its candidates.

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::*;
use crate::config::{Env, parse};
use crate::telemetry::Telemetry;
use crate::upstream::Numbering;
use crate::upstream::breaker::{Breaker, UpstreamBreaker};
use crate::upstream::vital::{Depth, Trouble};
use actix::Actor;

fn router(json: &Value) -> Router {
    after(json, &Numbering::default(), None)
}

/// As a reload makes it out of `before`.
fn after(json: &Value, numbering: &Numbering, before: Option<&Router>) -> Router {
    let judge = |_: &str, _: &[IpNetwork]| Ok(());
    let config = parse(&json.to_string(), &Env::empty(), &judge).unwrap_or_else(|problems| panic!("{problems}")).config;
    let targets = crate::upstream::targets(&config, numbering, before.map_or(&[], Router::targets)).expect("URLs");
    let breaker = Breaker::new(UpstreamBreaker::new(None, Vec::new(), Arc::new(|_| ())).start());
    let means = crate::upstream::means(&config, &targets, Vec::new(), breaker, Telemetry::silent(), before.map(Router::means));
    Router::new(&config, targets, means.expect("no TLS"), before).expect("patterns")
}

fn name(app: &str, stream: &str) -> Identity {
    Identity { app: app.into(), stream: stream.into() }
}

/// Labels of the candidates, shortened to their host; or the reason why there are none.
fn way(router: &Router, action: Action, name: &Identity) -> Result<String, &'static str> {
    let ask = Ask { family: Family::Rtmp, action, name, vhost: b"relay.example.com", lost: None };
    let seek = router.seek(&ask).map_err(NoRoute::reason)?;
    let host = |target: &Arc<Target>| target.url.host().to_string();
    Ok(seek.candidates().iter().map(host).collect::<Vec<_>>().join(" "))
}

fn two(more: Value) -> Value {
    let mut json = json!({ "upstreams": [{ "url": "rtmp://a", "name": "a" }, { "url": "rtmp://b", "name": "b" }] });
    json.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json
}

#[actix::test]
async fn without_routes_every_stream_goes_to_all() {
    let router = router(&two(json!({ "upstream_strategy": "failover" })));
    assert_eq!(way(&router, Action::Publish, &name("live", "cam")), Ok("a b".into()));
    let ask = Ask { family: Family::Rtmp, action: Action::Publish, name: &name("x", "y"), vhost: b"", lost: Some(TargetId(0)) };
    let seek = router.seek(&ask).expect("candidates");
    assert_eq!(seek.candidates()[0].id, TargetId(1), "what was lost comes last");
}

#[actix::test]
async fn a_change_keeps_turns_live_streams_and_places_of_targets_that_stay() {
    let numbering = Numbering::default();
    let old = after(&two(json!({})), &numbering, None);
    let cam = name("live", "cam");
    assert_eq!(way(&old, Action::Publish, &cam), Ok("a b".into()));
    let b = old.targets()[1].id;
    let _publication = old.publish(&cam, b);
    let load = old.means().loads.take(b).expect("a place");
    let new = after(
        &json!({ "upstreams": [{ "url": "rtmp://c" }, { "url": "rtmp://b", "max_connections": 2 }] }),
        &numbering,
        Some(&old),
    );
    assert_eq!((new.targets()[1].id, new.means().loads.of(b)), (b, 1));
    assert!(old.targets().iter().all(|target| target.id != new.targets()[0].id), "no number is given twice");
    assert_eq!(way(&new, Action::Play, &cam), Ok("b c".into()), "where the stream is live");
    let second = new.means().loads.take(b).expect("a place");
    assert!(new.means().loads.take(b).is_none(), "both count under the new bound");
    drop((load, second));
    assert_eq!(new.means().loads.of(b), 0);
    assert_eq!(way(&new, Action::Publish, &cam), Ok("b c".into()), "b has its turn");
}

#[actix::test]
async fn the_first_route_that_matches_counts_and_none_is_a_refusal() {
    let router = router(&two(json!({ "routes": [
        { "match": { "app": "studio", "action": "publish" }, "upstreams": ["b"] },
        { "match": { "app": "studio" }, "upstreams": ["b", "a"], "strategy": "failover" },
        { "match": { "vhost": "*.example.com", "stream": "cam*" }, "upstreams": ["a"] },
    ] })));
    assert_eq!(way(&router, Action::Publish, &name("studio", "x")), Ok("b".into()));
    assert_eq!(way(&router, Action::Play, &name("studio", "x")), Ok("b a".into()));
    assert_eq!(way(&router, Action::Play, &name("live", "cam1")), Ok("a".into()));
    assert_eq!(way(&router, Action::Play, &name("live", "mic1")), Err("no_route"));
}

#[actix::test]
async fn a_player_follows_its_publisher_under_every_strategy_but_not_out_of_its_route() {
    for strategy in ["round_robin", "random", "least_connections", "consistent_hash", "failover"] {
        let router = router(&two(json!({ "upstream_strategy": strategy })));
        let publication = router.publish(&name("live", "cam"), TargetId(1));
        for _ in 0..4 {
            assert_eq!(way(&router, Action::Play, &name("live", "cam")), Ok("b a".into()), "{strategy}");
        }
        drop(publication);
        assert_eq!(router.live().count(), 0);
    }
    let routes = json!({ "routes": [{ "match": { "action": "play" }, "upstreams": ["a"] }, { "upstreams": ["b"] }] });
    let router = router(&two(routes));
    let _publication = router.publish(&name("live", "cam"), TargetId(1));
    assert_eq!(way(&router, Action::Play, &name("live", "cam")), Ok("a".into()));
}

#[actix::test]
async fn a_target_whose_last_dial_failed_comes_after_the_others_until_one_succeeds() {
    let router = router(&two(json!({ "upstream_strategy": "failover" })));
    let health = router.means().health.clone();
    let first = || way(&router, Action::Publish, &name("live", "cam"));
    health.dialled(TargetId(0), Err(Trouble::new("connect_refused", "")));
    assert_eq!(first(), Ok("b a".into()));
    health.dialled(TargetId(1), Err(Trouble::new("connect_refused", "")));
    assert_eq!(first(), Ok("a b".into()), "where all are unwell the order is as it was");
    health.dialled(TargetId(1), Ok(Depth::Connection));
    assert_eq!(first(), Ok("b a".into()));
    health.dialled(TargetId(0), Ok(Depth::Speech));
    assert_eq!(first(), Ok("a b".into()));
}

#[actix::test]
async fn full_targets_are_left_out_and_nothing_but_full_ones_is_said() {
    let router = router(&json!({ "upstream_strategy": "failover", "upstreams": [
        { "url": "rtmp://a", "max_connections": 1 }, { "url": "rtmp://b", "max_connections": 1 },
    ] }));
    let loads = &router.means().loads;
    let first = loads.take(TargetId(0));
    assert_eq!(way(&router, Action::Publish, &name("live", "cam")), Ok("b".into()));
    let _second = loads.take(TargetId(1));
    assert_eq!(way(&router, Action::Publish, &name("live", "cam")), Err("upstream_full"));
    drop(first);
    assert_eq!(way(&router, Action::Publish, &name("live", "cam")), Ok("a".into()));
}

#[actix::test]
async fn a_client_of_another_protocol_is_told_that_nobody_speaks_it() {
    let router = router(&two(json!({})));
    let ask = Ask { family: Family::Rtsp, action: Action::Play, name: &name("live", "cam"), vhost: b"", lost: None };
    let no_route = router.seek(&ask).err().expect("nobody");
    assert_eq!(
        (no_route.reason(), no_route.to_string()),
        ("no_upstream_of_family", "no upstream for this stream speaks RTSP".into())
    );
}

#[actix::test]
async fn two_upstreams_that_differ_in_their_key_alone_have_labels_of_their_own() {
    let router = router(&json!({ "upstreams": [{ "url": "rtmp://a/live/S3CRET1" }, { "url": "rtmp://a/live/S3CRET2" }] }));
    let labels: Vec<_> = router.targets().iter().map(|target| target.label.as_str()).collect();
    assert_eq!(labels, ["rtmp://a:1935/live", "rtmp://a:1935/live#2"]);
}
