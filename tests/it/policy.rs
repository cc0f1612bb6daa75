//! Who may come in, as what, and where to: tokens in every place, limits, networks, and what each refusal says.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::amf::{Amf, n, obj, s};
use crate::client::{Client, hello};
use crate::ear::End;
use crate::origin::Origin;
use crate::parser::kind;
use crate::relay::{Face, Relay};
use crate::speech::body;
use crate::wait::wait_until;

const TOKEN: &str = "s3cret-token";

fn tokens() -> Value {
    json!({ "security": { "auth_enabled": true, "auth_tokens": [TOKEN] } })
}

/// A publisher with its own connect arguments.
fn publishing_with(relay: &Face, connect: &[Amf], stream: &str) -> Client {
    let mut client = Client::hello(relay);
    client.command(3, 0, "connect", connect);
    client.command(3, 0, "releaseStream", &[Amf::Null, s(stream)]);
    client.command(3, 0, "FCPublish", &[Amf::Null, s(stream)]);
    client.create_stream().publish(stream);
    client
}

fn connecting(app: &str, more: &[(&str, Amf)]) -> Amf {
    let fields = [("app", s(app)), ("tcUrl", s(&format!("rtmp://relay.test/{app}")))];
    obj(&[&fields[..], more].concat())
}

/// What the origin heard on its connection of `stream`, and that the token is nowhere in it.
fn heard_without_token(origin: &Origin, stream: &str) -> Vec<(String, Vec<Amf>)> {
    let line = origin.line_of(stream);
    let record = line.ear.record();
    let bytes = &record.bytes;
    for secret in [TOKEN, "token"] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} reached the origin");
    }
    record.messages.iter().filter_map(|m| m.command().map(|(name, _, args)| (name, args))).collect()
}

#[test]
fn a_token_is_found_in_every_place_and_taken_out_of_all_that_goes_on() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), tokens());
    let with = format!("token={TOKEN}");
    let places: Vec<(&str, Vec<Amf>, String)> = vec![
        ("a", vec![connecting("live", &[])], format!("a?{with}")),
        ("b?x=1&y=2", vec![connecting("live", &[])], format!("b?x=1&{with}&y=2")),
        ("c", vec![connecting(&format!("live?{with}"), &[])], "c".into()),
        ("d", vec![obj(&[("app", s("live")), ("tcUrl", s(&format!("rtmp://relay.test/live?{with}")))])], "d".into()),
        ("e", vec![connecting("live", &[("token", s(TOKEN)), ("swfUrl", s(&format!("http://x/?{with}")))])], "e".into()),
        ("f", vec![connecting("live", &[]), obj(&[("token", s(TOKEN))])], "f".into()),
    ];
    for (stream, connect, said) in places {
        let mut client = publishing_with(&relay, &connect, &said);
        client.started();
        client.command(3, 0, "FCUnpublish", &[Amf::Null, s(&said)]);
        // As GStreamer does: a name in place of a number.
        client.command(3, 0, "deleteStream", &[Amf::Null, s(&said)]);
        client.say(6, 0, kind::VIDEO, 1, &body(1, 10));
        let line = origin.line_of(stream);
        line.ear.wait_count(&[kind::VIDEO], 1);
        let commands = heard_without_token(&origin, stream);
        for (name, args) in &commands {
            match &name[..] {
                "connect" => {
                    assert_eq!(args[0].get("app"), Some(&s("live")), "{stream}");
                    assert_eq!(args[0].get("tcUrl"), Some(&s(&origin.url("/live"))), "{stream}");
                    assert_eq!(args.len(), connect.len(), "{stream}: no argument is lost");
                }
                "createStream" => {}
                _ => assert_eq!(args[1], s(stream), "{name}"),
            }
        }
        let names: Vec<_> = commands.iter().map(|(name, _)| &name[..]).collect();
        let want = ["connect", "releaseStream", "FCPublish", "createStream", "publish", "FCUnpublish", "deleteStream"];
        assert_eq!(names, want);
    }
}

#[test]
fn a_token_as_the_app_needs_an_upstream_that_fixes_the_app() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url("/studio"), tokens());
    let client = Client::publishing(&relay, TOKEN, "cam");
    let commands = heard_without_token(&origin, "cam");
    assert_eq!(commands[0].1[0].get("app"), Some(&s("studio")));
    drop(client);

    let relay = Relay::with(&origin.url(""), tokens());
    let (code, text) = Client::asking_to_publish(&relay, TOKEN, "cam").refused();
    assert_eq!(code, "NetStream.Publish.BadName");
    assert!(text.contains("as the app") && !text.contains(TOKEN), "{text}");
    relay.wait_ended("relay", "bad_name");
}

#[test]
fn a_token_that_is_missing_wrong_or_for_something_else_is_refused_in_words() {
    let origin = Origin::willing();
    let entries = json!([
        { "token": "may-publish", "actions": ["publish"] },
        { "token": "may-play-one", "actions": ["play"], "streams": ["live/one"] },
    ]);
    let relay = Relay::with(&origin.url(""), json!({ "security": { "auth_enabled": true, "auth_tokens": entries } }));
    let publish = |stream: &str| Client::asking_to_publish(&relay, "live", stream).refused();
    let play = |stream: &str| Client::asking_to_play(&relay, "live", stream).refused();
    let (denied, failed) = ("NetStream.Publish.Denied", "NetStream.Play.Failed");
    for ((code, text), (want, words)) in [
        (publish("cam"), (denied, "authentication failed: a token is missing, add ?token=... to the stream key")),
        (publish("cam?token=may-publis"), (denied, "authentication failed: the token is not known")),
        (publish("one?token=may-play-one"), (denied, "authentication failed: this token or user may not publish")),
        (play("cam?token=may-publish"), (failed, "authentication failed: this token or user may not play")),
        (play("two?token=may-play-one"), (failed, "authentication failed: this token or user does not open this stream")),
    ] {
        assert_eq!((&code[..], &text[..]), (want, words));
    }
    assert_eq!(relay.metric("rtmp_relay_auth_failures_total"), 5);
    assert_eq!(relay.connections(), (0, 0, 5));
    assert_eq!(origin.count(), 1, "nobody unknown costs the upstream a connection; the one is the relay's own look");
    Client::playing(&relay, "live", "one?token=may-play-one");
}

#[test]
fn refusals_have_the_shape_that_every_client_understands() {
    let origin = Origin::willing();
    let more = json!({ "security": { "auth_enabled": true, "auth_tokens": [TOKEN] },
        "connection_limit": { "max_total_connections": 1 } });
    let relay = Relay::with(&origin.url(""), more);
    // At publish: onStatus on the message stream, where GStreamer looks, with a null in front of the information.
    let mut client = Client::asking_to_publish(&relay, "live", "cam");
    let status = client.ear.wait_command("onStatus");
    let (_, transaction, args) = status.command().expect("a command");
    assert_eq!((status.stream, transaction, &args[0]), (1, 0.0, &Amf::Null));
    assert_eq!(args[1].get("level"), Some(&s("error")));
    assert!(args[1].get("description").and_then(Amf::text).is_some_and(|text| !text.is_empty()));
    assert_eq!(client.ended(), End::Fin, "and then the connection is closed: librtmp waits for that");
    client.leave();
    relay.wait_empty();
    // At connect: _error of its transaction, on message stream 0.
    let _one = Client::publishing(&relay, "live", &format!("cam?token={TOKEN}"));
    let mut client = Client::hello(&relay);
    client.command(3, 0, "other", &[Amf::Null]);
    client.leave();
    let mut client = Client::hello(&relay);
    client.connect("live");
    let error = client.ear.wait_command("_error");
    let (_, transaction, args) = error.command().expect("a command");
    assert_eq!((error.stream, transaction, &args[0]), (0, 1.0, &Amf::Null));
    assert_eq!(args[1].get("code"), Some(&s("NetConnection.Connect.Rejected")));
    assert_eq!(args[1].get("description"), Some(&s("connection limit reached: the relay already has 1 connections")));
    assert_eq!(client.ended(), End::Fin);
}

/// Refused at connect: what is said there.
fn refused_at_connect(relay: &Face) -> String {
    let mut client = Client::asking_to_publish(relay, "live", "cam");
    let (code, text) = client.refused();
    assert_eq!(code, "NetConnection.Connect.Rejected");
    text
}

#[test]
fn limits_are_told_at_connect_and_counted_by_their_names() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({ "connection_limit": { "max_total_connections": 10, "max_per_ip": 2 } }));
    let first = Client::publishing(&relay, "live", "a");
    let _second = Client::publishing(&relay, "live", "b");
    assert_eq!(refused_at_connect(&relay), "connection limit reached: this address already has 2 connections");
    relay.wait_ended("relay", "max_per_ip");
    let status = relay.status();
    assert_eq!(status["connections"]["per_ip"][0], json!({ "address": "127.0.0.1", "connections": 2 }));
    assert_eq!(status["connections"]["rejected"]["max_per_ip"], 1);
    assert_eq!(relay.metric("rtmp_relay_connection_limit_rejections_total"), 1);
    assert_eq!(relay.connections(), (0, 0, 1));
    // A place that is free again is given again.
    let mut first = first;
    first.leave();
    origin.line_of("a").finish();
    relay.wait_active(1);
    Client::publishing(&relay, "live", "c");
}

#[test]
fn a_rate_above_the_limit_is_told_at_connect_with_when_to_come_again() {
    let origin = Origin::willing();
    let rate = json!({ "rate_limit": { "enabled": true, "requests_per_sec": 0.01, "burst": 2 } });
    let relay = Relay::with(&origin.url(""), rate);
    let _two = [Client::publishing(&relay, "live", "a"), Client::publishing(&relay, "live", "b")];
    let text = refused_at_connect(&relay);
    let seconds = text.strip_prefix("rate limit reached: too many new connections from this address, try again in ");
    let seconds: u32 = seconds.and_then(|s| s.strip_suffix(" s")).and_then(|s| s.parse().ok()).expect("a number of seconds");
    assert!((90..=100).contains(&seconds), "{text}");
    relay.wait_ended("relay", "rate_limit");
    assert_eq!(relay.metric("rtmp_relay_rate_limit_rejections_total"), 1);
    let rate = &relay.status()["rate_limit"];
    assert_eq!((&rate["rejected"], &rate["allowed"], &rate["keys"]), (&json!(1), &json!(2), &json!(1)));
}

#[test]
fn networks_that_are_denied_or_not_allowed_are_told_so() {
    let origin = Origin::willing();
    for (key, text, reason) in [
        ("denied_clients", "connection refused: this network is denied", "denied_network"),
        ("allowed_clients", "connection refused: this network is not among the allowed ones", "network_not_allowed"),
    ] {
        let network = if key == "denied_clients" { "127.0.0.0/8" } else { "192.0.2.0/24" };
        let relay = Relay::with(&origin.url(""), json!({ "security": { key: [network] } }));
        assert_eq!(refused_at_connect(&relay), text);
        relay.wait_ended("relay", reason);
        assert_eq!(relay.connections(), (0, 0, 1));
    }
    let open = json!({ "security": { "allowed_clients": ["127.0.0.1/32"], "denied_clients": ["192.0.2.0/24"] } });
    Client::publishing(&Relay::with(&origin.url(""), open), "live", "cam");
}

#[test]
fn at_most_sixty_four_refusals_are_told_at_a_time_and_the_rest_is_reset() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({ "connection_limit": { "max_total_connections": 60 } }));
    // Fills the places; who comes then and says nothing is being told for two seconds.
    let places: Vec<_> = (0..60).map(|_| TcpStream::connect(relay.address).expect("the relay accepts")).collect();
    relay.wait_active(60);
    let began = Instant::now();
    let silent: Vec<_> = (0..64).map(|_| Client::to(&relay)).collect();
    wait_until("all 64 are being told", || relay.status()["listener"]["open_sockets"] == 124);
    // The hard cap is the 60 and these 64: the next one is not even asked who it is.
    let next = Client::to(&relay);
    assert_eq!(next.ended(), End::Reset);
    assert!(began.elapsed() < Duration::from_secs(2), "this machine is too slow to see the bound");
    assert_eq!(relay.status()["connections"]["rejected"]["hard_cap"], 1);
    for client in &silent {
        client.ended();
    }
    drop(places);
    relay.wait_empty();
    let (success, error, rejected) = relay.connections();
    // The 60 have said nothing, and are none.
    assert_eq!((success, error, rejected), (0, 0, 65));
    Client::publishing(&relay, "live", "cam");
}

#[test]
fn refusals_beyond_sixty_four_at_a_time_are_reset_below_the_hard_cap_too() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({ "connection_limit": { "max_total_connections": 200, "max_per_ip": 1 } }));
    let _place = Client::publishing(&relay, "live", "cam");
    let began = Instant::now();
    let silent: Vec<_> = (0..65).map(|_| Client::to(&relay)).collect();
    wait_until("one has ended", || silent.iter().any(|client| client.ear.record().end.is_some()));
    assert!(began.elapsed() < Duration::from_secs(2), "this machine is too slow to see the bound");
    // The others hear nothing for as long as they say nothing, which is two seconds.
    let resets = silent.iter().filter(|client| client.ended() == End::Reset).count();
    assert_eq!(resets, 1);
    wait_until("the silent ones have gone", || relay.status()["listener"]["open_sockets"] == 1);
    assert!(refused_at_connect(&relay).starts_with("connection limit reached"));
}

/// What the origin hears of a publisher of `app` and `stream` behind an upstream URL: its app, tcUrl and stream.
fn addressed(path: &str, more: Value, app: &str, stream: &str) -> Result<(String, String, String), String> {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(path), more);
    let client = Client::asking_to_publish(&relay, app, stream);
    let (code, text) = client.told();
    if code != "NetStream.Publish.Start" {
        return Err(format!("{code}: {text}"));
    }
    let line = origin.line(0);
    let connect = line.ear.wait_command("connect").command().expect("a command");
    let publish = line.ear.wait_command("publish").command().expect("a command");
    let field = |key| connect.2[0].get(key).and_then(Amf::text).unwrap_or_default().to_owned();
    let tc_url = field("tcUrl").strip_prefix(&origin.url("/")).expect("the upstream's own").to_owned();
    Ok((field("app"), tc_url, publish.2[1].text().unwrap_or_default().to_owned()))
}

#[test]
fn the_upstream_url_fixes_what_it_says_and_leaves_the_rest_to_the_client() {
    let some = |forward: Value| json!({ "forward_query": forward });
    let all = || json!({});
    for (path, more, (app, stream), want) in [
        // Nothing fixed: the client's own split, whichever it is.
        ("", all(), ("a/b", "c/d"), ("a/b", "a/b", "c/d")),
        ("", all(), ("a/b/c", "d?x=1"), ("a/b/c", "a/b/c", "d?x=1")),
        ("", all(), ("live?backup=1", "cam"), ("live?backup=1", "live?backup=1", "cam")),
        // The app fixed: the last segment is the stream, however the client split.
        ("/studio", all(), ("a/b", "c/d"), ("studio", "studio", "d")),
        ("/studio", all(), ("live", "cam?x=1&y"), ("studio", "studio", "cam?x=1&y")),
        ("/studio", all(), ("live?z=3", "cam"), ("studio?z=3", "studio?z=3", "cam")),
        // Both fixed, with a query that wins over the client's.
        ("/studio/key?x=y&z=%20", all(), ("live", "cam"), ("studio", "studio", "key?x=y&z=%20")),
        ("/studio/key?x=y", all(), ("live", "cam?x=mine&u=1"), ("studio", "studio", "key?x=y&u=1")),
        // Placeholders.
        ("/{app}/{stream}", all(), ("a/b", "c/d"), ("a/b/c", "a/b/c", "d")),
        ("/edge/{app}/{stream}-{app}?from={stream}", all(), ("live", "a b"), ("edge/live", "edge/live", "a b-live?from=a%20b")),
        // What of the client's arguments goes on.
        ("/studio", some(json!("none")), ("live", "cam?x=1"), ("studio", "studio", "cam")),
        ("/studio", some(json!(["x"])), ("live", "cam?y=2&x=1&z"), ("studio", "studio", "cam?x=1")),
    ] {
        let want = Ok((want.0.to_owned(), want.1.to_owned(), want.2.to_owned()));
        assert_eq!(addressed(path, more, app, stream), want, "{path} for {app} and {stream}");
    }
    let missing = addressed("/studio", all(), "live", "").expect_err("no stream");
    assert_eq!(missing, "NetStream.Publish.BadName: no stream name was given: the address must end in /app/stream");
}

#[test]
fn an_authorised_second_publish_goes_through_as_the_upstream_knows_it() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), tokens());
    let first = format!("one?token={TOKEN}");
    let mut client = Client::publishing(&relay, "live", &first);
    client.command(3, 0, "FCUnpublish", &[Amf::Null, s(&first)]);
    client.command(3, 0, "deleteStream", &[Amf::Null, n(1)]);
    client.create_stream();
    client.command(3, 0, "releaseStream", &[Amf::Null, s(&format!("two?token={TOKEN}"))]);
    client.publish(&format!("two?x=1&token={TOKEN}"));
    let said = client.say(6, 0, kind::VIDEO, 1, &body(1, 500));
    client.command(3, 0, "closeStream", &[Amf::Null, s(&format!("two?x=1&token={TOKEN}"))]);
    client.say(6, 9, kind::VIDEO, 1, &body(2, 500));
    let line = origin.line_of("one");
    assert_eq!(line.ear.wait_count(&[kind::VIDEO], 2)[0], said);
    let commands = heard_without_token(&origin, "one");
    let names: Vec<_> = commands.iter().map(|(name, args)| (&name[..], args.get(1).and_then(Amf::text))).collect();
    assert_eq!(
        names[3..],
        [
            ("FCUnpublish", Some("one")),
            ("deleteStream", None),
            ("createStream", None),
            ("releaseStream", Some("two")),
            ("publish", Some("two?x=1")),
            ("closeStream", Some("two?x=1")),
        ]
    );
    assert_eq!(relay.row(client.address())["state"], "relaying");
}

#[test]
fn a_second_publish_to_another_app_of_the_upstream_is_refused() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url("/{app}/{stream}"));
    let mut client = Client::publishing(&relay, "live", "one");
    client.publish("deeper/two");
    relay.wait_ended("relay", "second_publish_refused");
    let told = client.ear.record().messages.iter().filter_map(|m| m.told()).next_back().expect("told");
    assert_eq!(told.1, "the stream belongs to another app of the upstream: connect anew");
    client.leave();
}

#[test]
fn what_an_origin_refuses_is_told_in_the_clients_own_names() {
    use crate::origin::{At, Deed, Script};
    let deed = Deed::Refuse("NetStream.Publish.BadName", "stream key-9f3 is already publishing");
    let origin = Origin::new(Script::doing(At::Request, deed));
    let relay = Relay::to(&origin.url("/live/key-9f3"));
    let mut client = Client::asking_to_publish(&relay, "live", "cam");
    let told = client.refused();
    assert_eq!(told, ("NetStream.Publish.BadName".into(), "stream cam is already publishing".into()));
    relay.wait_ended("upstream", "upstream_refused");
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"refused\"}"), 1);
    // At connect the origin speaks of the connection; the client hears it as the answer to its publish.
    let deed = Deed::Refuse("NetConnection.Connect.InvalidApp", "no such app");
    let origin = Origin::new(Script::doing(At::Connect, deed));
    let relay = Relay::to(&origin.url(""));
    let told = Client::asking_to_play(&relay, "live", "cam").refused();
    assert_eq!(told, ("NetStream.Play.Failed".into(), "no such app".into()));
    let mut player = Client::to(&relay);
    player.write(&hello());
    player.leave();
}
