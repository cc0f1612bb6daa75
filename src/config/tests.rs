//! The configuration as a whole: what loads, what is refused, and that no secret is ever said.

use std::time::Duration;

use proptest::prelude::{Just, any, prop_assert, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;

fn every_url(_: &str, _: &[IpNetwork]) -> Result<(), String> {
    Ok(())
}

const JUDGES: Judges<'_> = Judges { upstream: &every_url, files: &|_| Vec::new() };

pub(super) fn read(json: &Value, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    parse(&json.to_string(), &variables.iter().copied().collect(), &every_url)
}

/// `json` with an upstream, which every configuration needs.
fn with_upstream(mut json: Value) -> Value {
    json["upstream"] = "rtmp://origin.example.com/live".into();
    json
}

fn loaded(json: Value) -> Loaded {
    read(&with_upstream(json), &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

pub(super) fn config(json: Value) -> Config {
    loaded(json).config
}

pub(super) fn warnings(json: Value) -> Vec<String> {
    loaded(json).warnings.iter().map(Finding::to_string).collect()
}

pub(super) fn errors(json: Value) -> Vec<String> {
    read(&with_upstream(json), &[]).unwrap_err().errors.iter().map(Finding::to_string).collect()
}

pub(super) fn error(json: Value) -> String {
    let errors = errors(json);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().unwrap()
}

#[test]
fn nothing_but_an_upstream_is_needed() {
    let Loaded { config, warnings, from_environment, .. } = loaded(json!({}));
    assert!(warnings.is_empty() && from_environment.is_empty());
    assert_eq!((config.listen.to_string(), config.http.map(|http| http.to_string())), (":1935".into(), Some(":8080".into())));
    assert_eq!((config.buffers.read, config.buffers.write, config.timeouts.idle), (65_536, 65_536, Duration::from_secs(30)));
    assert_eq!(config.connection_limit, ConnectionLimit { max_total_connections: 1000, max_per_ip: None });
    assert_eq!((config.rate_limit, config.timeouts.player_idle), (None, None));
    let breaker = CircuitBreaker { max_failures: 5, reset_timeout: Duration::from_secs(30), success_threshold: 2 };
    assert_eq!(config.circuit_breaker, Some(breaker));
    let retry = config.retry.unwrap();
    assert_eq!((retry.max_attempts, retry.initial_delay, retry.max_delay), (3, Duration::from_secs(1), Duration::from_secs(30)));
    assert_eq!((retry.multiplier, retry.jitter_fraction, retry.total_timeout), (2.0, 0.1, Duration::from_secs(20)));
    assert!(config.workers >= 1);
}

#[test]
fn a_configuration_with_every_key_of_the_plan_loads() {
    let loaded = read(
        &json!({
            "listen_addr": "0.0.0.0:1935", "http_addr": "127.0.0.1:8080", "upstreams": [{ "url": "rtmp://a", "weight": 3 }, { "url": "rtmp://b" }],
            "upstream_strategy": "round_robin", "upstream_health_check": { "enabled": true, "interval_sec": 10, "timeout_sec": 2.5 },
            "idle_timeout": "1h30m", "read_buffer": 4096, "write_buffer": 1_048_576,
            "security": { "auth_enabled": true, "auth_tokens": ["one", { "token": "two", "name": "studio", "actions": ["publish"], "streams": ["live/*"] }],
                "tls_enabled": false, "tls_cert": "", "tls_key": "", "allowed_clients": ["10.0.0.0/8"], "denied_clients": ["10.1.0.0/16"], "upstream_allowed_networks": ["192.168.0.0/16"] },
            "rate_limit": { "enabled": true, "requests_per_sec": 0.5, "burst": 5 }, "connection_limit": { "max_total_connections": 500, "max_per_ip": 5 },
            "circuit_breaker": { "enabled": false, "max_failures": 3, "reset_timeout_sec": 0.5, "success_threshold": 1 },
            "retry": { "enabled": false, "max_attempts": 1, "initial_delay_sec": 0.25, "max_delay_sec": 2, "multiplier": 1, "jitter_fraction": 0, "total_timeout": "5s" },
        }),
        &[],
    );
    let Loaded { config, warnings, .. } = loaded.unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.upstreams.iter().map(|upstream| upstream.weight).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(config.timeouts.idle, Duration::from_secs(5400));
    let (interval, timeout) = (Duration::from_secs(10), Duration::from_millis(2500));
    assert_eq!(config.health_check, Some(HealthCheck { interval, timeout, rise: 2, fall: 3, kind: CheckKind::Handshake }));
    let tokens: Vec<_> =
        config.security.auth_tokens.iter().map(|t| (t.token.expose_secret(), &*t.name, t.publish, t.play)).collect();
    assert_eq!(tokens, [("one", "token-1", true, true), ("two", "studio", true, false)]);
    assert_eq!(config.rate_limit.map(|limit| (limit.requests_per_sec, limit.burst.get())), Some((0.5, 5)));
    assert_eq!((config.circuit_breaker, config.retry), (None, None));
}

#[test]
fn switches_of_things_are_words_for_none() {
    let config = config(
        json!({ "http_addr": "", "player_idle_timeout": "5m", "tcp": { "send_buffer": 65536 }, "hold": { "max": "0s" }, "workers": 3 }),
    );
    assert_eq!((config.http, config.workers), (None, 3));
    assert_eq!(config.timeouts.player_idle, Some(Duration::from_secs(300)));
    assert_eq!(config.tcp, Tcp { recv_buffer: None, send_buffer: Some(65536) });
    assert!(config.hold.max.is_zero());
}

#[test]
fn the_same_choices_are_equal_and_others_are_not() {
    let tokens = |token: &str| {
        config(
            json!({ "security": { "auth_enabled": true, "auth_tokens": [token] }, "log": { "fingerprint_key": "0123456789abcdef" } }),
        )
    };
    assert_eq!(tokens("one"), tokens("one"));
    assert_ne!(tokens("one"), tokens("two"));
}

#[test]
fn all_problems_are_reported_together() {
    let problems = errors(json!({
        "listen_addr": "example.com:1935", "idle_timeout": 30, "dial_timeout": "5", "write_timeout": "1d", "read_buffer": 100, "workers": -1,
        "rate_limit": { "enabled": "yes", "burst": 0 }, "retry": { "multiplier": 0.5, "max_delay_sec": "30s" }, "tls": {},
        "security": { "allowed_clients": ["10.0.0.0/8", "10.1.2.3/8"], "auth_tokens": "hush" }, "log": { "level": "loud", "format": null }, "hold": [],
        "forward_query": "some",
    }));
    let expected = [
        "idle_timeout: found 30, a number without a unit; write \"30s\" for seconds, or \"20ms\", \"5m\", \"1h30m\"",
        "dial_timeout: found \"5\"; expected a duration in words, such as \"20ms\", \"30s\", \"5m\" or \"1h30m\", from \"100ms\" to \"5m\"",
        "write_timeout: found \"1d\"; expected a duration in words, such as \"20ms\", \"30s\", \"5m\" or \"1h30m\", from \"100ms\" to \"1h\"",
        "read_buffer: found 100; expected a whole number from 4096 to 1048576",
        "workers: found -1; expected a whole number from 0 to 1024",
        "rate_limit.enabled: found \"yes\"; expected true or false",
        "rate_limit.burst: found 0; expected a whole number from 1 to 1000000",
        "retry.multiplier: found 0.5; expected a number from 1 to 100",
        "retry.max_delay_sec: found \"30s\"; expected a number of seconds from 0.001 to 3600",
        "tls: unknown key; ",
        "security.auth_tokens: found a string; expected a list: [\"...\"]",
        "log.level: found \"loud\"; expected \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\"",
        "log.format: found null; expected \"json\" or \"text\"",
        "hold: found a list; expected an object: {...}",
        "forward_query: found \"some\"; expected \"all\" or \"none\" or a list: [\"...\"]",
        "listen_addr: found \"example.com:1935\"; a host name cannot be listened on",
        "security.allowed_clients[1]: found \"10.1.2.3/8\"; expected a network without bits behind its prefix: \"10.0.0.0/8\"",
    ];
    for (found, expected) in problems.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_or_its_right_place() {
    assert_eq!(error(json!({ "listenAddr": ":1" })), "listenAddr: unknown key; did you mean `listen_addr`?");
    assert_eq!(error(json!({ "retry": { "max_atempts": 1 } })), "retry.max_atempts: unknown key; did you mean `max_attempts`?");
    assert_eq!(error(json!({ "auth_tokens": ["hush"] })), "auth_tokens: unknown key; its place is `security.auth_tokens`");
    assert_eq!(error(json!({ "hold": { "coalesce": "1ms" } })), "hold.coalesce: unknown key; known here: max");
    assert_eq!(
        error(json!({ "retry.max_attempts": 3 })),
        r#"retry.max_attempts: unknown key; write "retry": { "max_attempts": ... }"#
    );
}

#[test]
fn a_file_that_is_no_object_is_refused() {
    for json in [json!([]), json!("hush"), json!(null)] {
        let problems = read(&json, &[("UPSTREAM", "rtmp://a")]).unwrap_err();
        assert_eq!(problems.errors.len(), 1);
        assert!(!problems.to_string().contains("hush"));
    }
}

#[test]
fn authentication_and_tokens_belong_together() {
    assert!(
        error(json!({ "security": { "auth_enabled": true } })).starts_with("security.auth_enabled: is true without any token")
    );
    assert!(warnings(json!({ "security": { "auth_tokens": ["one"] } }))[0].contains("everyone may publish and play"));
    // The list is wrong itself: that there is no token follows, and is not said as well.
    assert_eq!(
        error(json!({ "security": { "auth_enabled": true, "auth_tokens": [5] } })),
        "security.auth_tokens[0]: found a number; expected a string or an object: {...}"
    );
}

#[test]
fn what_would_have_no_effect_is_said() {
    assert_eq!(warnings(json!({ "rate_limit": { "burst": 5 } })), ["rate_limit: has no effect without \"enabled\": true"]);
    assert!(warnings(json!({ "rate_limit": { "enabled": false, "burst": 5 } })).is_empty());
    assert!(warnings(json!({ "connection_limit": { "max_per_ip": 2000 } }))[0].contains("never be reached"));
    assert!(warnings(json!({ "retry": { "total_timeout": "1s" } }))[0].contains("dial_timeout (5s)"));
    assert!(warnings(json!({ "security": { "upstream_allowed_networks": ["0.0.0.0/0"] } }))[0].contains("turns the guard off"));
    let slow = json!({ "upstream_health_check": { "enabled": true, "interval_sec": 1 } });
    assert!(warnings(slow)[0].contains("longer than interval_sec (1)"));
    assert!(warnings(json!({ "log": { "fingerprint_key": "short" } }))[0].contains("shorter than 16"));
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    assert!(error(json!({ "http_addr": "127.0.0.1:1935" })).starts_with("http_addr: takes the same port as listen_addr (:1935)"));
    assert!(
        error(json!({ "retry": { "initial_delay_sec": 5, "max_delay_sec": 1 } }))
            .starts_with("retry.max_delay_sec: found 1; expected")
    );
    assert!(error(json!({ "buffers": { "max_total": 1_048_576 }, "read_buffer": 1_048_576 })).starts_with("buffers.max_total"));
    assert!(config(json!({ "retry": { "enabled": false, "initial_delay_sec": 5, "max_delay_sec": 1 } })).retry.is_none());
}

#[test]
fn an_upstream_is_needed_and_judged() {
    let text = read(&json!({}), &[]).unwrap_err().to_string();
    assert!(text.contains("error: upstream: is missing"), "{text}");
    assert_eq!(read(&json!({ "upstreams": [] }), &[]).unwrap_err().errors.len(), 1);
    assert_eq!(read(&json!({ "upstream": "" }), &[]).unwrap_err().errors[0].at, "upstream");
    assert_eq!(
        read(&json!({ "upstreams": [{ "weight": 2 }] }), &[]).unwrap_err().errors[0].to_string(),
        "upstreams[0]: the key `url` is missing"
    );
    let twice = json!({ "upstreams": [{ "url": "rtmp://a" }, { "url": "rtmp://a" }] });
    assert_eq!(read(&twice, &[]).unwrap_err().errors[0].at, "upstreams[1].url");
    let judge = |url: &str, allowed: &[IpNetwork]| if allowed.is_empty() { Err(format!("no {}", url.len())) } else { Ok(()) };
    let text = json!({ "upstream": "rtmp://a" }).to_string();
    assert_eq!(parse(&text, &Env::empty(), &judge).unwrap_err().errors[0].to_string(), "upstream: no 8");
    let text = json!({ "upstream": "rtmp://a", "security": { "upstream_allowed_networks": ["10.0.0.0/8"] } }).to_string();
    assert!(parse(&text, &Env::empty(), &judge).is_ok());
}

#[test]
fn the_environment_wins_and_needs_no_file() {
    let variables = [
        ("UPSTREAM", "rtmp://b"),
        ("IDLE_TIMEOUT", "1m"),
        ("SECURITY_AUTH_ENABLED", "true"),
        ("SECURITY_AUTH_TOKENS", "one,two"),
    ];
    let Loaded { config, from_environment, warnings, .. } =
        read(&with_upstream(json!({ "idle_timeout": "5m" })), &variables).unwrap();
    assert_eq!((config.upstreams[0].url.as_str(), config.timeouts.idle), ("rtmp://b", Duration::from_secs(60)));
    assert_eq!(config.security.auth_tokens.len(), 2);
    assert_eq!(from_environment.get("idle_timeout").map(String::as_str), Some("IDLE_TIMEOUT"));
    assert_eq!(warnings.len(), 1);
    assert!(read(&json!({}), &variables).unwrap().warnings.is_empty());
}

#[test]
fn tokens_come_from_a_file_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.json");
    std::fs::write(directory.path().join("tokens"), "one\ntwo\n").unwrap();
    let json = |file: &str| {
        with_upstream(json!({ "security": { "auth_enabled": true, "auth_tokens": ["two"], "auth_tokens_file": file } }))
            .to_string()
    };
    std::fs::write(&path, json("tokens")).unwrap();
    let Loaded { config, warnings, .. } = load(Some(&path), &Env::empty(), JUDGES).unwrap();
    assert_eq!(config.security.auth_tokens.len(), 2);
    assert_eq!(warnings.len(), 1, "that `two` stands in both is said: {warnings:?}");
    std::fs::write(&path, json("nowhere")).unwrap();
    let problems = load(Some(&path), &Env::empty(), JUDGES).unwrap_err();
    assert_eq!(problems.errors.len(), 1, "{problems}");
    assert!(problems.errors[0].to_string().starts_with("security.auth_tokens_file: the file "), "{problems}");
}

#[test]
fn file_descriptors_bound_the_connections() {
    let config = config(json!({}));
    assert_eq!(fd_budget(&config, None), Ok(FdBudget { needed: 2512, connections: 1000, warning: None }));
    assert_eq!(fd_budget(&config, Some(2512)).unwrap().warning, None);
    let tight = fd_budget(&config, Some(1024)).unwrap();
    assert_eq!(tight.connections, 256);
    let text = tight.warning.unwrap().to_string();
    assert!(text.contains("need 2512 open files") && text.contains("is 1024; only 256"), "{text}");
    assert!(fd_budget(&config, Some(513)).is_err());
    let spares = loaded(json!({ "pool": { "max_idle": 50 } })).config;
    assert_eq!(fd_budget(&spares, None).unwrap().needed, 2562);
}

/// Every place of a secret holds one with "hush" in it.
fn secrets() -> Value {
    json!({
        "upstreams": [{ "url": "rtmp://hush:hush@a.example.com/live/hush?k=hush" }],
        "security": { "auth_enabled": true, "auth_tokens": ["hush1", { "token": "hush2", "name": "studio", "streams": ["live/hush*"] }],
            "users": [{ "user": "ann", "password": "hush-word" }], "auth_secret": "hush-hush-hush-hush" },
        "log": { "fingerprint_key": "hush-hush-hush-hush" },
    })
}

#[test]
fn no_secret_is_printed_by_debug() {
    let loaded = read(&secrets(), &[]).unwrap();
    let text = format!("{loaded:?} {loaded:#?}");
    assert!(text.contains("studio") && !text.contains("hush"), "{text}");
}

/// Paths of every value in `tree`.
fn places(tree: &Value, pointer: &str, all: &mut Vec<String>) {
    let step = |name: &str| format!("{pointer}/{name}");
    match tree {
        Value::Object(map) => map.iter().for_each(|(name, child)| places(child, &step(name), all)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, child)| places(child, &step(&index.to_string()), all)),
        _ => {}
    }
    all.push(pointer.to_owned());
}

#[test]
fn no_secret_is_printed_by_an_error_whatever_is_wrong() {
    let whole = secrets();
    let mut all = Vec::new();
    places(&whole, "", &mut all);
    let wrong = [
        json!(null),
        json!(5),
        json!("rtmp://hush/hush"),
        json!(["hush"]),
        json!([["hush"]]),
        json!({ "hush": "hush" }),
        json!([{ "hush": "hush", "token": 5 }]),
    ];
    let mut seen = 0;
    for pointer in &all {
        for wrong in &wrong {
            let mut tree = whole.clone();
            *tree.pointer_mut(pointer).unwrap() = wrong.clone();
            tree::set(&mut tree, "upstream_strategy", "no".into());
            let judge = |_: &str, _: &[IpNetwork]| Err("is no URL".into());
            let Err(problems) = parse(&tree.to_string(), &Env::empty(), &judge) else { continue };
            seen += 1;
            // A key at the top, outside every place of a secret, is named as it is.
            let text = problems.to_string().replace("hush: unknown key", "");
            assert!(!text.contains("hush"), "{pointer}: {text}");
        }
    }
    assert!(seen > 50);
}

#[test]
fn no_secret_of_the_environment_is_printed_by_an_error() {
    for variable in
        ["UPSTREAM", "UPSTREAMS", "SECURITY_AUTH_TOKENS", "SECURITY_USERS", "SECURITY_AUTH_SECRET", "LOG_FINGERPRINT_KEY"]
    {
        for text in ["hush\u{7}", "[hush", "[\"hush\", 5]", "[{\"hush\": 1}]", "{\"url\": \"hush\"}", "h ush,hush,h\tush"] {
            let judge = |_: &str, _: &[IpNetwork]| Err("is no URL".into());
            let Err(problems) = parse("{}", &[(variable, text)].into_iter().collect(), &judge) else { continue };
            let text = problems.to_string();
            assert!(!text.contains("hush") && !text.contains("ush,"), "{text}");
        }
    }
}

fn any_json() -> impl Generator<Value = Value> {
    let words = prop_oneof![
        "[a-z:0-9./]{0,12}",
        "[0-9]{1,30}(ms|s|m|h|y|years)",
        Just("all".into()),
        Just("json".into()),
        Just("random".into())
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u64..100_000).prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let names = prop_oneof![Just("url"), Just("weight"), Just("token"), Just("streams"), Just("actions"), Just("enabled")];
        let object = proptest::collection::vec((names, inner.clone()), 0..3);
        let object = object.prop_map(|pairs| pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>());
        prop_oneof![proptest::collection::vec(inner, 0..3).prop_map(Value::from), object]
    })
}

proptest! {
    /// What the schema lets through, the types can read: otherwise an error would lack its reason.
    #[test]
    fn schema_and_types_agree(key in 0..keys().len(), value in any_json()) {
        let path = keys()[key].path.split("[]").next().unwrap();
        let mut tree = json!({});
        tree::set(&mut tree, path, value);
        let origin = Origin::new();
        let mut shape = Shape::new(&origin);
        shape.walk(schema(), &tree, "", false);
        shape.prune(&mut tree);
        prop_assert!(deserialize(&tree, &origin).is_ok(), "{tree}");
    }

    /// Whatever stands under whatever key, loading ends with a verdict.
    #[test]
    fn nothing_panics(key in 0..keys().len(), value in any_json()) {
        let path = keys()[key].path.split("[]").next().unwrap();
        let mut tree = with_upstream(json!({}));
        tree::set(&mut tree, path, value);
        let _ = read(&tree, &[]);
    }
}

#[path = "doors_tests.rs"]
mod doors;
