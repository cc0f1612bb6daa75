//! What a change is, when it takes effect, and that no secret is in its words.

use serde_json::json;

use super::*;
use crate::config::{Env, Judges, UpstreamJudge, load, parse};

fn judge(_: &str, _: &[ipnetwork::IpNetwork]) -> Result<(), String> {
    Ok(())
}

const JUDGES: Judges<'static> = Judges { upstream: &judge, files: &|_| Vec::new() };

fn with_env(json: Value, variables: &[(&str, &str)]) -> Loaded {
    let mut json = json;
    if json.get("upstreams").is_none() && json.get("upstream").is_none() {
        json["upstream"] = "rtmp://origin.example.com/live/hush".into();
    }
    let judge: &UpstreamJudge<'_> = &judge;
    parse(&json.to_string(), &variables.iter().copied().collect::<Env>(), judge).unwrap_or_else(|e| panic!("{e}"))
}

fn loaded(json: Value) -> Loaded {
    with_env(json, &[])
}

fn said(old: Value, new: Value) -> Vec<String> {
    diff(&loaded(old), &loaded(new)).iter().map(Change::to_string).collect()
}

#[test]
fn the_same_in_another_spelling_changes_nothing() {
    let old = json!({ "idle_timeout": "60s", "retry": { "multiplier": 2 }, "connection_limit": { "max_per_ip": 0 } });
    assert_eq!(said(old, json!({ "idle_timeout": "1m", "retry": { "multiplier": 2.0 } })), Vec::<String>::new());
}

#[test]
fn each_change_says_from_what_to_what_and_when() {
    let old = json!({ "idle_timeout": "30s", "listen_addr": ":1935", "rate_limit": { "burst": 20 } });
    let new = json!({
        "idle_timeout": "1m", "listen_addr": ":1936", "rate_limit": { "enabled": true, "burst": 5 },
        "security": { "allowed_clients": ["10.0.0.0/8"] }, "upstreams": [{ "url": "rtmp://a.example.com" }],
    });
    assert_eq!(
        said(old, new),
        [
            "listen_addr: \":1935\" -> \":1936\" (needs a restart)",
            "upstream: (hidden) -> not given (for new sessions)",
            "upstreams: not given -> (hidden) (for new sessions)",
            "idle_timeout: \"30s\" -> \"1m\" (for new sessions)",
            "security.allowed_clients: [] -> [\"10.0.0.0/8\"] (for new sessions)",
            "rate_limit.enabled: false -> true (at once)",
            "rate_limit.burst: 20 -> 5 (at once)",
        ]
    );
}

#[test]
fn tokens_are_told_by_their_names() {
    let tokens = |tokens: Value| json!({ "security": { "auth_enabled": true, "auth_tokens": tokens } });
    let named = |token: &str, name: &str, actions: &[&str]| json!({ "token": token, "name": name, "actions": actions });
    let old = tokens(json!([named("hush1", "studio", &["publish"]), named("hush2", "viewers", &["play"])]));
    let new = tokens(json!([named("hush2", "viewers", &["play", "publish"]), named("hush3", "guest", &["play"])]));
    let said = said(old, new);
    assert_eq!(
        said,
        ["security.auth_tokens: removed \"studio\"; added \"guest\"; changed \"viewers\" (for new sessions)".to_owned()]
    );
}

#[test]
fn tokens_that_changed_in_their_own_file_are_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let (file, config) = (dir.path().join("tokens"), dir.path().join("config.json"));
    let text = json!({ "upstream": "rtmp://o", "security": { "auth_enabled": true, "auth_tokens_file": "tokens" } }).to_string();
    std::fs::write(&config, text).unwrap();
    let load = |tokens: &str| {
        std::fs::write(&file, tokens).unwrap();
        load(Some(&config), &Env::empty(), JUDGES).unwrap()
    };
    let (old, same, new) = (load("hush1\n"), load("hush1"), load("hush1\nhush2\n"));
    assert_eq!(diff(&old, &same), []);
    let changes = diff(&old, &new);
    assert_eq!(changes[0].to_string(), "security.auth_tokens_file: added \"token-2\" (for new sessions)");
    assert_eq!(changes.len(), 1);
}

#[test]
fn a_variable_that_hides_a_change_of_the_file_is_named() {
    let variables = [("IDLE_TIMEOUT", "5m")];
    let old = with_env(json!({ "idle_timeout": "30s" }), &variables);
    let new = with_env(json!({ "idle_timeout": "1m", "dial_timeout": "3s" }), &variables);
    assert_eq!(diff(&old, &new).iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["dial_timeout"]);
    let hidden: Vec<_> = overridden(&old, &new).iter().map(Finding::to_string).collect();
    assert_eq!(hidden, ["idle_timeout: has changed in the file, but the variable IDLE_TIMEOUT wins"]);
}

#[test]
fn no_secret_is_in_a_change_or_a_view() {
    let secret = |n: u32| {
        loaded(json!({
            "upstream": format!("rtmp://hush:hush@o/live/hush{n}"),
            "security": { "auth_enabled": true, "auth_tokens": [format!("hush{n}")], "admin_token": format!("hush-hush-hush-hush-{n}") },
            "log": { "fingerprint_key": format!("hush-hush-hush-hush-{n}") },
        }))
    };
    let (old, new) = (secret(1), secret(2));
    let changes = diff(&old, &new);
    assert_eq!(changes.len(), 4, "{changes:?}");
    let views = [View::new(&old, "nonce"), View::new(&new, "nonce")];
    let text = format!("{changes:?} {} {:?} {old:?}", serde_json::to_string(&views).unwrap(), views);
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn a_view_survives_the_wire_and_compares_only_under_its_nonce() {
    let (old, new) = (loaded(json!({})), loaded(json!({ "upstream": "rtmp://other/live", "log": { "level": "debug" } })));
    let view = View::new(&new, "one");
    let wire: View = serde_json::from_str(&serde_json::to_string(&view).unwrap()).unwrap();
    assert_eq!(wire, view);
    let changes = View::new(&old, &wire.nonce).changes(&wire);
    assert_eq!(
        changes.iter().map(Change::to_string).collect::<Vec<_>>(),
        ["upstream: changed (for new sessions)", "log.level: \"info\" -> \"debug\" (at once)"]
    );
    assert_ne!(View::new(&new, "two"), view);
}

#[test]
fn what_cannot_change_is_kept_and_the_rest_is_judged_again() {
    let running = loaded(json!({ "listen_addr": ":1935", "workers": 3, "idle_timeout": "30s" }));
    let new = loaded(json!({ "listen_addr": ":1936", "idle_timeout": "1m" }));
    let kept = new.keeping(&running, &["listen_addr", "workers"], JUDGES).unwrap();
    assert_eq!((kept.config.listen, kept.config.workers), (running.config.listen, 3));
    assert_eq!(kept.config.timeouts.idle, new.config.timeouts.idle);
    assert_eq!(diff(&running, &kept).len(), 1);
    let clash = loaded(json!({ "http_addr": ":9", "listen_addr": ":10" }));
    let running = loaded(json!({ "listen_addr": ":9" }));
    let problems = clash.keeping(&running, &["listen_addr"], JUDGES).unwrap_err();
    assert!(problems.to_string().contains("http_addr: takes the same port"), "{problems}");
}
