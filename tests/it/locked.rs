//! Upstreams that want to know who the relay is: its login by the user name and password of their URLs, at an origin whose side is written
//! apart from the relay's own, and at another relay.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde_json::json;

use crate::client::Client;
use crate::hold::{Encoder, eager};
use crate::origin::{At, Deed, Origin, Porter, Script};
use crate::parser::kind;
use crate::relay::{Process, Relay};
use crate::speech::body;
use crate::wait::wait_equal;

const USER: &str = "mark-user";
const PASSWORD: &str = "mark-pass@1/2";
/// As it stands in a URL.
const ESCAPED: &str = "mark-pass%401%2F2";
const SALT: &str = "mark-salt";
const OPAQUE: &str = "mark-opaque==";
const REJECT: &str = "[ AccessManager.Reject ] : ";

fn md5(parts: &[&str]) -> String {
    STANDARD.encode(Md5::digest(parts.concat()))
}

fn need_auth() -> Option<String> {
    Some(format!("{REJECT}[ code=403 need auth; authmod=adobe ] : "))
}

/// Flash Media Server's access manager, which knows one user.
fn porter(app: &str) -> Option<String> {
    let Some((_, said)) = app.split_once("?authmod=adobe&") else { return need_auth() };
    let said: HashMap<_, _> = said.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let failed = || Some(format!("{REJECT}[ authmod=adobe ] : ?reason=authfailed&opaque={OPAQUE}"));
    if said.get("user") != Some(&USER) {
        return Some(format!("{REJECT}[ authmod=adobe ] : ?reason=nosuchuser"));
    }
    let (Some(own), Some(response)) = (said.get("challenge"), said.get("response")) else {
        let words = format!("user={USER}&salt={SALT}&challenge={OPAQUE}&opaque={OPAQUE}");
        return Some(format!("{REJECT}[ authmod=adobe ] : ?reason=needauth&{words}"));
    };
    let proof = md5(&[&md5(&[USER, SALT, PASSWORD]), OPAQUE, own]);
    if said.get("opaque") == Some(&OPAQUE) && **response == *proof { None } else { failed() }
}

fn locked(porter: Porter) -> Origin {
    Origin::new(Script { porter: Some(porter), ..Script::default() })
}

/// The origin's URL with these behind `//`.
fn url(origin: &Origin, login: &str, path: &str) -> String {
    origin.url(path).replace("//", &format!("//{login}@"))
}

/// A relay that says all it ever says, and tries again.
fn loud(upstream: &str) -> Process {
    let config = json!({
        "log": { "level": "trace" },
        "retry": { "max_attempts": 3, "initial_delay_sec": 0.01 },
        "circuit_breaker": { "max_failures": 1 },
    });
    Process::with(upstream, config)
}

/// Nothing of a login is in what the relay says.
fn assert_discreet(relay: &Process) {
    let (status, metrics, log) = (relay.status().to_string(), relay.metrics(), relay.log().join("\n"));
    for said in [&status, &metrics, &log] {
        let line = said.lines().find(|line| line.contains("mark-"));
        assert_eq!(line, None);
    }
}

#[test]
fn an_upstream_that_asks_for_a_login_is_given_that_of_its_url() {
    let origin = locked(porter);
    let relay = loud(&url(&origin, &format!("{USER}:{ESCAPED}"), "/live?backup=1/{stream}"));
    let mut client = Client::publishing(&relay, "studio", "cam");
    client.say(6, 0, kind::VIDEO, 1, &body(1, 10));
    let line = origin.line_of("cam");
    line.ear.wait_count(&[kind::VIDEO], 1);
    assert_eq!(origin.heard(), 3, "each step is on a connection of its own");
    let connects: Vec<_> = (0..3).map(|n| origin.line(n).ear.wait_command("connect").command().expect("a command").2).collect();
    let said = |n: usize, key: &str| connects[n][0].get(key).and_then(crate::amf::Amf::text).unwrap_or_default().to_owned();
    assert_eq!(said(0, "app"), "live?backup=1");
    assert_eq!(said(1, "app"), format!("live?backup=1?authmod=adobe&user={USER}"));
    for n in 0..3 {
        assert_eq!(said(n, "tcUrl"), format!("rtmp://{}/{}", origin.address, said(n, "app")));
    }
    let row = relay.row(client.address());
    assert_eq!((&row["state"], &row["upstream"]), (&json!("relaying"), &json!(origin.url("/live"))));
    let mut player = Client::playing(&relay, "studio", "cam");
    player.leave();
    assert_eq!(relay.metric("rtmp_relay_upstream_retries_total"), 0, "a login is no retry");
    assert!(!String::from_utf8_lossy(&client.ear.record().bytes).contains("mark-"));
    assert_discreet(&relay);
}

/// What a publisher, the closing line and /metrics say of an upstream that does not let the relay in.
fn turned_away(origin: &Origin, upstream: &str, connections: usize) -> String {
    let relay = loud(upstream);
    let mut first = String::new();
    // The second finds the circuit as the first did.
    for round in 1..=2 {
        let mut client = Client::asking_to_publish(&relay, "live", "cam");
        let (code, text) = client.refused();
        assert_eq!(
            (&*code, &*text),
            ("NetStream.Publish.Failed", "the upstream does not let the relay in: whoever runs the relay finds in its log why")
        );
        let line = relay.closing_line(client.address());
        assert_eq!((&line["side"], &line["reason"]), (&json!("upstream"), &json!("upstream_login")));
        first = line["detail"].as_str().expect("a detail").to_owned();
        wait_equal("connections", &(round * connections), || origin.heard());
    }
    let told = relay.events("upstream_login_failed");
    assert_eq!(told.len(), 2);
    assert_eq!((&told[0]["error"], &told[0]["level"]), (&json!(first), &json!("WARN")));
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"login\"}"), 2);
    assert_eq!(relay.metric("rtmp_relay_upstream_retries_total"), 0, "trying again would not help");
    assert!(relay.status()["circuit_breaker"].to_string().contains("\"closed\""));
    assert_discreet(&relay);
    first
}

#[test]
fn an_upstream_that_does_not_let_the_relay_in_is_told_from_others_and_not_tried_again() {
    let missing =
        "the upstream asks for a user name and a password, and its URL has none: expected rtmp://user:password@host/...";
    let wrong = "the upstream does not know the user name or the password that its URL has";
    let other = "the upstream asks for another login than Adobe's (authmod=adobe), which is the only one that is spoken here";
    let unusable = "what the upstream asks for the password with cannot be sent back to it";
    let origin = locked(porter);
    assert_eq!(turned_away(&origin, &origin.url("/live"), 1), missing);
    let origin = locked(porter);
    assert_eq!(turned_away(&origin, &url(&origin, &format!("{USER}:mark-wrong"), "/live"), 3), wrong);
    let origin = locked(porter);
    assert_eq!(turned_away(&origin, &url(&origin, "mark-nobody:mark-wrong", "/live"), 2), wrong);
    // It asks the same for ever.
    let origin = locked(|_| need_auth());
    assert_eq!(turned_away(&origin, &url(&origin, &format!("{USER}:{ESCAPED}"), "/live"), 2), wrong);
    let origin = locked(|_| Some(format!("{REJECT}[ code=403 need auth; authmod=llnw ] : ")));
    assert_eq!(turned_away(&origin, &url(&origin, &format!("{USER}:{ESCAPED}"), "/live"), 1), other);
    let origin = locked(|_| Some(format!("[ authmod=adobe ] : ?reason=needauth&salt=s&opaque={}", "o".repeat(300))));
    assert_eq!(turned_away(&origin, &url(&origin, &format!("{USER}:{ESCAPED}"), "/live"), 1), unusable);
}

#[test]
fn what_a_client_says_of_itself_is_not_what_the_relay_says_of_itself() {
    let origin = locked(porter);
    let relay = Relay::to(&url(&origin, &format!("{USER}:{ESCAPED}"), ""));
    // Nobody is asked here; an encoder that logs in by itself is let in, and its name goes no further.
    Client::publishing(&relay, "live?authmod=adobe&user=somebody", "cam");
    let line = origin.line(0);
    assert_eq!(line.ear.wait_command("connect").command().expect("a command").2[0].get("app"), Some(&crate::amf::s("live")));
}

#[test]
fn a_publisher_that_outlives_its_upstream_is_logged_in_anew() {
    let origin = locked(porter);
    let upstream = url(&origin, &format!("{USER}:{ESCAPED}"), "");
    let relay = Relay::with(&upstream, eager(json!({})));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.group();
    encoder.arrives(&origin.line(2), 3);
    origin.line(2).reset();
    wait_equal("connections", &6, || {
        encoder.group();
        origin.heard()
    });
    encoder.group();
    let row = relay.row(encoder.client.address());
    assert_eq!((&row["state"], &row["holds"]), (&json!("relaying"), &json!(1)));
}

#[test]
fn an_upstream_that_hangs_in_the_middle_of_a_login_fails_as_any_other() {
    // It asks for the name, and says nothing to whoever gives it.
    let porter: Porter = |app| if app.contains("authmod") { None } else { need_auth() };
    let origin = Origin::new(Script { porter: Some(porter), ..Script::doing(At::Connect, Deed::Stall) });
    let config = json!({ "dial_timeout": "300ms", "retry": { "max_attempts": 1 } });
    let relay = Relay::with(&url(&origin, &format!("{USER}:{ESCAPED}"), ""), config);
    let (_, text) = Client::asking_to_publish(&relay, "live", "cam").refused();
    assert_eq!(text, "the upstream cannot be reached, try again later");
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"handshake_timeout\"}"), 1);
}

/// A relay in front of `origin` that asks everybody.
fn asking(origin: &Origin) -> Relay {
    let security = json!({
        "auth_enabled": true,
        "users": [{ "user": USER, "password": PASSWORD, "streams": ["live/*"] }],
        "adobe_auth": "all",
    });
    let rate = json!({ "enabled": true, "requests_per_sec": 0.0003, "burst": 4 });
    Relay::with(&origin.url(""), json!({ "security": security, "rate_limit": rate }))
}

#[test]
fn one_relay_logs_in_at_another() {
    let origin = Origin::willing();
    let inner = asking(&origin);
    let relay = loud(&format!("rtmp://{USER}:{ESCAPED}@{}", inner.address));
    let mut client = Client::publishing(&relay, "live", "cam");
    client.say(6, 0, kind::VIDEO, 1, &body(1, 10));
    origin.line_of("cam").ear.wait_count(&[kind::VIDEO], 1);
    Client::playing(&relay, "live", "cam");
    wait_equal("the challenges", &4, || inner.ended("relay", "auth_challenge"));
    assert_eq!(inner.metric("rtmp_relay_auth_failures_total"), 0);
    assert_discreet(&relay);
    // What the user may not is a refusal as any other.
    let inner = asking(&origin);
    let relay = loud(&format!("rtmp://{USER}:{ESCAPED}@{}", inner.address));
    let (code, text) = Client::asking_to_publish(&relay, "other", "cam").refused();
    assert_eq!(&*code, "NetStream.Publish.Denied");
    assert!(text.starts_with("authentication failed: "), "{text}");
    let inner = asking(&origin);
    let relay = loud(&format!("rtmp://{USER}:mark-wrong@{}", inner.address));
    Client::asking_to_publish(&relay, "live", "cam").refused();
    wait_equal("the login is told", &1, || relay.ended("upstream", "upstream_login"));
    wait_equal("the failure is counted", &1, || inner.metric("rtmp_relay_auth_failures_total"));
}

#[test]
fn an_upstream_whose_url_has_a_login_but_does_not_ask_hears_nothing_of_it() {
    let origin = Origin::willing();
    let relay = Relay::with(&url(&origin, &format!("{USER}:{ESCAPED}"), "/live"), json!({}));
    Client::publishing(&relay, "live", "cam");
    assert_eq!(origin.heard(), 1);
    assert!(!String::from_utf8_lossy(&origin.line_of("cam").ear.record().bytes).contains("mark-"));
}
