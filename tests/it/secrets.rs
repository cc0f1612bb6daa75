//! Tokens, stream keys and query arguments are in nothing that the relay says: not in its log at its loudest, not in /status or
//! /metrics, not in what clients are told. Each is marked, and looked for after everything that can happen has happened.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::amf::{Amf, n, s};
use crate::client::Client;
use crate::origin::{At, Deed, Origin, Script};
use crate::parser::kind;
use crate::relay::Process;
use crate::speech::{Say, body};
use crate::wait::wait_until;

const TOKEN: &str = "mark-token-1";
const WRONG: &str = "mark-wrong-2";
const KEY: &str = "mark-key-3";
const FIXED_QUERY: &str = "mark-fixed-4";
const CLIENT_QUERY: &str = "mark-query-5";
const STREAM: &str = "stream-mark-6";
const APP_QUERY: &str = "mark-app-7";

/// What nobody may read anywhere. The stream's name is not among them where clients are told their own.
const SECRETS: [&str; 6] = [TOKEN, WRONG, KEY, FIXED_QUERY, CLIENT_QUERY, APP_QUERY];

fn app() -> String {
    format!("live?a={APP_QUERY}")
}

fn stream() -> String {
    format!("{STREAM}?user={CLIENT_QUERY}&token={TOKEN}")
}

/// A relay that says all it ever says.
fn loud(upstream: &str, more: Value) -> Process {
    let mut config = json!({
        "security": { "auth_enabled": true, "auth_tokens": [{ "token": TOKEN, "streams": [format!("live/{STREAM}")] }] },
        "log": { "level": "trace" },
        "retry": { "max_attempts": 2, "initial_delay_sec": 0.01 },
        "handshake_timeout": "300ms",
        "circuit_breaker": { "max_failures": 3 },
    });
    if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
        config.extend(more);
    }
    Process::with(upstream, config)
}

fn assert_silent_about(secrets: &[&str], said: &str, where_: &str) {
    for secret in secrets {
        let line = said.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} stands in {where_}");
    }
}

/// Nothing of the secrets is in the log, /status and /metrics.
fn assert_discreet(relay: &Process) {
    assert_silent_about(&SECRETS, &relay.status().to_string(), "/status");
    assert_silent_about(&SECRETS, &relay.metrics(), "/metrics");
    for path in ["/", "/ready", &format!("/status?stream=live/{STREAM}&token={WRONG}"), &format!("/{KEY}")] {
        let (_, body) = relay.get(path).expect("HTTP answers");
        assert_silent_about(&SECRETS, &body, path);
    }
    let log = relay.log();
    assert!(log.len() > 3, "there is a log");
    let all = [&SECRETS[..], &[STREAM]].concat();
    assert_silent_about(&all, &log.join("\n"), "the log");
}

/// Nor in what `client` heard, apart from its own stream's name.
fn assert_told_nothing(client: &Client) {
    let heard = String::from_utf8_lossy(&client.ear.record().bytes).into_owned();
    assert_silent_about(&SECRETS, &heard, "what the client was told");
}

fn path() -> String {
    format!("/live/{KEY}?x={FIXED_QUERY}")
}

#[test]
fn streams_that_pass_leave_no_secret_behind() {
    let origin = Origin::willing();
    let relay = loud(&origin.url(&path()), json!({}));
    let mut publisher = Client::publishing(&relay, &app(), &stream());
    let mut player = Client::playing(&relay, &app(), &stream());
    publisher.say(6, 0, kind::VIDEO, 1, &body(1, 100));
    let name = format!("{KEY}?x={FIXED_QUERY}&user={CLIENT_QUERY}");
    // The origin hears it all; that is what it is for.
    let line = origin.line_of(&name);
    line.ear.wait_count(&[kind::VIDEO], 1);
    let row = relay.row(publisher.address());
    assert_eq!((&row["app"], &row["token"]), (&json!("live"), &json!("token-1")));
    assert!(row["stream"].as_str().is_some_and(|shown| shown.starts_with("st") && !shown.contains("mark")), "{row}");
    assert_discreet(&relay);
    publisher.command(3, 0, "FCUnpublish", &[Amf::Null, s(&stream())]);
    publisher.command(3, 0, "deleteStream", &[Amf::Null, n(1)]);
    for client in [&mut publisher, &mut player] {
        client.leave();
        wait_until("the session ends", || {
            origin.line(0).finish();
            origin.line(1).finish();
            relay.events("session_ended").iter().any(|line| line["client"] == client.address().to_string())
        });
        assert_told_nothing(client);
    }
    assert_discreet(&relay);
}

#[test]
fn refusals_and_broken_commands_leave_no_secret_behind() {
    let origin = Origin::willing();
    let relay = loud(&origin.url(&path()), json!({}));
    let wrong = format!("{STREAM}?user={CLIENT_QUERY}&token={WRONG}");
    let other = format!("{KEY}?token={TOKEN}");
    let mut clients = vec![
        Client::asking_to_publish(&relay, &app(), &wrong),
        Client::asking_to_play(&relay, &format!("live?token={WRONG}"), STREAM),
        Client::asking_to_publish(&relay, WRONG, STREAM),
        Client::asking_to_publish(&relay, &app(), &other),
        Client::asking_to_publish(&relay, &app(), &format!("../{}", stream())),
        Client::asking_to_publish(&relay, &app(), &format!("{}\r\n", stream())),
        Client::asking_to_publish(&relay, TOKEN, &format!("{STREAM}/deeper")),
    ];
    // connect twice, a command that breaks off, and one that is never finished: each with a secret in it.
    let mut twice = Client::hello(&relay);
    twice.connect(&app()).connect(&format!("live?token={TOKEN}"));
    clients.push(twice);
    let mut broken = Client::hello(&relay);
    let command = [&b"\x02\0\x07connect\0\x3F\xF0\0\0\0\0\0\0\x03\0\x03app\x02\0\x0C"[..], TOKEN.as_bytes(), b"\0\x03"].concat();
    broken.say(3, 0, kind::COMMAND, 0, &command);
    clients.push(broken);
    let mut slow = Client::hello(&relay);
    slow.connect(&format!("live?token={TOKEN}"));
    clients.push(slow);
    let mut http = Client::to(&relay);
    http.write(format!("GET /{KEY}?token={TOKEN} HTTP/1.1\r\n\r\n").as_bytes());
    clients.push(http);
    for client in &mut clients {
        client.ended();
        client.leave();
        assert_told_nothing(client);
        relay.closing_line(client.address());
    }
    assert_discreet(&relay);
}

#[test]
fn what_goes_wrong_while_streaming_leaves_no_secret_behind() {
    let origin = Origin::willing();
    let mut relay = loud(&origin.url("/{app}/{stream}"), json!({ "shutdown_timeout": "0s" }));
    let publishing = || Client::publishing(&relay, &app(), &stream());
    let mut second = publishing();
    second.publish(&format!("{KEY}?token={WRONG}"));
    let mut third = publishing();
    third.command(8, 1, "play", &[Amf::Null, s(&format!("{KEY}?token={TOKEN}"))]);
    let mut again = publishing();
    again.connect(&format!("live?token={TOKEN}"));
    let mut broken = publishing();
    broken.write(&Say::full(77, 0, kind::VIDEO, 1, &[0; 10]).fmt(2).bytes(128));
    let mut unread = publishing();
    unread.say(3, 0, kind::COMMAND, 1, &[&b"\x02\0\x0B"[..], TOKEN.as_bytes()].concat());
    let reset = publishing();
    for client in [&mut second, &mut third, &mut again, &mut broken, &mut unread] {
        client.ended();
        client.leave();
        assert_told_nothing(client);
        relay.closing_line(client.address());
    }
    let address = reset.address();
    reset.reset();
    relay.closing_line(address);
    let mut last = publishing();
    assert_discreet(&relay);
    relay.signal(Signal::TERM);
    last.ended();
    last.leave();
    relay.exit();
    let all = [&SECRETS[..], &[STREAM]].concat();
    assert_silent_about(&all, &relay.log().join("\n"), "the log");
}

#[test]
fn upstreams_that_refuse_or_fail_leave_no_secret_behind() {
    // What an origin says may hold its stream key: nginx-rtmp's "Already publishing" does not, others' do.
    let text = "stream mark-key-3?x=mark-fixed-4&user=mark-query-5 (mark-key-3) is taken";
    for (at, deed) in [
        (At::Request, Deed::Refuse("NetStream.Publish.BadName", text)),
        (At::CreateStream, Deed::Refuse("NetStream.Failed", text)),
        (At::Connect, Deed::Refuse("NetConnection.Connect.Rejected", text)),
        (At::Request, Deed::Close),
        (At::Connect, Deed::Reset),
        (At::Accept, Deed::Close),
        (At::Handshake, Deed::Close),
        (At::Connect, Deed::Stall),
    ] {
        let origin = Origin::new(Script::doing(at, deed));
        let relay = loud(&origin.url(&path()), json!({ "dial_timeout": "200ms" }));
        for ask in [Client::asking_to_publish, Client::asking_to_play] {
            let mut client = ask(&relay, &app(), &stream());
            client.refused();
            assert_told_nothing(&client);
            relay.closing_line(client.address());
        }
        assert_discreet(&relay);
    }
    // A name that resolves to what is not allowed, and one that does not resolve.
    for host in ["localhost:9", "no-such-host.invalid"] {
        let security = json!({ "auth_enabled": true, "auth_tokens": [TOKEN], "upstream_allowed_networks": ["192.0.2.0/24"] });
        let more = json!({ "security": security, "dial_timeout": "200ms" });
        let relay = loud(&format!("rtmp://{host}{}", path()), more);
        let mut client = Client::asking_to_publish(&relay, &app(), &stream());
        client.refused();
        assert_told_nothing(&client);
        relay.closing_line(client.address());
        assert_discreet(&relay);
    }
}
