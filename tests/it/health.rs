//! Origins that come and go: who is tried in turn, and whether the log, /metrics, /status and /ready say the same of it.

use serde_json::{Value, json};

use crate::client::Client;
use crate::origin::{At, Deed, Origin, Script};
use crate::relay::{Face, Process, Relay};
use crate::wait::{wait_equal, wait_until};

fn two(a: &Origin, b: &Origin, more: Value) -> Value {
    let mut config = json!({
        "upstreams": [{ "url": a.url("") }, { "url": b.url("") }],
        "upstream_strategy": "failover",
        "dial_timeout": "1s",
        "circuit_breaker": { "enabled": false },
    });
    config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    config
}

fn checks(kind: &str) -> Value {
    json!({ "upstream_health_check": { "enabled": true, "interval_sec": 0.1, "timeout_sec": 0.5, "rise": 2, "fall": 2, "kind": kind } })
}

/// What /status and /metrics say of the upstream `number`: state, kind of the last error, gauge.
fn said(relay: &Face, origin: &Origin, number: usize) -> (String, String, u64) {
    let health = relay.status()["upstreams"][number]["health"].clone();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let gauge = relay.metric(&format!("rtmp_relay_upstream_healthy{{upstream=\"{}\"}}", origin.url("")));
    (word(&health["state"]), word(&health["last_error"]["kind"]), gauge)
}

fn unhealthy(kind: &str) -> (String, String, u64) {
    ("unhealthy".into(), kind.into(), 0)
}

#[test]
fn a_failed_dial_is_heeded_by_the_next_client_and_said_everywhere_once() {
    let (a, b) = (Origin::new(Script::doing(At::Handshake, Deed::Close)), Origin::willing());
    let relay = Process::several(two(&a, &b, json!({})));
    Client::publishing(&relay, "live", "one");
    assert_eq!(said(&relay, &a, 0), unhealthy("handshake"));
    assert_eq!(said(&relay, &b, 1), ("healthy".into(), "-".into(), 1));
    let dialled = a.heard();
    for n in 0..5 {
        Client::publishing(&relay, "live", &format!("cam{n}"));
    }
    assert_eq!(a.heard(), dialled, "nobody goes there in turn");
    let lines: Vec<_> = relay.events("upstream_health");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(
        (&lines[0]["upstream"], &lines[0]["healthy"], &lines[0]["kind"]),
        (&json!(a.url("")), &json!(false), &json!("handshake"))
    );
    let (code, body) = relay.get("/ready").expect("an answer");
    assert_eq!(code, 200, "one that works is enough: {body}");
}

#[test]
fn an_origin_that_refuses_by_command_is_well() {
    let no = Deed::Refuse("NetStream.Publish.BadName", "taken");
    for (at, deed) in [(At::Request, no), (At::Connect, Deed::Close)] {
        let (a, b) = (Origin::new(Script::doing(at, deed)), Origin::willing());
        let relay = Relay::several(two(&a, &b, json!({})));
        Client::asking_to_publish(&relay, "live", "cam").refused();
        assert_eq!(said(&relay, &a, 0), ("healthy".into(), "-".into(), 1), "{at:?} {deed:?}");
    }
}

#[test]
fn checks_find_an_origin_that_hangs_and_one_that_is_back_without_any_client() {
    let (listener, address) = silent();
    let b = Origin::willing();
    let mut config = checks("handshake");
    config["ready"] = json!({ "fail_after": "0s" });
    config["upstreams"] = json!([{ "url": format!("rtmp://{address}") }, { "url": b.url("") }]);
    config["upstream_strategy"] = "failover".into();
    let relay = Process::several(config);
    let state = |number: usize| relay.status()["upstreams"][number]["health"]["state"].clone();
    wait_equal("the origin that hangs", &json!("unhealthy"), || state(0));
    wait_equal("the other", &json!("healthy"), || state(1));
    let health = relay.status()["upstreams"][0]["health"].clone();
    assert_eq!(health["last_error"]["kind"], "handshake_timeout", "{health}");
    Client::publishing(&relay, "live", "cam");
    assert!(b.knows("cam"));
    let a = Origin::over(listener, |_| Script::default());
    wait_equal("the origin that is back", &json!("healthy"), || state(0));
    wait_until("checks are counted", || relay.status()["upstreams"][0]["health"]["checks"]["passed"].as_u64() >= Some(2));
    Client::publishing(&relay, "live", "mic");
    wait_until("it is tried in its turn again", || a.knows("mic"));
    let of_a = |line: &Value| line["upstream"] == json!(a.url(""));
    let words: Vec<_> = relay.events("upstream_health").into_iter().filter(of_a).map(|line| line["healthy"].clone()).collect();
    assert_eq!(words, [json!(false), json!(true)], "one line a change");
}

/// A listener whose connections the kernel accepts, and nobody answers.
fn silent() -> (std::net::TcpListener, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    (listener, address)
}

#[test]
fn a_tcp_check_is_content_with_a_connection_and_ready_says_what_checks_found() {
    let (listener, address) = silent();
    let mut config = checks("tcp");
    config["ready"] = json!({ "fail_after": "0s" });
    config["upstreams"] = json!([{ "url": format!("rtmp://{address}/live/S3CRET") }]);
    let relay = Process::several(config);
    let state = || relay.status()["upstreams"][0]["health"]["state"].clone();
    wait_equal("the origin", &json!("healthy"), state);
    assert_eq!(relay.get("/ready").expect("an answer").0, 200);
    drop(listener);
    wait_equal("the origin that has gone", &json!("unhealthy"), state);
    let (code, body) = relay.get("/ready").expect("an answer");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("connect_refused"), "the same kind as in /status: {body}");
    let everything = [relay.status().to_string(), relay.metrics(), relay.log().join("\n")].concat();
    assert!(!everything.contains("S3CRET"));
}
