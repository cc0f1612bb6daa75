//! In private: TLS from clients, TLS to upstreams, and what each side is told when it cannot be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::origin::Origin;
use crate::parser::{Message, kind};
use crate::private::{Authority, Paper, Tunnel, believing};
use crate::relay::{Face, Process, Relay};
use crate::rtsp_peer::Peer;
use crate::speech::body;
use crate::wait::{wait_equal, wait_until};

/// Keys that serve `paper` from files in `dir`.
fn serving(dir: &Path, paper: &Paper, more: Value) -> Value {
    let (cert, key) = paper.put_into(dir);
    let mut keys = json!({ "security": { "tls_cert": cert, "tls_key": key } });
    for (name, value) in more.as_object().into_iter().flatten() {
        keys["security"][name] = value.clone();
    }
    keys
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn address(origin: &Origin) -> SocketAddr {
    origin.url("").trim_start_matches("rtmp://").parse().expect("an address")
}

/// A client that speaks through `tunnel`.
fn through(tunnel: &Tunnel) -> Face {
    Face { address: tunnel.address, http: tunnel.address }
}

/// A tunnel to `relay` for clients that believe `authority`.
fn tunnel_to(relay: SocketAddr, authority: &Authority) -> Tunnel {
    Tunnel::to(relay, "localhost", believing(authority, None))
}

fn media(messages: &[Message]) -> Vec<(u8, Vec<u8>)> {
    messages.iter().filter(|m| matches!(m.kind, kind::AUDIO | kind::VIDEO)).map(|m| (m.kind, m.body.clone())).collect()
}

/// Frames go to the origin and come from it, unchanged.
fn streams_pass(face: &Face, origin: &Origin, stream: &str) {
    let mut publisher = Client::publishing(face, "live", stream);
    publisher.set_chunk_size(60_000);
    let mut sent = Vec::new();
    for (number, length) in [40_000, 7, 16_384, 1, 300, 70_000].into_iter().enumerate() {
        let number = u32::try_from(number).expect("few");
        sent.push(publisher.say(6, number * 40, kind::VIDEO, 1, &body(number, length)));
        sent.push(publisher.say(4, number * 40, kind::AUDIO, 1, &body(number + 100, 90)));
    }
    let line = origin.line_of(stream);
    line.ear.wait_count(&[kind::VIDEO, kind::AUDIO], sent.len());
    assert_eq!(media(&line.ear.record().messages), media(&sent));

    let played = format!("{stream}-played");
    let player = Client::playing(face, "live", &played);
    let line = origin.line_of(&played);
    let said: Vec<Message> = (0..8).map(|number| line.say(6, number * 40, kind::VIDEO, &body(number, 9_000))).collect();
    player.ear.wait_count(&[kind::VIDEO], said.len());
    assert_eq!(media(&player.ear.record().messages), media(&said));
}

#[test]
fn streams_pass_in_private_from_clients_and_to_upstreams() {
    let (authority, dir, origin) = (Authority::new(), directory(), Origin::willing());
    let front = Tunnel::before(address(&origin), &authority.paper(&["127.0.0.1"]));
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("it can be written");
    let mut keys = serving(dir.path(), &authority.paper(&["localhost"]), json!({ "tls_enabled": true }));
    keys["upstream_tls"] = json!({ "ca_file": ca });
    let relay = Relay::with(&format!("rtmps://{}", front.address), keys);
    let tunnel = tunnel_to(relay.address, &authority);
    streams_pass(&through(&tunnel), &origin, "cam");

    let status = relay.status();
    assert_eq!(status["upstreams"][0]["tls"], "verified");
    assert_eq!(status["upstreams"][0]["target"], json!(format!("rtmps://{}", front.address)));
    assert_eq!(status["listener"]["doors"], json!([{ "address": relay.address, "tls": "only" }]));
    let certificate = &status["listener"]["tls"];
    assert_eq!((&certificate["names"], &certificate["last_error"]), (&json!(["localhost"]), &Value::Null));
    assert!(relay.metric("rtmp_relay_tls_certificate_expiry_timestamp_seconds") > 1_700_000_000);
    assert!(relay.metric("rtmp_relay_upstream_tls_duration_seconds_count") >= 2);
    // The origin is told the name that it was asked by.
    let connect = origin.line_of("cam").ear.wait_command("connect");
    let (_, _, arguments) = connect.command().expect("a command");
    assert_eq!(arguments[0].get("tcUrl"), Some(&crate::amf::s(&format!("rtmps://{}/live", front.address))));
}

#[test]
fn a_plain_client_where_tls_is_a_must_is_told_which_url_to_use() {
    let (dir, origin) = (directory(), Origin::willing());
    let keys = serving(dir.path(), &Authority::new().paper(&["localhost"]), json!({ "tls_enabled": true }));
    let relay = Relay::with(&origin.url(""), keys);
    let (_, text) = Client::asking_to_publish(&relay, "live", "cam").refused();
    assert!(text.contains("rtmps://"), "{text}");
    relay.wait_ended("client", "plain_on_tls_port");
    assert!(!origin.knows("cam"));
}

#[test]
fn where_both_are_allowed_the_first_byte_decides() {
    let (authority, dir, origin) = (Authority::new(), directory(), Origin::willing());
    let both = json!({ "tls_enabled": true, "tls_allow_plain": true });
    let relay = Relay::with(&origin.url(""), serving(dir.path(), &authority.paper(&["localhost"]), both));
    streams_pass(&relay, &origin, "plain");
    streams_pass(&through(&tunnel_to(relay.address, &authority)), &origin, "private");
}

#[test]
fn a_row_of_status_says_how_the_client_came() {
    let (authority, dir, origin) = (Authority::new(), directory(), Origin::willing());
    let both = json!({ "tls_enabled": true, "tls_allow_plain": true });
    let relay = Relay::with(&origin.url(""), serving(dir.path(), &authority.paper(&["localhost"]), both));
    let tunnels = [tunnel_to(relay.address, &authority), tunnel_to(relay.address, &authority)];
    let _publishers = [Client::publishing(&relay, "live", "plain"), Client::publishing(&through(&tunnels[0]), "live", "private")];
    let mut others = [Peer::to(&relay), Peer::to(&through(&tunnels[1]))];
    others.iter_mut().for_each(|peer| assert_eq!(peer.ask("OPTIONS", "rtsp://relay.test/live/cam", "").status(), "200 OK"));
    let status = relay.status();
    let rows = status["connections"]["sessions"].as_array().expect("rows");
    let mut schemes: Vec<_> = rows.iter().map(|row| row["protocol"].as_str().expect("a scheme")).collect();
    schemes.sort_unstable();
    assert_eq!(schemes, ["rtmp", "rtmps", "rtsp", "rtsps"]);
}

#[test]
fn further_addresses_speak_what_they_are_told_to() {
    let (authority, dir, origin) = (Authority::new(), directory(), Origin::willing());
    let mut keys = serving(dir.path(), &authority.paper(&["localhost"]), json!({}));
    keys["listeners"] = json!([{ "addr": "127.0.0.1:0" }, { "addr": "127.0.0.1:0", "tls": "optional" }]);
    let relay = Relay::with(&origin.url(""), keys);
    let doors = relay.status()["listener"]["doors"].clone();
    let door = |index: usize| -> (SocketAddr, String) {
        let word = |key: &str| doors[index][key].as_str().expect("a string").to_owned();
        (word("address").parse().expect("an address"), word("tls"))
    };
    assert_eq!(door(0), (relay.address, "off".into()));
    assert_eq!((door(1).1, door(2).1), ("only".into(), "optional".into()));
    streams_pass(&relay, &origin, "first");
    streams_pass(&through(&tunnel_to(door(1).0, &authority)), &origin, "second");
    streams_pass(&through(&tunnel_to(door(2).0, &authority)), &origin, "third");
    let (_, text) = Client::asking_to_publish(&Face { address: door(1).0, http: relay.http }, "live", "x").refused();
    assert!(text.contains("rtmps://"), "{text}");
    // TLS where it is off.
    let mut socket = TcpStream::connect(relay.address).expect("accepted");
    socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]).expect("written");
    relay.wait_ended("client", "tls_on_plain_port");
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_client_while_streams_go_on() {
    let (authority, dir, origin) = (Authority::new(), directory(), Origin::willing());
    let keys = serving(dir.path(), &authority.paper(&["localhost", "first.example"]), json!({ "tls_enabled": true }));
    let relay = Process::with(&origin.url(""), keys);
    let tunnel = tunnel_to(relay.address, &authority);
    let mut publisher = Client::publishing(&through(&tunnel), "live", "cam");
    let line = origin.line_of("cam");
    publisher.say(6, 0, kind::VIDEO, 1, &body(1, 5000));
    line.ear.wait_count(&[kind::VIDEO], 1);

    authority.paper(&["localhost", "second.example"]).put_into(dir.path());
    let names = |relay: &Process| relay.status()["listener"]["tls"]["names"].clone();
    wait_equal("names of the certificate", &json!(["localhost", "second.example"]), || names(&relay));
    publisher.say(6, 40, kind::VIDEO, 1, &body(2, 5000));
    line.ear.wait_count(&[kind::VIDEO], 2);
    let new = Tunnel::to(relay.address, "second.example", believing(&authority, None));
    streams_pass(&through(&new), &origin, "new");

    // A key of another certificate is not taken up.
    std::fs::write(dir.path().join("key.pem"), &authority.paper(&["localhost"]).key).expect("it can be written");
    wait_until("the bad pair is refused", || !relay.status()["listener"]["tls"]["last_error"].is_null());
    assert_eq!(names(&relay), json!(["localhost", "second.example"]));
    assert_eq!(relay.metric("rtmp_relay_tls_certificate_reloads_total{result=\"loaded\"}"), 1);
    assert_eq!(relay.metric("rtmp_relay_tls_certificate_reloads_total{result=\"refused\"}"), 1);
    let refused = relay.events("certificate_refused");
    assert!(refused[0]["error"].as_str().is_some_and(|error| error.contains("key.pem")), "{refused:?}");
    streams_pass(&through(&new), &origin, "still");
    publisher.say(6, 80, kind::VIDEO, 1, &body(3, 5000));
    line.ear.wait_count(&[kind::VIDEO], 3);
    let log = relay.log().join("\n");
    assert!(!log.contains("PRIVATE KEY"), "no key in the log");
}

#[test]
fn a_client_shows_a_certificate_where_one_is_asked_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (dir, origin) = (directory(), Origin::willing());
    let ca = dir.path().join("clients.pem");
    std::fs::write(&ca, &authority.pem).expect("it can be written");
    let asking = json!({ "tls_enabled": true, "tls_client_ca": ca });
    let relay = Relay::with(&origin.url(""), serving(dir.path(), &authority.paper(&["localhost"]), asking));
    let known = Tunnel::to(relay.address, "localhost", believing(&authority, Some(&authority.paper(&["encoder-1"]))));
    streams_pass(&through(&known), &origin, "cam");
    for paper in [None, Some(stranger.paper(&["encoder-1"]))] {
        let before = relay.ended("client", "tls_client_cert");
        let tunnel = Tunnel::to(relay.address, "localhost", believing(&authority, paper.as_ref()));
        let client = Client::hello(&through(&tunnel));
        wait_until("the client is turned away", || relay.ended("client", "tls_client_cert") > before);
        client.ended();
    }
    assert_eq!(relay.status()["listener"]["tls"]["client_certificates"], true);
}

#[test]
fn a_client_that_does_not_believe_the_certificate_is_told_from_others() {
    let (dir, origin) = (directory(), Origin::willing());
    let keys = serving(dir.path(), &Authority::new().paper(&["localhost"]), json!({ "tls_enabled": true }));
    let relay = Relay::with(&origin.url(""), keys);
    let tunnel = tunnel_to(relay.address, &Authority::new());
    let _client = Client::hello(&through(&tunnel));
    relay.wait_ended("client", "tls_untrusted");
    let mut nonsense = TcpStream::connect(relay.address).expect("accepted");
    nonsense.write_all(b"\x16\x03\x01\x00\x05hello").expect("written");
    relay.wait_ended("client", "tls_handshake");
}

#[test]
fn an_upstream_whose_certificate_fails_a_check_is_named_with_the_check() {
    let (authority, origin) = (Authority::new(), Origin::willing());
    let dir = directory();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("it can be written");
    for (paper, kind, words) in [
        (authority.old_paper(&["127.0.0.1"]), "tls_expired", "has expired, on 2002-01-01"),
        (Authority::new().paper(&["127.0.0.1"]), "tls_untrusted", "upstream_tls.ca_file"),
        (authority.paper(&["other.example"]), "tls_wrong_name", "but for other.example"),
    ] {
        let front = Tunnel::before(address(&origin), &paper);
        let url = format!("rtmps://{}/live/S3CRET-{{stream}}", front.address);
        let keys = json!({ "upstream_tls": { "ca_file": ca }, "retry": { "enabled": false } });
        let relay = Process::with(&url, keys);
        let (_, text) = Client::asking_to_publish(&relay, "live", "cam").refused();
        assert!(text.contains("the upstream cannot be reached"), "{text}");
        relay.wait_ended("upstream", kind);
        assert_eq!(relay.metric(&format!("rtmp_relay_upstream_errors_total{{error_type=\"{kind}\"}}")), 1);
        let failed = relay.events("upstream_dial_failed");
        assert!(failed.iter().any(|line| line["kind"] == kind && line["error"].as_str().is_some_and(|e| e.contains(words))));
        assert!(!relay.log().join("\n").contains("S3CRET"));

        // The same upstream, unchecked.
        let unchecked =
            json!({ "upstream": null, "upstreams": [{ "url": url.replace("S3CRET-", ""), "insecure_skip_verify": true }] });
        let mut keys = crate::relay::configured("", unchecked);
        keys.as_object_mut().expect("an object").remove("upstream");
        let relay = Process::spawn(std::process::Command::new(env!("CARGO_BIN_EXE_relay")), &keys);
        streams_pass(&relay, &origin, kind);
        assert_eq!(relay.status()["upstreams"][0]["tls"], "not_verified");
        let warned = relay.events("config_warning");
        assert!(warned.iter().any(|line| line["path"] == "upstreams[0].insecure_skip_verify"), "{warned:?}");
    }
    assert!(origin.count() > 0);
}

#[test]
fn an_upstream_that_does_not_speak_tls_is_not_waited_for() {
    let origin = Origin::willing();
    let url = origin.url("").replace("rtmp://", "rtmps://");
    let keys = json!({ "upstreams": [{ "url": url, "insecure_skip_verify": true }], "dial_timeout": "1s", "retry": { "enabled": false } });
    let mut keys = crate::relay::configured("", keys);
    keys.as_object_mut().expect("an object").remove("upstream");
    let relay = Process::spawn(std::process::Command::new(env!("CARGO_BIN_EXE_relay")), &keys);
    Client::asking_to_publish(&relay, "live", "cam").refused();
    wait_until("the dial has failed", || {
        let failed = relay.events("upstream_dial_failed");
        failed.iter().any(|line| ["tls_timeout", "tls_protocol", "tls_closed"].map(Value::from).contains(&line["kind"]))
    });
}

#[test]
fn status_is_served_in_private_too_and_in_http_1() {
    let (authority, dir, origin) = (Authority::new(), directory(), Origin::willing());
    let mut keys = serving(dir.path(), &authority.paper(&["localhost"]), json!({}));
    keys["http_tls"] = json!(true);
    let relay = Relay::with(&origin.url(""), keys);
    let mut config = believing(&authority, None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tunnel = Tunnel::to(relay.http, "localhost", config);
    let status = Face { address: relay.address, http: tunnel.address }.status();
    assert_eq!(status["listener"]["doors"][0]["tls"], "off");
    assert_eq!(status["listener"]["tls"]["names"], json!(["localhost"]));
    // Plain HTTP gets nothing there.
    let mut socket = TcpStream::connect(relay.http).expect("accepted");
    write!(socket, "GET /status HTTP/1.0\r\n\r\n").expect("written");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("listener"));
}
