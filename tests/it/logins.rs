//! User name and password: Adobe authentication as encoders do it, over three connections, with the client's side written apart from the
//! relay's own.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::amf::{Amf, obj, s};
use crate::client::Client;
use crate::origin::Origin;
use crate::parser::kind;
use crate::relay::{Face, Process, Relay};
use crate::speech::body;
use crate::wait::wait_equal;

const TOKEN: &str = "s3cret-token";
const SECRET: &str = "of all relays behind the balancer";

/// Authentication on, with this in `security`.
fn asking(more: Value) -> Value {
    let mut security = json!({
        "auth_enabled": true,
        "auth_tokens": [{ "token": TOKEN, "name": "studio" }],
        "users": [{ "user": "ann", "password": "ann-pass", "actions": ["publish"], "streams": ["live/ann-*"] }],
        "adobe_auth": "all",
        "auth_secret": SECRET,
        "upstream_allowed_networks": ["127.0.0.0/8"],
    });
    if let (Value::Object(security), Value::Object(more)) = (&mut security, more) {
        security.extend(more);
    }
    json!({ "security": security })
}

/// A connection that says connect with these arguments behind app and tcUrl.
fn connecting(relay: &Face, app: &str, behind: &str) -> Client {
    let mut client = Client::hello(relay);
    let object = obj(&[
        ("app", s(&format!("{app}{behind}"))),
        ("type", s("nonprivate")),
        ("swfUrl", s(&format!("rtmp://relay.test/{app}"))),
        ("tcUrl", s(&format!("rtmp://relay.test/{app}{behind}"))),
    ]);
    client.command(3, 0, "connect", &[object]);
    client
}

/// What the relay says to such a connect; librtmp waits for `close` behind it.
fn told(mut client: Client) -> String {
    let (code, description) = client.told();
    assert_eq!(code, "NetConnection.Connect.Rejected");
    client.ear.wait_command("close");
    client.leave();
    client.ended();
    description
}

/// The arguments of a description.
fn arguments(description: &str) -> HashMap<String, String> {
    let (_, query) = description.split_once("?reason=").unwrap_or_else(|| panic!("no reason in {description:?}"));
    let pairs = query.split('&').skip(1).map(|pair| pair.split_once('=').expect("a pair"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn md5(parts: &[&str]) -> String {
    STANDARD.encode(Md5::digest(parts.concat()))
}

/// The first two steps; what to put behind the app in the third.
fn proof(relay: &Face, app: &str, user: &str, password: &str) -> String {
    let first = told(connecting(relay, app, ""));
    assert!(first.contains("[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : "), "{first}");
    assert!(first.len() <= 255 && first.contains("user name and a password") && first.contains("?token=..."), "{first}");
    answer(&told(connecting(relay, app, &format!("?authmod=adobe&user={user}"))), user, password)
}

/// As librtmp, ffmpeg and GStreamer answer.
fn answer(description: &str, user: &str, password: &str) -> String {
    let front = format!("[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user={user}&salt=");
    assert!(description.starts_with(&front) && description.len() <= 255, "{description}");
    let given = arguments(description);
    let (salt, opaque, own) = (&given["salt"], &given["opaque"], "AbC+/w==");
    let response = md5(&[&md5(&[user, salt, password]), opaque, own]);
    format!("?authmod=adobe&user={user}&challenge={own}&response={response}&opaque={opaque}")
}

/// Logs in and publishes.
fn publishing(relay: &Face, user: &str, password: &str, stream: &str) -> Client {
    let mut client = connecting(relay, "live", &proof(relay, "live", user, password));
    client.create_stream().publish(stream);
    client
}

/// Logs in, and is not let in.
fn failing(relay: &Face, user: &str, password: &str) -> String {
    told(connecting(relay, "live", &proof(relay, "live", user, password)))
}

#[test]
fn a_login_is_three_connections_that_count_as_one_and_leave_nothing_to_the_upstream() {
    let origin = Origin::willing();
    let mut config = asking(json!({}));
    // One connection an hour of one address, one at a time: a login is that.
    config["rate_limit"] = json!({ "enabled": true, "requests_per_sec": 0.0003, "burst": 1 });
    config["connection_limit"] = json!({ "max_per_ip": 1 });
    let relay = Process::with(&origin.url(""), config);
    let mut client = publishing(&relay, "whoever", TOKEN, "cam");
    client.started();
    client.say(6, 0, kind::VIDEO, 1, &body(1, 10));
    let line = origin.line_of("cam");
    line.ear.wait_count(&[kind::VIDEO], 1);
    let connect = line.ear.wait_command("connect").command().expect("a command").2;
    let url = s(&origin.url("/live"));
    assert_eq!(
        [connect[0].get("app"), connect[0].get("tcUrl"), connect[0].get("swfUrl")],
        [Some(&s("live")), Some(&url), Some(&url)]
    );
    let row = relay.row(client.address());
    assert_eq!((&row["state"], &row["token"]), (&json!("relaying"), &json!("studio")));
    client.leave();
    line.finish();
    wait_equal("connections", &(1, 0, 2), || relay.connections());
    assert_eq!((relay.ended("relay", "auth_challenge"), relay.metric("rtmp_relay_auth_failures_total")), (2, 0));
    let loud: Vec<_> = relay
        .log()
        .into_iter()
        .filter(|line| line.contains("\"WARN\"") || line.contains("auth_challenge") && !line.contains("\"DEBUG\""))
        .collect();
    assert_eq!(loud, Vec::<String>::new());
    // The next one is refused: the passes are used up, and gave none.
    let (_, text) = Client::asking_to_publish(&relay, "live", "cam").refused();
    assert!(text.starts_with("rate limit reached"), "{text}");
}

#[test]
fn users_and_tokens_log_in_and_others_do_not() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), asking(json!({})));
    publishing(&relay, "ann", "ann-pass", "ann-cam").started();
    publishing(&relay, "ann", TOKEN, "cam").started();
    for (user, password) in [("ann", "ann-pas"), ("bob", "ann-pass"), ("ann", "")] {
        let text = failing(&relay, user, password);
        let want = "authentication failed: the user name or the password is not known : [ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=authfailed";
        assert_eq!(text, want);
    }
    wait_equal("failures", &3, || relay.metric("rtmp_relay_auth_failures_total"));
    assert_eq!((relay.ended("relay", "auth"), relay.status()["connections"]["rejected"]["auth"].clone()), (3, json!(3)));
    let failed = relay.events("auth_failed");
    assert!(failed.len() == 3 && failed.iter().all(|line| line["action"] == "connect"), "{failed:#?}");
    assert!(!relay.log().join("\n").contains("ann-pas") && !relay.status().to_string().contains("ann-pas"));
}

#[test]
fn what_a_user_may_is_judged_when_it_says_what_it_wants_and_again_when_it_wants_more() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), asking(json!({})));
    let (code, text) = publishing(&relay, "ann", "ann-pass", "cam").refused();
    assert_eq!(
        (&*code, &*text),
        ("NetStream.Publish.Denied", "authentication failed: this token or user does not open this stream")
    );
    let mut player = connecting(&relay, "live", &proof(&relay, "live", "ann", "ann-pass"));
    player.create_stream().play("ann-cam");
    assert_eq!(player.refused().1, "authentication failed: this token or user may not play");
    let mut client = publishing(&relay, "ann", "ann-pass", "ann-1");
    client.started();
    client.command(8, 1, "publish", &[Amf::Null, s("ann-2"), s("live")]);
    origin.line_of("ann-1").ear.wait("the second publish is passed on", |record| {
        record
            .messages
            .iter()
            .filter_map(|m| m.command())
            .any(|(name, _, args)| name == "publish" && args[1] == s("ann-2"))
            .then_some(())
    });
    client.command(8, 1, "publish", &[Amf::Null, s("bob"), s("live")]);
    relay.wait_ended("relay", "second_publish_refused");
}

#[test]
fn an_answer_is_taken_once_and_only_by_whom_it_was_asked() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), asking(json!({})));
    let answer = proof(&relay, "live", "ann", "ann-pass");
    let mut client = connecting(&relay, "live", &answer);
    client.create_stream().publish("ann-cam");
    client.started();
    let text = told(connecting(&relay, "live", &answer));
    assert!(text.starts_with("authentication failed: this login was used already"), "{text}");
    // Signed by nobody, or for somebody else.
    for (from, to) in [("user=ann", "user=anne"), ("opaque=", "opaque=A"), ("opaque=", "x=")] {
        let text = told(connecting(&relay, "live", &proof(&relay, "live", "ann", "ann-pass").replace(from, to)));
        assert!(
            text.starts_with("authentication failed: the login did not begin here") && text.ends_with("?reason=authfailed"),
            "{text}"
        );
    }
}

#[test]
fn one_relay_takes_the_answer_to_what_another_asked_if_they_share_the_secret() {
    let origin = Origin::willing();
    let (one, other) = (Relay::with(&origin.url(""), asking(json!({}))), Relay::with(&origin.url(""), asking(json!({}))));
    let mut client = connecting(&other, "live", &proof(&one, "live", "ann", "ann-pass"));
    client.create_stream().publish("ann-cam");
    client.started();
    // Without a secret of their own each has a random one.
    let alone = || Relay::with(&origin.url(""), asking(json!({ "auth_secret": "" })));
    let (one, other) = (alone(), alone());
    let text = told(connecting(&other, "live", &proof(&one, "live", "ann", "ann-pass")));
    assert!(text.starts_with("authentication failed: the login did not begin here"), "{text}");
    publishing(&one, "ann", "ann-pass", "ann-cam").started();
}

#[test]
fn a_token_that_is_shown_at_connect_needs_no_login_and_one_in_the_stream_key_goes_where_nobody_is_asked() {
    let origin = Origin::willing();
    let everywhere = Relay::with(&origin.url(""), asking(json!({})));
    Client::publishing(&everywhere, &format!("live?token={TOKEN}"), "cam");
    let (_, text) = Client::asking_to_publish(&everywhere, "live", &format!("cam?token={TOKEN}")).refused();
    assert!(text.contains("code=403 need auth") && text.contains("belongs into the server's URL"), "{text}");
    for nowhere in [json!("none"), json!(["studio"])] {
        let relay = Relay::with(&origin.url(""), asking(json!({ "adobe_auth": nowhere })));
        Client::publishing(&relay, "live", &format!("cam?token={TOKEN}"));
        let (code, text) = Client::asking_to_publish(&relay, "live", "cam").refused();
        assert_eq!(
            (&*code, &*text),
            ("NetStream.Publish.Denied", "authentication failed: a token is missing, add ?token=... to the stream key")
        );
        // Who begins by itself is answered: an encoder whose URL says so, or that remembers.
        let question = told(connecting(&relay, "live", "?authmod=adobe&user=ann"));
        let mut client = connecting(&relay, "live", &answer(&question, "ann", "ann-pass"));
        client.create_stream().publish("ann-cam");
        client.started();
    }
    let studio = Relay::with(&origin.url(""), asking(json!({ "adobe_auth": ["studio"] })));
    assert!(told(connecting(&studio, "studio", "?room=7")).contains("code=403 need auth"));
}

#[test]
fn another_authentication_and_names_that_cannot_be_used_are_refused_by_name() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), asking(json!({ "adobe_auth": "none" })));
    let long = format!("?authmod=adobe&user={}", "u".repeat(97));
    for behind in ["?authmod=llnw&user=ann", "?authmod=adobe&user=", &long] {
        let text = told(connecting(&relay, "live", behind));
        assert!(text.starts_with("authentication failed: only Adobe authentication is known here"), "{text}");
    }
    // Without authentication nothing is anybody's business.
    let open = Relay::to(&origin.url(""));
    let mut client = connecting(&open, "live", "?authmod=adobe&user=ann");
    client.create_stream().publish("open");
    client.started();
}

#[test]
fn whoever_only_begins_to_log_in_gets_three_times_its_rate_and_no_more() {
    let origin = Origin::willing();
    let mut config = asking(json!({}));
    config["rate_limit"] = json!({ "enabled": true, "requests_per_sec": 0.0003, "burst": 2 });
    let relay = Relay::with(&origin.url(""), config);
    for _ in 0..6 {
        assert!(told(connecting(&relay, "live", "")).contains("code=403 need auth"));
    }
    let (_, text) = connecting(&relay, "live", "").refused();
    assert!(text.starts_with("rate limit reached"), "{text}");
}
