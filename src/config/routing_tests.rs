//! Tests of upstreams and routes as they are configured.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Env, Loaded, Pool, Problems, Strategy, parse};

fn read(json: &Value) -> Result<Loaded, Problems> {
    parse(&json.to_string(), &Env::empty(), &|_, _| Ok(()))
}

fn loaded(json: &Value) -> Loaded {
    read(json).unwrap_or_else(|problems| panic!("{problems}"))
}

fn error(json: &Value) -> String {
    let errors = read(json).expect_err("a mistake").errors;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

/// Three upstreams, with routes.
fn routed(routes: Value) -> Value {
    json!({ "upstreams": [
        { "url": "rtmp://a", "name": "a" }, { "url": "rtmp://b", "name": "b", "weight": 0 }, { "url": "rtmp://c", "name": "c", "backup": true },
    ], "routes": routes })
}

#[test]
fn upstreams_and_routes_become_indices_and_patterns() {
    let mut json = routed(json!([
        { "match": { "app": "live", "vhost": "Video.Example.COM", "action": "publish" }, "upstreams": ["b", "a"], "strategy": "failover" },
        { "upstreams": ["a", "c"] },
    ]));
    json["upstream_strategy"] = "consistent_hash".into();
    json["upstream_hash_load_factor"] = 1.25.into();
    json["upstreams"][0]["max_connections"] = 7.into();
    let config = loaded(&json).config;
    let upstreams: Vec<_> = config.upstreams.iter().map(|u| (u.name.as_deref(), u.weight, u.backup, u.max_connections)).collect();
    assert_eq!(
        upstreams,
        [(Some("a"), 1, false, Some(7)), (Some("b"), 0, false, None), (Some("c"), 1, true, None)],
        "what is not given stands at its default"
    );
    let routes: Vec<_> = config.routes.iter().map(|route| (&route.upstreams[..], route.strategy)).collect();
    assert_eq!(routes, [(&[1, 0][..], Strategy::Failover), (&[0, 2], Strategy::ConsistentHash)]);
    let matching = &config.routes[0].matching;
    assert_eq!((&*matching.app, &*matching.stream, &*matching.vhost), ("live", "**", "video.example.com"));
    assert_eq!((matching.publish, matching.rtsp), (Some(true), None));
    assert_eq!(config.hash_load_factor, Some(1.25));
    let lone = loaded(&json!({ "upstream": "rtmp://a" })).config;
    assert!(lone.routes.is_empty() && lone.hash_load_factor.is_none() && lone.strategy == Strategy::RoundRobin);
}

#[test]
fn a_group_in_which_nobody_takes_new_streams_is_refused() {
    assert!(error(&json!({ "upstreams": [] })).starts_with("upstreams: is empty: where should streams go?"));
    let of = |more: Value| json!({ "upstreams": [more, { "url": "rtmp://b", "backup": true, "weight": 0 }] });
    assert!(error(&of(json!({ "url": "rtmp://a", "backup": true }))).starts_with("upstreams: are all backups: of what?"));
    assert!(error(&of(json!({ "url": "rtmp://a", "weight": 0 }))).starts_with("upstreams: have weight 0 everywhere"));
    let groups = [(json!([]), "is empty"), (json!(["b"]), "have weight 0 everywhere"), (json!(["c"]), "are all backups")];
    for (members, text) in groups {
        let error = error(&routed(json!([{ "match": { "app": "x" }, "upstreams": members }, { "upstreams": ["a", "b", "c"] }])));
        assert!(error.starts_with(&format!("routes[0].upstreams: {text}")), "{error}");
    }
}

#[test]
fn a_name_that_no_upstream_has_is_named_with_the_nearest() {
    let of = |name: &str| error(&routed(json!([{ "upstreams": ["a", "b", "c", name] }])));
    assert_eq!(of("cc"), r#"routes[0].upstreams[3]: found "cc", the name of no upstream; did you mean "c"?"#);
    assert_eq!(of("elsewhere"), r#"routes[0].upstreams[3]: found "elsewhere", the name of no upstream; known here: a, b, c"#);
    assert_eq!(of("a"), r#"routes[0].upstreams[3]: "a" stands here already"#);
    let url = of("rtmp://user:hush@a/live/hush");
    assert!(url.contains("a URL (\"rtmp://...\")") && !url.contains("hush"), "{url}");
    let nameless = error(&json!({ "upstream": "rtmp://a", "routes": [{ "upstreams": ["a"] }] }));
    assert!(nameless.contains("no upstream has a name; give them a \"name\""), "{nameless}");
}

#[test]
fn names_are_short_plain_and_their_own() {
    let of =
        |name: &str| error(&json!({ "upstreams": [{ "url": "rtmp://a", "name": "a" }, { "url": "rtmp://b", "name": name }] }));
    assert_eq!(of("a"), r#"upstreams[1].name: "a" is the name of an upstream further up already"#);
    for odd in ["a b", "a/b", "\u{e4}", &"x".repeat(65)] {
        assert!(of(odd).starts_with("upstreams[1].name: expected up to 64 letters"), "{odd}");
    }
}

#[test]
fn a_route_that_can_never_match_is_refused() {
    let two = |first: Value, second: Value| {
        routed(json!([{ "match": first, "upstreams": ["a", "b", "c"] }, { "match": second, "upstreams": ["a"] }]))
    };
    for (first, second) in [
        (json!({}), json!({ "app": "live", "stream": "cam" })),
        (json!({ "stream": "*" }), json!({ "app": "live" })),
        (json!({ "app": "live" }), json!({ "app": "live" })),
        (json!({ "app": "live*" }), json!({ "app": "live2", "action": "play" })),
        (json!({ "vhost": "*.example.com" }), json!({ "vhost": "EU.example.com" })),
        (json!({ "action": "play" }), json!({ "action": "play", "protocol": "rtmp" })),
    ] {
        let text = error(&two(first.clone(), second.clone()));
        assert!(text.starts_with("routes[1]: can never match: routes[0] takes all of it"), "{first} {second}: {text}");
    }
    for (first, second) in [
        (json!({ "app": "*" }), json!({})),
        (json!({ "app": "*" }), json!({ "app": "a/b" })),
        (json!({ "app": "live" }), json!({ "app": "Live" })),
        (json!({ "action": "play" }), json!({ "action": "publish" })),
        (json!({ "app": "live", "stream": "a*" }), json!({ "app": "live" })),
        (json!({ "vhost": "x" }), json!({ "app": "live" })),
    ] {
        loaded(&two(first, second));
    }
}

#[test]
fn a_route_for_a_protocol_needs_an_upstream_of_it() {
    let text = error(&routed(json!([{ "match": { "protocol": "rtsp" }, "upstreams": ["a", "b"] }, { "upstreams": ["a", "c"] }])));
    assert_eq!(text, r#"routes[0]: match.protocol is "rtsp", but none of its upstreams is: expected one with rtsp://"#);
}

#[test]
fn patterns_are_judged_and_never_repeated() {
    let of = |key: &str| error(&routed(json!([{ "match": { key: "hush[" }, "upstreams": ["a", "b", "c"] }])));
    for key in ["app", "stream", "vhost"] {
        let text = of(key);
        assert!(text.starts_with(&format!("routes[0].match.{key}: is no pattern: ")) && !text.contains("hush"), "{text}");
    }
    let config = loaded(&routed(json!([{ "match": { "app": "hush", "stream": "hush*" }, "upstreams": ["a", "b", "c"] }]))).config;
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn an_upstream_that_no_route_leads_to_is_worth_a_look() {
    let warnings = loaded(&routed(json!([{ "upstreams": ["a"] }]))).warnings;
    let places: Vec<_> = warnings.iter().map(|warning| warning.at.as_str()).collect();
    assert_eq!(places, ["upstreams[1]", "upstreams[2]"]);
}

#[test]
fn an_unknown_strategy_or_word_is_named_with_the_nearest() {
    let strategy = |word: &str| error(&json!({ "upstream": "rtmp://a", "upstream_strategy": word }));
    assert!(strategy("roundrobin").ends_with("; did you mean \"round_robin\"?"), "{}", strategy("roundrobin"));
    assert!(strategy("least-connection").ends_with("did you mean \"least_connections\"?"));
    assert!(strategy("colour").contains("expected \"round_robin\" or \"random\"") && !strategy("colour").contains("did you"));
    let text = error(&routed(json!([{ "match": { "action": "pulish" }, "upstreams": ["a", "b", "c"] }])));
    assert!(
        text.starts_with("routes[0].match.action: found \"pulish\"") && text.ends_with("did you mean \"publish\"?"),
        "{text}"
    );
}

#[test]
fn a_load_factor_below_one_is_refused() {
    let of = |factor: f64| read(&json!({ "upstream": "rtmp://a", "upstream_hash_load_factor": factor }));
    assert!(of(0.5).expect_err("below one").errors[0].text.contains("expected 0 for no bound, or 1 and more"));
    assert!(of(0.0).is_ok() && of(1.0).is_ok());
}

#[test]
fn spare_connections_are_bounded_and_do_not_go_with_a_header_that_names_a_client() {
    let of = |pool: Value| json!({ "upstream": "rtmp://a", "pool": pool });
    let pools = |config: &Value| loaded(config).config.upstreams.iter().map(|upstream| upstream.pool).collect::<Vec<_>>();
    assert_eq!(pools(&of(json!({ "min_idle": 0 }))), [None]);
    let pool = Pool { min_idle: 1, max_idle: 3, max_idle_time: Duration::from_secs(5) };
    assert_eq!(pools(&of(json!({ "min_idle": 1, "max_idle": 3, "max_idle_time": "5s" }))), [Some(pool)]);
    assert!(error(&of(json!({ "min_idle": 2 }))).starts_with("pool.min_idle: found 2, more than max_idle (0)"));
    let two = |first: Value, second: Value| {
        let mut upstreams = [json!({ "url": "rtmp://a" }), json!({ "url": "rtmp://b", "proxy_protocol": "v2" })];
        for (upstream, more) in upstreams.iter_mut().zip([first, second]) {
            upstream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        json!({ "upstreams": upstreams, "pool": { "max_idle": 1, "max_idle_time": "5s" } })
    };
    let told = error(&two(json!({}), json!({})));
    assert!(told.starts_with("upstreams[1].proxy_protocol: does not go with `pool`"), "{told}");
    let told = error(&two(json!({ "pool": { "min_idle": 9, "max_idle": 8 } }), json!({ "pool": {} })));
    assert!(told.starts_with("upstreams[0].pool.min_idle: found 9, more than max_idle (8)"), "{told}");
    let each = pools(&two(json!({ "pool": { "min_idle": 1, "max_idle": 3, "max_idle_time": "5s" } }), json!({ "pool": {} })));
    assert_eq!(each, [Some(pool), None], "what is said of one counts, and off is off");
}

#[test]
fn as_many_routes_as_may_be_are_compared_with_each_other_in_no_time_to_speak_of() {
    let route = |app: &str| json!({ "match": { "app": app }, "upstreams": ["a", "b", "c"] });
    let wild = (0..128).map(|n| route(&format!("room-{n}-*")));
    let plain = (0..127).map(|n| route(&format!("hall-{n}")));
    let mut routes: Vec<Value> = wild.chain(plain).collect();
    routes.push(route("hall-5-a"));
    assert_eq!(loaded(&routed(json!(routes))).config.routes.len(), 256);
    routes.pop();
    routes.push(route("room-99-a"));
    let told = error(&routed(json!(routes)));
    assert!(told.starts_with("routes[255]: can never match: routes[99] takes all of it"), "{told}");
}
