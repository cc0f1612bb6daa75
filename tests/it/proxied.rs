//! Behind a load balancer, and in front of one: PROXY headers that are believed, those that are not, and those that we write.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, hello};
use crate::ear;
use crate::origin::Origin;
use crate::relay::{Face, Process, Relay};
use crate::wait::{pace, wait_equal, wait_until};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A relay that believes loopback.
fn trusting(more: Value) -> Value {
    let mut config = json!({ "security": { "trusted_proxies": ["127.0.0.0/8"], "upstream_allowed_networks": ["127.0.0.0/8"] } });
    for (section, keys) in more.as_object().cloned().unwrap_or_default() {
        let merged = config.as_object_mut().expect("an object").entry(section).or_insert(json!({}));
        match (merged.as_object_mut(), keys) {
            (Some(merged), Value::Object(keys)) => merged.extend(keys),
            (_, keys) => *merged = keys,
        }
    }
    config
}

fn v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let (family, reached) = if client.is_ipv4() { ("TCP4", "198.51.100.9") } else { ("TCP6", "2001:db8::9") };
    format!("PROXY {family} {} {reached} {} 1935\r\n", client.ip(), client.port()).into_bytes()
}

fn v2(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let port = client.port().to_be_bytes();
    let (family, addresses) = match client.ip() {
        std::net::IpAddr::V4(ip) => (0x11, [&ip.octets()[..], &[198, 51, 100, 9]].concat()),
        std::net::IpAddr::V6(ip) => (0x21, [ip.octets(), ip.octets()].concat()),
    };
    // As some balancers do, with a NOOP of three bytes behind it.
    let body = [&addresses[..], &port, &[0x07, 0x8F], &[4, 0, 3, 0, 0, 0]].concat();
    [V2, &[0x21, family, 0, u8::try_from(body.len()).expect("it is short")], &body].concat()
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// Connects and sends `first` before anything else.
fn opening(relay: &Face, first: &[u8]) -> Client {
    let mut client = Client::to(relay);
    client.write(first);
    client
}

fn publishing_as(relay: &Face, header: &[u8], stream: &str) -> Client {
    let mut client = opening(relay, &[header, &hello()].concat());
    client.connect("live").create_stream().publish(stream);
    client
}

#[test]
fn the_client_that_a_trusted_proxy_names_is_the_client_everywhere() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), trusting(json!({})));
    for (number, (header, client)) in [
        (v1("192.0.2.7:4001"), "192.0.2.7:4001"),
        (v2("192.0.2.7:4002"), "192.0.2.7:4002"),
        (v1("[2001:db8::7]:4003"), "[2001:db8::7]:4003"),
        (v2("[2001:db8::7]:4004"), "[2001:db8::7]:4004"),
        (v2("[::ffff:192.0.2.8]:4005"), "192.0.2.8:4005"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut publisher = publishing_as(&relay, &header, &format!("cam{number}"));
        publisher.started();
        let client: SocketAddr = client.parse().expect("an address");
        let row = relay.row(client);
        assert_eq!(row["proxy"], json!(publisher.address()), "{row}");
        assert_eq!(relay.row(publisher.address()), Value::Null, "the proxy is no client");
        publisher.leave();
        origin.line_of(&format!("cam{number}")).finish();
        let line = relay.closing_line(client);
        assert_eq!((&line["reason"], &line["proxy"]), (&json!("client_closed"), &json!(publisher.address().to_string())));
        let passes = relay.events("session_relaying");
        assert_eq!(passes[number]["client"], json!(client.to_string()));
    }
    let per_ip = relay.status()["connections"]["per_ip"].clone();
    assert!(!per_ip.to_string().contains("127.0.0.1"), "{per_ip}");
}

#[test]
fn a_header_may_come_in_pieces_and_nothing_behind_it_is_lost() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), trusting(json!({})));
    for header in [v1("192.0.2.7:4001"), v2("[2001:db8::7]:4002")] {
        // Everything up to publish in one write, so that it arrives with the header; then the header a byte at a time.
        publishing_as(&relay, &header, "whole").started();
        let mut client = Client::to(&relay);
        for byte in &header {
            client.write(&[*byte]);
            pace(Instant::now() + Duration::from_millis(1));
        }
        client.write(&hello());
        client.connect("live").create_stream().publish("pieces");
        client.started();
    }
}

#[test]
fn networks_and_limits_judge_the_client_not_its_proxy() {
    let origin = Origin::willing();
    let more = json!({
        "security": { "denied_clients": ["192.0.2.0/24"] },
        "connection_limit": { "max_per_ip": 1 },
        "rate_limit": { "enabled": true, "requests_per_sec": 0.001, "burst": 2 },
    });
    let relay = Relay::with(&origin.url(""), trusting(more));
    let (_, text) = publishing_as(&relay, &v2("192.0.2.7:4001"), "denied").refused();
    assert_eq!(text, "connection refused: this network is denied");
    let first = publishing_as(&relay, &v2("203.0.113.1:4001"), "one");
    first.started();
    let (_, text) = publishing_as(&relay, &v2("203.0.113.1:4002"), "two").refused();
    assert!(text.starts_with("connection limit reached: this address already has 1"), "{text}");
    let (_, text) = publishing_as(&relay, &v2("203.0.113.1:4003"), "three").refused();
    assert!(text.starts_with("rate limit reached"), "{text}");
    publishing_as(&relay, &v2("203.0.113.2:4001"), "other").started();
}

#[test]
fn a_proxy_that_must_send_a_header_and_does_not_is_refused_by_name() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), trusting(json!({})));
    let mut client = opening(&relay, &hello());
    client.ended();
    client.leave();
    assert_eq!(relay.outcome(client.address()), "relay proxy_missing rejected");
    let told = &relay.events("session_refused")[0];
    let text = told["message"].as_str().unwrap_or_default();
    assert!(text.contains("no PROXY header came from 127.0.0.1") && text.contains("send-proxy-v2"), "{told}");
    assert_eq!(relay.status()["connections"]["rejected"]["proxy_missing"], 1);
    assert_eq!(relay.metric("rtmp_relay_rejections_total{reason=\"proxy_missing\"}"), 1);
}

#[test]
fn where_a_header_is_optional_a_client_without_one_is_its_own_address() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), trusting(json!({ "security": { "proxy_protocol": "optional" } })));
    let direct = Client::publishing(&relay, "live", "direct");
    let row = relay.row(direct.address());
    assert_eq!((&row["state"], &row["proxy"]), (&json!("relaying"), &Value::Null));
    let proxied = publishing_as(&relay, &v1("192.0.2.7:4001"), "proxied");
    proxied.started();
    assert_eq!(relay.row("192.0.2.7:4001".parse().expect("an address"))["state"], "relaying");
}

#[test]
fn a_header_from_anybody_else_is_never_believed_and_the_refusal_says_where_to_name_the_proxy() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({ "security": { "trusted_proxies": ["192.0.2.0/24"] } }));
    for header in [v1("192.0.2.7:4001"), v2("192.0.2.7:4001")] {
        let mut client = Client::to(&relay);
        // In two pieces: half an opening is no reason to call it something else.
        client.write(&header[..4]);
        wait_until("the relay has looked", || relay.row(client.address())["state"] == "negotiating");
        client.write(&[&header[4..], &hello()].concat());
        client.ended();
        client.leave();
        assert_eq!(relay.outcome(client.address()), "relay proxy_untrusted rejected");
    }
    let told = relay.events("session_refused");
    assert_eq!(told.len(), 2);
    assert!(told[0]["message"].as_str().is_some_and(|text| text.contains("from 127.0.0.1") && text.contains("trusted_proxies")));
    assert_eq!(relay.status()["connections"]["rejected"]["proxy_untrusted"], 2);
    assert!(!relay.log().join("\n").contains("192.0.2.7"));
}

#[test]
fn a_load_balancer_s_checks_are_no_sessions_and_no_errors() {
    let origin = Origin::willing();
    // One connection of the balancer's own address, and no more: a check that counted would be refused.
    let more = json!({ "rate_limit": { "enabled": true, "requests_per_sec": 0.001, "burst": 1 }, "connection_limit": { "max_per_ip": 1 } });
    let relay = Process::with(&origin.url(""), trusting(more));
    let mut expected = 0;
    for first in [&b""[..], LOCAL, UNKNOWN, &v2("192.0.2.7:4001")] {
        let mut polite = opening(&relay, first);
        polite.leave();
        polite.ended();
        expected += 1;
        if !first.starts_with(&v2("192.0.2.7:4001")) {
            // haproxy ends its checks like this.
            let rude = opening(&relay, first);
            ear::reset(rude.socket, &rude.ear);
            expected += 1;
        }
    }
    // haproxy's own checks: a header that names its own end.
    let mut check = Client::to(&relay);
    check.write(&v2(&check.address().to_string()));
    check.leave();
    check.ended();
    expected += 1;
    wait_equal("empty connections", &expected, || relay.metric("rtmp_relay_empty_connections_total"));
    assert_eq!(relay.connections(), (0, 0, 0));
    let lines: Vec<_> =
        relay.log().into_iter().filter(|line| line.contains("\"client\"") && !line.contains("\"DEBUG\"")).collect();
    assert_eq!(lines, Vec::<String>::new());
}

#[test]
fn whoever_resets_before_the_first_byte_of_a_stream_is_no_error() {
    let origin = Origin::willing();
    for (config, first) in [(json!({}), Vec::new()), (trusting(json!({})), v2("192.0.2.7:4001"))] {
        let relay = Process::with(&origin.url(""), config);
        for _ in 0..20 {
            let rude = opening(&relay, &first);
            ear::reset(rude.socket, &rude.ear);
        }
        wait_equal("empty connections", &20, || relay.metric("rtmp_relay_empty_connections_total"));
        assert_eq!(relay.connections(), (0, 0, 0));
    }
}

#[test]
fn a_proxy_s_own_connection_is_judged_by_its_socket() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), trusting(json!({})));
    for (header, stream) in [(LOCAL, "one"), (UNKNOWN, "two")] {
        let client = publishing_as(&relay, header, stream);
        client.started();
        assert_eq!(relay.row(client.address())["proxy"], Value::Null);
    }
}

#[test]
fn a_broken_or_endless_header_ends_by_name() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), trusting(json!({ "handshake_timeout": "1s" })));
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat();
    let wide = [V2, &[0x21, 0x11, 0xFF, 0xFF], &[0; 4096]].concat();
    for (first, want) in [
        (&b"PROXY TCP4 192.0.2.7 192.0.2.1 4000\r\n"[..], "client proxy_malformed error"),
        (&long, "client proxy_malformed error"),
        (&wide, "client proxy_malformed error"),
        (&v2("192.0.2.7:4001")[..20], "client handshake_timeout error"),
        (b"PROXY TCP4 192.", "client handshake_timeout error"),
        (b"", "client handshake_timeout empty"),
        (LOCAL, "client handshake_timeout empty"),
    ] {
        let mut client = opening(&relay, first);
        client.ended();
        client.leave();
        assert_eq!(relay.outcome(client.address()), want, "{first:?}");
    }
    let mut cut = opening(&relay, &v1("192.0.2.7:4001")[..20]);
    cut.leave();
    assert_eq!(relay.outcome(cut.address()), "client client_left error");
}

/// An upstream that is only listened to, and takes the PROXY header off a connection.
struct Listening(TcpListener);

impl Listening {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }

    /// The first `length` bytes of the next connection.
    fn first(&self, length: usize) -> (Vec<u8>, TcpStream) {
        let (mut socket, _) = self.0.accept().expect("a connection");
        socket.set_read_timeout(Some(crate::wait::SOON)).expect("a socket takes a timeout");
        let mut first = vec![0; length];
        socket.read_exact(&mut first).expect("so many bytes come");
        (first, socket)
    }
}

#[test]
fn an_upstream_that_asks_for_it_is_told_whose_connection_it_is() {
    for version in ["v1", "v2"] {
        let upstream = Listening::start();
        let entry = json!([{ "url": format!("rtmp://{}", upstream.address()), "proxy_protocol": version }]);
        let relay = Process::with("", trusting(json!({ "upstream": null, "upstreams": entry })));
        let own: &[u8] = if version == "v1" { UNKNOWN } else { LOCAL };
        let (probe, mut socket) = upstream.first(own.len());
        assert_eq!(probe, own, "the relay's own look");
        assert_eq!(socket.read(&mut [0; 8]).ok(), Some(0), "and nothing behind it");
        let _publisher = publishing_as(&relay, &v2("192.0.2.7:4001"), "cam");
        let want = match version {
            "v1" => b"PROXY TCP4 192.0.2.7 198.51.100.9 4001 1935\r\n".to_vec(),
            _ => [V2, &[0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 9, 0x0F, 0xA1, 0x07, 0x8F]].concat(),
        };
        let (first, _socket) = upstream.first(want.len() + 1);
        assert_eq!((&first[..want.len()], first[want.len()]), (&want[..], 3), "the header, then C0");
        // A client that came by itself, over its own socket.
        let direct = publishing_as(&relay, UNKNOWN, "another");
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", direct.address().port(), relay.address.port());
        if version == "v1" {
            let (first, _socket) = upstream.first(line.len());
            assert_eq!(String::from_utf8_lossy(&first), line);
        }
    }
}

#[test]
fn two_relays_in_a_row_both_know_the_client() {
    let origin = Origin::willing();
    let back = Relay::with(&origin.url(""), trusting(json!({})));
    for (version, clients) in [("v1", ["192.0.2.7:4001", "[2001:db8::7]:4001"]), ("v2", ["192.0.2.7:4002", "[2001:db8::7]:4002"])]
    {
        let entry = json!([{ "url": format!("rtmp://{}", back.address), "proxy_protocol": version }]);
        let front = Relay::with("", trusting(json!({ "upstream": null, "upstreams": entry })));
        for client in clients {
            let publisher = publishing_as(&front, &v2(client), &format!("cam-{version}-{}", client.len()));
            publisher.started();
            assert_eq!(back.row(client.parse().expect("an address"))["state"], "relaying");
        }
    }
}
