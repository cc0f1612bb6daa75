//! Tokens and passwords over RTSP: what a client may show, what it is asked for, and what the relay shows to an upstream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::relay::{Process, Relay};
use crate::rtsp::playing;
use crate::rtsp_peer::{Door, Heard, Peer, Said};

const TOKEN: &str = "s3cret-token";
const URL: &str = "rtsp://relay.test/live/cam";
const SDP: &str = "v=0\nm=video 0 RTP/AVP 96\na=control:stream=0\n";

fn tokens() -> Value {
    json!({ "security": { "auth_enabled": true, "auth_tokens": [{ "token": TOKEN, "actions": ["play"], "streams": ["live/cam"] }] } })
}

fn basic(password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("any:{password}")))
}

fn md5(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The Authorization with which `challenged` is answered; `uri` is what the client takes for it.
fn digest(challenged: &Said, method: &str, uri: &str, password: &str) -> String {
    digest_as("any", challenged, method, uri, password)
}

fn digest_as(user: &str, challenged: &Said, method: &str, uri: &str, password: &str) -> String {
    let offered = challenged.headers.iter().find(|(name, value)| name == "WWW-Authenticate" && value.starts_with("Digest "));
    let (_, offer) = offered.expect("Digest is offered");
    let field =
        |name: &str| offer.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let (realm, nonce) = (field("realm"), field("nonce"));
    let (secret, request) = (md5(&format!("{user}:{realm}:{password}")), md5(&format!("{method}:{uri}")));
    let response = md5(&format!("{secret}:{nonce}:{request}"));
    format!(
        "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\""
    )
}

#[test]
fn a_token_is_taken_in_every_form_and_goes_no_further() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), tokens());
    let with = format!("{URL}?token={TOKEN}");
    for (uri, header) in [
        (URL, basic(TOKEN)),
        (URL, format!("Authorization: Bearer {TOKEN}")),
        (URL, format!("{}\n{}", basic("stale"), basic(TOKEN))),
        (&with, String::new()),
        (&format!("{with}/"), String::new()),
        (&format!("{URL}?a=b&token={TOKEN}"), String::new()),
    ] {
        let mut player = Peer::to(&relay);
        player.request("DESCRIBE", uri, &header);
        let request = door.accept().serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
        assert_eq!(player.message().status(), "200 OK", "{uri} {header}");
        let text = request.text();
        assert!(!text.contains(TOKEN) && !text.contains("Authorization") && !text.contains("token"), "{text}");
    }
    assert_eq!(relay.metric("rtmp_relay_auth_failures_total"), 0);
}

#[test]
fn who_shows_nothing_is_asked_and_may_answer_with_a_digest() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), tokens());
    // Absolute, the path alone, another track's: all are in the wild.
    for uri in [URL, "/live/cam", "rtsp://relay.test/live/cam/trackID=1"] {
        let mut player = Peer::to(&relay);
        let asked = player.ask("DESCRIBE", URL, "");
        assert_eq!(asked.status(), "401 A token is needed: as the password, or as ?token= in the URL");
        let schemes: Vec<_> = asked.headers.iter().filter(|(name, _)| name == "WWW-Authenticate").map(|(_, v)| &v[..6]).collect();
        assert_eq!(schemes, ["Digest", "Basic "]);
        assert!(door.is_quiet(), "authentication comes before any dial");
        player.request("DESCRIBE", URL, &digest(&asked, "DESCRIBE", uri, TOKEN));
        door.accept().serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
        assert_eq!(player.message().status(), "200 OK", "{uri}");
    }
    assert_eq!(relay.metric("rtmp_relay_auth_failures_total"), 0, "to be asked is no failure");
    // An answer to another connection's question is none.
    let (mut one, mut other) = (Peer::to(&relay), Peer::to(&relay));
    let (asked, _) = (one.ask("DESCRIBE", URL, ""), other.ask("DESCRIBE", URL, ""));
    let answer = other.ask("DESCRIBE", URL, &digest(&asked, "DESCRIBE", URL, TOKEN));
    assert_eq!(answer.status(), "401 authentication failed: the token is not known");
}

#[test]
fn a_user_logs_in_with_its_password_and_nobody_else_does() {
    let door = Door::open();
    let users = json!([{ "user": "ann", "password": "ann-pass" }]);
    let security = json!({ "auth_enabled": true, "auth_tokens": [TOKEN], "users": users, "adobe_auth": "all" });
    let relay = Relay::with(&door.url(""), json!({ "security": security }));
    let as_basic = |user: &str, password: &str| format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")));
    for (user, password, opens) in
        [("ann", "ann-pass", true), ("bob", "ann-pass", false), ("ann", "ann-pas", false), ("ann", TOKEN, true)]
    {
        for by_digest in [false, true] {
            let mut player = Peer::to(&relay);
            let asked = player.ask("DESCRIBE", URL, "");
            let shown = if by_digest { digest_as(user, &asked, "DESCRIBE", URL, password) } else { as_basic(user, password) };
            player.request("DESCRIBE", URL, &shown);
            if opens {
                door.accept().serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
            }
            let want = if opens { "200 OK" } else { "401 authentication failed: the token is not known" };
            assert_eq!(player.message().status(), want, "{user} {password} {by_digest}");
        }
    }
}

#[test]
fn a_token_opens_what_it_opens_and_no_more() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), tokens());
    let mut client = Peer::to(&relay);
    let answer = client.ask("ANNOUNCE", URL, &format!("{}\n\nv=0\n", basic(TOKEN)));
    assert_eq!(answer.status(), "401 authentication failed: this token or user may not publish");
    let answer = client.ask("DESCRIBE", "rtsp://relay.test/live/other", &basic(TOKEN));
    assert_eq!(answer.status(), "401 authentication failed: this token or user does not open this stream");
    let answer = client.ask("DESCRIBE", "rtsp://relay.test/live/x/..%2fcam", &basic(TOKEN));
    assert!(answer.status().starts_with("404 "), "{answer:?}");
    assert!(door.is_quiet());
}

#[test]
fn hostile_30_guessing_ends_at_the_fifth_try() {
    let relay = Relay::with(&Door::open().url(""), tokens());
    let mut client = Peer::to(&relay);
    for number in 1..=5 {
        // GStreamer adds a header with each try.
        let header = vec![basic("wrong"); number].join("\n");
        let answer = client.ask("DESCRIBE", URL, &header);
        assert_eq!(answer.status(), "401 authentication failed: the token is not known");
        assert_eq!(answer.get("Connection").is_some(), number == 5);
    }
    assert_eq!(client.hear(), Heard::Fin);
    relay.wait_ended("relay", "auth");
    assert_eq!(relay.metric("rtmp_relay_auth_failures_total"), 5);
}

#[test]
fn who_leaves_without_a_token_is_counted_as_refused_once() {
    let relay = Relay::with(&Door::open().url(""), tokens());
    let mut client = Peer::to(&relay);
    // As ffmpeg without credentials: once more, then it gives up.
    client.ask("OPTIONS", URL, "");
    client.ask("DESCRIBE", URL, "");
    client.ask("DESCRIBE", URL, "");
    drop(client);
    relay.wait_ended("relay", "auth");
    assert_eq!(relay.metric("rtmp_relay_auth_failures_total"), 1);
    assert_eq!(relay.connections(), (0, 0, 1));
}

#[test]
fn the_relay_logs_in_at_an_upstream_with_the_credentials_of_its_url() {
    let door = Door::open();
    let url = door.url("/up/{stream}").replace("rtsp://", "rtsp://us%40er:pa%3Ass@");
    let relay = Process::with(&url, tokens());
    let offers = [
        "Basic realm=\"cam\"",
        "Digest realm=\"cam\", nonce=\"n1\"",
        "Digest realm=\"cam\", nonce=\"n1\", algorithm=SHA-256, qop=\"auth\"",
    ];
    for offer in offers {
        let mut player = Peer::to(&relay);
        player.request("DESCRIBE", URL, &basic(TOKEN));
        let mut origin = door.accept();
        let first = origin.serve("DESCRIBE ", "401 Unauthorized", &format!("WWW-Authenticate: {offer}"));
        assert_eq!(first.get("Authorization"), None, "the client's own is not the upstream's");
        let second = origin.serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
        let shown = second.get("Authorization").expect("the relay answers");
        if offer.starts_with("Basic") {
            assert_eq!(shown, format!("Basic {}", STANDARD.encode("us@er:pa:ss")));
        } else {
            let uri = door.url("/up/cam");
            assert!(
                shown.starts_with(&format!("Digest username=\"us@er\", realm=\"cam\", nonce=\"n1\", uri=\"{uri}\"")),
                "{shown}"
            );
            assert_eq!(shown.contains("algorithm=SHA-256, qop=auth, nc=00000001"), offer.contains("SHA-256"), "{shown}");
        }
        if !offer.contains("SHA") && offer.starts_with("Digest") {
            let (secret, request) = (md5("us@er:cam:pa:ss"), md5(&format!("DESCRIBE:{}", door.url("/up/cam"))));
            assert!(shown.contains(&md5(&format!("{secret}:n1:{request}"))), "{shown}");
        }
        assert_eq!(player.message().status(), "200 OK");
    }
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", URL, &basic(TOKEN));
    let mut origin = door.accept();
    for _ in 0..2 {
        origin.serve("DESCRIBE ", "401 Unauthorized", "WWW-Authenticate: Basic realm=\"cam\"");
    }
    let answer = player.message();
    assert_eq!(answer.status(), "502 The upstream does not take the user name and password of its URL");
    assert_eq!(relay.outcome(player.address()), "upstream upstream_refused error");
    let said = [relay.log().join("\n"), relay.status().to_string(), relay.metrics()].concat();
    for secret in ["pa:ss", "pa%3Ass", "us@er", "us%40er", TOKEN] {
        assert!(!said.contains(secret), "{secret}");
    }
}

#[test]
fn without_authentication_here_an_upstream_s_basic_passes_both_ways_and_its_digest_is_explained() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", URL, "");
    let mut origin = door.accept();
    origin.serve("DESCRIBE ", "401 Unauthorized", "WWW-Authenticate: Basic realm=\"cam\"");
    let asked = player.message();
    assert_eq!((asked.status(), asked.get("WWW-Authenticate")), ("401 Unauthorized", Some("Basic realm=\"cam\"")));
    player.request("DESCRIBE", URL, &basic("origin's"));
    let request = origin.serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
    assert_eq!(request.get("Authorization"), Some(&basic("origin's")["Authorization: ".len()..]));
    assert_eq!(player.message().status(), "200 OK");

    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", URL, "");
    door.accept().serve("DESCRIBE ", "401 Unauthorized", "WWW-Authenticate: Digest realm=\"cam\", nonce=\"n\"");
    assert_eq!(player.message().status(), "502 The upstream asks for a password: put credentials into the upstream URL");
}

#[test]
fn a_refused_address_is_told_at_its_first_request() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "connection_limit": { "max_total_connections": 1 } }));
    let _first = playing(&relay, &door);
    let mut second = Peer::to(&relay);
    let answer = second.ask("OPTIONS", URL, "");
    assert!(answer.status().starts_with("503 ") && answer.status().contains("connection"), "{answer:?}");
    assert_eq!(second.hear(), Heard::Fin);
}
