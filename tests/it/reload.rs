//! A configuration that changes under streams that run: who keeps what, who gets what, and what a bad one does.

use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::Client;
use crate::origin::Origin;
use crate::parser::kind;
use crate::relay::{Process, configured};
use crate::speech::body;
use crate::wait::{wait_equal, wait_for, wait_until};

/// Reloads so often so far, whatever came of them.
fn reloads(relay: &Process) -> u64 {
    let of = |result: &str| relay.metric(&format!("rtmp_relay_config_reloads_total{{result=\"{result}\"}}"));
    ["applied", "unchanged", "invalid", "refused"].map(of).iter().sum()
}

/// Writes `config`, asks for a reload, and waits until it is over; what /status then says of it.
pub(crate) fn reload(relay: &Process, config: &Value) -> Value {
    reload_text(relay, &config.to_string())
}

fn reload_text(relay: &Process, text: &str) -> Value {
    let before = reloads(relay);
    relay.rewrite(text);
    relay.signal(Signal::HUP);
    wait_equal("reloads", &(before + 1), || reloads(relay));
    relay.status()["config"].clone()
}

#[test]
fn streams_that_run_do_not_notice_and_new_ones_go_elsewhere() {
    const STREAMS: usize = 500;
    let (old, new) = (Origin::willing(), Origin::willing());
    let relay = Process::with(&old.url(""), json!({}));
    let mut clients: Vec<Client> = (0..STREAMS).map(|n| Client::publishing(&relay, "live", &format!("cam{n}"))).collect();
    let say = |clients: &mut [Client], round: u32| {
        for (n, client) in clients.iter_mut().enumerate() {
            client.say(6, round, kind::VIDEO, 1, &body(round * 100 + n as u32, 900));
        }
    };
    say(&mut clients, 1);
    let hash = relay.status()["config"]["hash"].clone();
    let more = json!({ "idle_timeout": "1m", "retry": { "enabled": false }, "buffers": { "pool": 2 }, "read_buffer": 4096, "write_buffer": 8192, "hold": { "max": "5ms" } });
    let config = reload(&relay, &configured(&new.url(""), more));
    assert_eq!((&config["last_reload"]["result"], &config["last_error"]), (&json!("applied"), &Value::Null));
    assert_ne!(config["hash"], hash);
    for round in 2..5 {
        say(&mut clients, round);
    }
    for (n, _) in clients.iter().enumerate() {
        let heard = old.line_of(&format!("cam{n}")).ear.wait_count(&[kind::VIDEO], 4);
        let bodies: Vec<_> = (1..5).map(|round| body(round * 100 + n as u32, 900)).collect();
        assert_eq!(heard.into_iter().map(|m| m.body).collect::<Vec<_>>(), bodies, "cam{n}");
    }
    let mut late = Client::publishing(&relay, "live", "late");
    let said = late.say(6, 0, kind::VIDEO, 1, &body(7, 20_000));
    assert_eq!(new.line_of("late").ear.wait_count(&[kind::VIDEO], 1), [said]);
    relay.wait_active(STREAMS as u64 + 1);
    assert_eq!(relay.ended("relay", "panic"), 0);
    let status = relay.status();
    assert_eq!(status["upstreams"].as_array().map(Vec::len), Some(1));
    assert_eq!((&status["connections"]["sessions_total"], &status["buffers"]["size_bytes"]), (&json!(501), &json!(8192)));
    let words: Vec<String> =
        relay.events("config_changed").iter().map(|line| line["message"].as_str().unwrap_or("").to_owned()).collect();
    assert!(words.contains(&"idle_timeout: \"30s\" -> \"1m\"".to_owned()), "{words:?}");
    assert!(words.contains(&"upstream: changed".to_owned()), "{words:?}");
}

#[test]
fn a_bad_file_changes_nothing_and_everybody_says_so() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({}));
    let _running = Client::publishing(&relay, "live", "cam");
    let before = relay.status()["config"].clone();
    for bad in
        ["{ \"upstream\": \"rtmp://", "{ \"idle_timeout\": 30, \"upstream\": \"rtmp://hush:hush@127.0.0.1/live/hush\" }", ""]
    {
        let after = reload_text(&relay, bad);
        assert_eq!((&after["hash"], &after["loaded_at"]), (&before["hash"], &before["loaded_at"]));
        assert_eq!((&after["last_reload"]["result"], &after["last_reload"]["by"]), (&json!("invalid"), &json!("signal")));
        assert!(after["last_error"].as_str().is_some_and(|error| error.contains("problem")), "{after}");
        assert_eq!(relay.metric("rtmp_relay_config_last_reload_successful"), 0);
    }
    assert_eq!(relay.events("config_rejected").len(), 3);
    assert!(!relay.log().join("\n").contains("hush") && !relay.status().to_string().contains("hush"));
    drop(Client::publishing(&relay, "live", "other"));
    let good = reload(&relay, &configured(&origin.url(""), json!({})));
    assert_eq!((&good["last_reload"]["result"], &good["last_error"]), (&json!("unchanged"), &Value::Null));
    assert_eq!(relay.metric("rtmp_relay_config_last_reload_successful"), 1);
}

#[test]
fn what_cannot_change_is_said_and_the_rest_applies_or_nothing_does() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({}));
    let elsewhere = json!({ "listen_addr": "127.0.0.1:1", "workers": 3, "connection_limit": { "max_total_connections": 7 } });
    let after = reload(&relay, &configured(&origin.url(""), elsewhere.clone()));
    assert_eq!(after["last_reload"]["result"], "applied");
    assert_eq!(relay.status()["connections"]["limits"]["max_total"], 7);
    let left: Vec<_> = relay.events("config_changed").into_iter().filter(|line| line["effect"] == "needs_restart").collect();
    assert_eq!(left.iter().map(|line| line["path"].as_str().unwrap_or("")).collect::<Vec<_>>(), ["listen_addr", "workers"]);
    TcpStream::connect(relay.address).expect("it listens where it did");
    let mut whole = elsewhere;
    whole["connection_limit"]["max_total_connections"] = 9.into();
    whole["reload"] = json!({ "partial": false });
    let after = reload(&relay, &configured(&origin.url(""), whole));
    assert_eq!(after["last_reload"]["result"], "refused");
    assert!(after["last_error"].as_str().is_some_and(|error| error.contains("listen_addr, workers")), "{after}");
    assert_eq!(relay.status()["connections"]["limits"]["max_total"], 7);
}

#[test]
fn limits_and_networks_hold_for_whoever_comes_next() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({}));
    let running = Client::publishing(&relay, "live", "cam");
    let limit = json!({ "connection_limit": { "max_per_ip": 1 } });
    reload(&relay, &configured(&origin.url(""), limit));
    let mut second = Client::asking_to_publish(&relay, "live", "cam2");
    assert!(second.refused().1.contains("already has 1 connection"));
    let rate = json!({ "rate_limit": { "enabled": true, "requests_per_sec": 0.0001, "burst": 1 } });
    reload(&relay, &configured(&origin.url(""), rate.clone()));
    drop(Client::publishing(&relay, "live", "cam2"));
    // The same again: what was used up stays used up.
    let mut same = rate;
    same["idle_timeout"] = "2m".into();
    reload(&relay, &configured(&origin.url(""), same));
    let mut third = Client::asking_to_publish(&relay, "live", "cam3");
    assert!(third.refused().1.contains("rate limit reached"));
    let nobody = json!({ "security": { "allowed_clients": ["192.0.2.0/24"] }, "http_allowed_networks": ["127.0.0.1"] });
    reload(&relay, &configured(&origin.url(""), nobody));
    let mut fourth = Client::asking_to_publish(&relay, "live", "cam4");
    assert!(fourth.refused().1.contains("not among the allowed ones"));
    assert!(running.ear.record().end.is_none(), "who is in stays in");
}

fn with_tokens(origin: &Origin, tokens: &[&str], revoke: bool) -> Value {
    configured(&origin.url(""), json!({ "security": { "auth_enabled": true, "auth_tokens": tokens, "revoke_live": revoke } }))
}

#[test]
fn a_removed_token_lets_nobody_in_and_ends_its_sessions_only_if_that_is_asked_for() {
    let origin = Origin::willing();
    let relay = Process::of(&with_tokens(&origin, &["one", "two", "three"], false));
    let one = Client::publishing(&relay, "live", "a?token=one");
    let mut two = Client::publishing(&relay, "live", "b?token=two");
    let three = Client::publishing(&relay, "live", "c?token=three");
    reload(&relay, &with_tokens(&origin, &["two", "three"], false));
    let mut again = Client::asking_to_publish(&relay, "live", "d?token=one");
    assert!(again.refused().1.contains("token is not known"));
    assert!(one.ear.record().end.is_none(), "who is in stays in");
    reload(&relay, &with_tokens(&origin, &["three"], true));
    two.ended();
    two.leave();
    assert_eq!(relay.outcome(two.address()), "relay token_revoked success");
    assert!(one.ear.record().end.is_none(), "its token was removed before");
    assert!(three.ear.record().end.is_none());
    assert_eq!(relay.events("config_reloaded").last().expect("a line")["revoked"], 1);
    origin.line_of("b").ear.wait_command("deleteStream");
    drop(Client::publishing(&relay, "live", "e?token=three"));
}

#[test]
fn the_circuit_and_the_knowledge_of_an_upstream_that_stays_go_on() {
    let dead =
        format!("rtmp://{}", TcpStream::connect(Origin::willing().address).and_then(|s| s.local_addr()).expect("an address"));
    let more = json!({ "circuit_breaker": { "max_failures": 1 }, "retry": { "enabled": false }, "dial_timeout": "200ms" });
    let relay = Process::with(&dead, more.clone());
    Client::asking_to_publish(&relay, "live", "cam").refused();
    let state = |relay: &Process| relay.status()["circuit_breaker"]["targets"][0]["state"].clone();
    wait_equal("the circuit", &json!("open"), || state(&relay));
    let mut same = more;
    same["idle_timeout"] = "1m".into();
    reload(&relay, &configured(&dead, same));
    assert_eq!(state(&relay), "open");
    let metrics = relay.metrics();
    assert!(metrics.lines().any(|line| line.starts_with("rtmp_relay_circuit_state{") && line.ends_with(" 2")), "{metrics}");
    let origin = Origin::willing();
    reload(&relay, &configured(&origin.url(""), json!({})));
    assert_eq!(state(&relay), "closed", "another upstream has a circuit of its own");
    drop(Client::publishing(&relay, "live", "cam"));
    assert_eq!(relay.get("/ready").expect("/ready answers").0, 200);
    let metrics = relay.metrics();
    assert!(!metrics.lines().any(|line| line.starts_with("rtmp_relay_circuit_state{") && line.ends_with(" 2")));
}

#[test]
fn a_file_that_is_watched_is_read_when_it_has_changed() {
    let origin = Origin::willing();
    let watch = json!({ "reload": { "watch": "30ms" } });
    let relay = Process::with(&origin.url(""), watch.clone());
    let mut changed = configured(&origin.url(""), watch);
    changed["connection_limit"] = json!({ "max_total_connections": 5 });
    relay.rewrite(&changed.to_string());
    wait_equal("the limit", &json!(5), || relay.status()["connections"]["limits"]["max_total"].clone());
    wait_equal("who asked", &json!("watch"), || relay.status()["config"]["last_reload"]["by"].clone());
    wait_equal("the count", &1, || reloads(&relay));
    relay.rewrite("{");
    wait_until("the bad file is told", || relay.status()["config"]["last_error"].is_string());
    relay.rewrite(&changed.to_string());
    wait_until("the good one is back", || relay.status()["config"]["last_error"].is_null());
}

#[test]
fn level_and_shape_of_the_log_change() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({ "log": { "level": "info" } }));
    assert!(relay.events("http_request").is_empty());
    reload(&relay, &configured(&origin.url(""), json!({ "log": { "level": "debug" } })));
    relay.status();
    wait_until("requests are told", || !relay.events("http_request").is_empty());
    reload(&relay, &configured(&origin.url(""), json!({ "log": { "format": "text" } })));
    relay.status();
    wait_for("a line of text", || relay.log().into_iter().find(|line| !line.starts_with('{')));
}
