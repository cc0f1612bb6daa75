//! Threats of docs/THREAT_MODEL.md that no other file here is about: what a peer says about hosts, addresses and itself leads nobody
//! anywhere and into no log line.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::amf::{obj, s};
use crate::client::Client;
use crate::origin::{At, Deed, Origin, Script};
use crate::relay::{Process, Relay, configured};
use crate::wait::wait_until;

#[test]
fn a_host_in_a_client_s_url_is_never_dialled() {
    let (origin, elsewhere) = (Origin::willing(), Origin::willing());
    let relay = Relay::to(&origin.url(""));
    let mut client = Client::hello(&relay);
    let tc_url = elsewhere.url("/live");
    let connect =
        obj(&[("app", s("live")), ("tcUrl", s(&tc_url)), ("swfUrl", s(&format!("{tc_url}/p.swf"))), ("pageUrl", s(&tc_url))]);
    client.command(3, 0, "connect", &[connect]);
    client.create_stream().publish(&format!("cam?vhost={}&url={tc_url}", elsewhere.url("").trim_start_matches("rtmp://")));
    client.started();
    let line = origin.line_that_heard("a publish", |message| message.is("publish"));
    let heard = line.ear.wait_command("connect").command().expect("a command");
    assert_eq!(heard.2[0].get("tcUrl"), Some(&s(&origin.url("/live"))), "the host is the upstream's");
    assert_eq!(elsewhere.count(), 0, "nobody was dialled but the upstream");
}

#[test]
fn a_page_in_a_browser_cannot_speak_to_streams() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({}));
    wait_until("the upstream was looked at", || origin.count() > 0);
    let looked = origin.count();
    // What a form or fetch() may send: a request of its own, with any body.
    let rtsp = "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\nDESCRIBE rtsp://h/live/cam RTSP/1.0\r\nCSeq: 2\r\n\r\n";
    for path in ["/", "/live", "/DESCRIBE", "/%0d%0aDESCRIBE"] {
        let mut client = Client::to(&relay);
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: relay\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", rtsp.len());
        client.write([head.as_bytes(), rtsp.as_bytes()].concat().as_slice());
        client.ended();
        let heard = String::from_utf8_lossy(&client.ear.record().hello).into_owned();
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 404 ") && !heard.contains("RTSP/1.0"), "{heard}");
        client.leave();
        assert_eq!(relay.outcome(client.address()), "client http_on_rtmp_port error");
    }
    assert_eq!(origin.count(), looked, "no upstream was dialled for it");
}

/// A whole answer of `http_addr`.
fn asked(relay: &Process, headers: &str) -> String {
    let mut socket = TcpStream::connect(relay.http).expect("HTTP listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    write!(socket, "GET /status HTTP/1.0\r\nHost: relay\r\n{headers}\r\n").expect("it is sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn whoever_asks_for_a_page_is_who_its_socket_says_and_no_other_site_may_read_the_answer() {
    let origin = Origin::willing();
    let open = Process::with(&origin.url(""), json!({}));
    let answer = asked(&open, "Origin: http://evil.example\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("access-control-"), "a browser keeps it from the page");
    let closed = Process::with(&origin.url(""), json!({ "http_allowed_networks": ["192.0.2.0/24"] }));
    for header in ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1", "X-Client-IP: 192.0.2.1"] {
        let answer = asked(&closed, &format!("{header}\r\n"));
        assert_eq!(answer.split(' ').nth(1), Some("403"), "{header}");
    }
}

/// A client that has said `bytes`.
fn saying(relay: &Process, bytes: &[u8]) -> Client {
    let mut client = Client::to(relay);
    client.write(bytes);
    client
}

/// A line of a log that nobody but the relay has written: no control character, nothing that moves what is shown beside it.
fn assert_is_one_line(line: &str) {
    let turns =
        |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!line.contains(turns), "{line:?}");
}

#[test]
fn what_peers_call_themselves_breaks_no_line_of_the_log() {
    const FAKE: &str = "x\r\n{\"event\":\"forged\"}\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31m\u{202e}\u{2028}\u{85}";
    for format in ["json", "text"] {
        let refuse = Deed::Refuse(FAKE, FAKE);
        let origin = Origin::new(Script::doing(At::Request, refuse));
        let more = |format: &str| json!({ "log": { "level": "trace", "format": format, "stream_names": "plain" }, "retry": { "enabled": false } });
        let relay = Process::with(&origin.url(""), more("json"));
        relay.rewrite(&configured(&origin.url(""), more(format)).to_string());
        relay.signal(Signal::HUP);
        wait_until("the log is as it should be", || {
            let reloaded = relay.status()["config"]["last_reload"]["by"] == "signal";
            reloaded && (format == "json" || relay.log().iter().any(|line| !line.starts_with('{')))
        });
        // A name without ASCII's control characters is allowed, and upstreams may say what they like.
        let mut odd = Client::asking_to_publish(&relay, "live", "cam\u{202e}\u{2028}\u{85}\"forged\"");
        odd.refused();
        let mut client = Client::hello(&relay);
        let said = obj(&[("app", s("live\u{85}")), ("flashVer", s(FAKE)), ("tcUrl", s(FAKE)), ("pageUrl", s(FAKE))]);
        client.command(3, 0, "connect", &[said]);
        client.create_stream().publish(FAKE);
        client.refused();
        let http = saying(&relay, b"GET /\x1b[31m\xe2\x80\xae HTTP/1.1\r\nHost: \x1b[31m\r\nUser-Agent: \x1b[31m\r\n\r\n");
        http.ended();
        let describe = "DESCRIBE rtsp://h/live/cam\u{202e} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: \u{202e}x\r\n\r\n";
        let rtsp = saying(&relay, describe.as_bytes());
        rtsp.ended();
        wait_until("all four are told of", || relay.log().iter().filter(|line| line.contains("session_ended")).count() >= 4);
        for line in relay.log() {
            assert_is_one_line(&line);
            let own = match serde_json::from_str::<Value>(&line) {
                Ok(line) => line["event"] != "forged",
                Err(_) => format == "text" && line.starts_with("20") && !line.starts_with("2026-01-01"),
            };
            assert!(own, "{line:?}");
        }
    }
}
