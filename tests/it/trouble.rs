//! Upstreams that cannot be reached, or must not be: retry, the circuit, the guard, and what the waiting client hears.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::origin::{At, Deed, Origin, Script};
use crate::relay::{Face, Process, Relay};
use crate::wait::{pace, wait_equal, wait_until};

/// An address of this machine on which nobody listens. Of a network that nothing else uses, so that its port stays free.
fn nobody(last: u8) -> String {
    let listener = TcpListener::bind(format!("127.81.9.{last}:0")).expect("a free port");
    listener.local_addr().expect("a bound socket has an address").to_string()
}

fn merged(parts: &[Value]) -> Value {
    parts.iter().flat_map(|part| part.as_object().cloned().unwrap_or_default()).collect::<serde_json::Map<_, _>>().into()
}

fn no_retry() -> Value {
    json!({ "retry": { "enabled": false } })
}

fn breaker(max_failures: u32, reset_timeout_sec: f64) -> Value {
    json!({ "circuit_breaker": { "max_failures": max_failures, "reset_timeout_sec": reset_timeout_sec, "success_threshold": 1 } })
}

fn circuit(relay: &Face) -> String {
    relay.status()["circuit_breaker"]["targets"][0]["state"].as_str().unwrap_or_default().to_owned()
}

const UNREACHABLE: &str = "the upstream cannot be reached, try again later";

#[test]
fn an_upstream_that_nobody_is_at_is_tried_again_with_growing_waits_and_then_told() {
    let retry = json!({ "retry": { "max_attempts": 3, "initial_delay_sec": 0.2, "multiplier": 3.0, "jitter_fraction": 0.0 } });
    let relay = Process::with(&format!("rtmp://{}", nobody(1)), retry);
    let began = Instant::now();
    let mut client = Client::asking_to_publish(&relay, "live", "cam");
    wait_until("the client waits", || relay.row(client.address())["state"] == "dialing");
    assert_eq!(client.refused(), ("NetStream.Publish.Failed".into(), UNREACHABLE.into()));
    assert!(began.elapsed() >= Duration::from_millis(800), "0.2 s and 0.6 s were waited");
    assert_eq!(relay.outcome(client.address()), "upstream connect_refused error");
    let of_session = |line: &Value| line["session"] == 1;
    let failed: Vec<_> = relay.events("upstream_dial_failed").into_iter().filter(of_session).collect();
    assert_eq!(failed.iter().map(|line| line["attempt"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    assert!(failed.iter().all(|line| line["kind"] == "connect_refused"));
    assert_eq!(relay.events("upstream_retry").len(), 2);
    assert_eq!(relay.metric("rtmp_relay_upstream_retries_total"), 2);
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"connect_refused\"}"), 3);
    assert_eq!(relay.connections(), (0, 1, 0));
}

#[test]
fn a_client_does_not_notice_an_upstream_that_fails_once() {
    for deed in [Deed::Reset, Deed::Close] {
        // The first connection is the relay's own look.
        let origin =
            Origin::scripted(move |number| if number == 1 { Script::doing(At::Accept, deed) } else { Script::default() });
        let relay = Relay::with(&origin.url(""), json!({ "retry": { "initial_delay_sec": 0.05 } }));
        wait_until("the origin was looked at", || origin.count() == 1);
        Client::publishing(&relay, "live", "cam");
        assert_eq!(origin.count(), 3);
        // A reset may overtake the news that the connection stands.
        let errors = ["handshake", "connect_other"]
            .map(|kind| relay.metric(&format!("rtmp_relay_upstream_errors_total{{error_type=\"{kind}\"}}")));
        assert_eq!(errors.iter().sum::<u64>(), 1, "{errors:?}");
        wait_until("the success ends the row of failures", || relay.status()["circuit_breaker"]["targets"][0]["failures"] == 0);
    }
}

/// Whether the origin is to fail; in the hands of the test.
struct Mood(std::sync::Arc<std::sync::atomic::AtomicBool>);

/// An origin that closes every connection before its handshake, as long as its mood is bad.
fn moody(at: At, deed: Deed) -> (Origin, Mood) {
    let bad = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mood = Mood(std::sync::Arc::clone(&bad));
    let origin =
        Origin::scripted(
            move |_| {
                if bad.load(std::sync::atomic::Ordering::SeqCst) { Script::doing(at, deed) } else { Script::default() }
            },
        );
    (origin, mood)
}

impl Mood {
    fn heals(&self) {
        self.0.store(false, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn an_open_circuit_refuses_at_once_and_without_a_dial() {
    let (origin, mood) = moody(At::Accept, Deed::Close);
    let relay = Relay::with(&origin.url(""), merged(&[no_retry(), breaker(2, 60.0)]));
    wait_until("the origin was looked at", || origin.count() == 1);
    for failures in 1..=2 {
        assert_eq!(circuit(&relay), "closed");
        assert_eq!(Client::asking_to_publish(&relay, "live", "cam").refused().1, UNREACHABLE);
        assert_eq!(origin.count(), 1 + failures);
    }
    assert_eq!(circuit(&relay), "open");
    mood.heals();
    for _ in 0..3 {
        let (code, text) = Client::asking_to_play(&relay, "live", "cam").refused();
        assert_eq!((&code[..], &text[..]), ("NetStream.Play.Failed", UNREACHABLE));
    }
    relay.wait_ended("upstream", "circuit_open");
    assert_eq!(origin.count(), 3, "nobody dialled");
    let target = format!("rtmp_relay_circuit_state{{target=\"{}\"}}", origin.url(""));
    assert_eq!(relay.metric(&target), 2);
    let row = &relay.status()["circuit_breaker"]["targets"][0];
    assert!(row["retry_in_seconds"].as_f64().is_some_and(|s| s > 30.0 && s <= 60.0), "{row}");
}

#[test]
fn a_client_may_wait_for_an_open_circuit_and_closes_it() {
    let (origin, mood) = moody(At::Accept, Deed::Close);
    let relay = Relay::with(&origin.url(""), merged(&[breaker(1, 0.5), json!({ "retry": { "initial_delay_sec": 0.05 } })]));
    wait_until("the origin was looked at", || origin.count() == 1);
    let client = Client::asking_to_publish(&relay, "live", "cam");
    wait_until("the circuit is open", || circuit(&relay) == "open");
    mood.heals();
    client.started();
    assert_eq!(circuit(&relay), "closed");
    assert_eq!(relay.metric(&format!("rtmp_relay_circuit_state{{target=\"{}\"}}", origin.url(""))), 0);
}

#[test]
fn a_half_open_circuit_lets_one_probe_through_and_passes_the_place_on_when_its_client_leaves() {
    let origin = Origin::scripted(|number| match number {
        0 => Script::default(),
        1 => Script::doing(At::Accept, Deed::Close),
        2 => Script::doing(At::Connect, Deed::Stall),
        _ => Script::default(),
    });
    let more =
        merged(&[breaker(1, 0.1), json!({ "dial_timeout": "15s", "retry": { "max_attempts": 2, "initial_delay_sec": 0.05 } })]);
    let relay = Relay::with(&origin.url(""), more);
    wait_until("the origin was looked at", || origin.count() == 1);
    // Its first dial opens the circuit, its second is the probe, which gets no answer.
    let mut probing = Client::asking_to_publish(&relay, "live", "probe");
    origin.line_that_heard("connect", |m| m.is("connect"));
    assert_eq!(circuit(&relay), "half_open");
    let waiting: Vec<_> = (0..4).map(|n| Client::asking_to_publish(&relay, "live", &format!("cam{n}"))).collect();
    wait_until("all are waiting", || waiting.iter().all(|client| relay.row(client.address())["state"] == "dialing"));
    // Longer than they wait before they ask again.
    pace(Instant::now() + Duration::from_millis(600));
    assert_eq!(origin.count(), 3, "the probe is alone");
    probing.leave();
    for client in &waiting {
        client.started();
    }
    assert_eq!(circuit(&relay), "closed");
    assert_eq!(origin.count(), 7, "each had one dial");
}

#[test]
fn an_origin_that_refuses_by_command_is_well_and_its_circuit_stays_closed() {
    let no = Deed::Refuse("NetStream.Publish.BadName", "taken");
    for (at, deed) in [(At::Request, no), (At::Connect, no), (At::Request, Deed::Close), (At::Connect, Deed::Close)] {
        let origin = Origin::new(Script::doing(at, deed));
        let relay = Relay::with(&origin.url(""), breaker(1, 60.0));
        wait_until("the origin was looked at", || origin.count() == 1);
        for count in 1..=3 {
            Client::asking_to_publish(&relay, "live", "cam").refused();
            assert_eq!(origin.count(), 1 + count, "{at:?} {deed:?}: one dial each, and no second try");
        }
        assert_eq!(circuit(&relay), "closed", "{at:?} {deed:?}");
    }
}

#[test]
fn a_name_that_leads_into_a_network_that_is_not_allowed_is_never_dialled() {
    let origin = Origin::willing();
    let upstream = format!("rtmp://localhost:{}", origin.address.port());
    let relay = Process::with(&upstream, json!({ "security": { "upstream_allowed_networks": [] } }));
    let mut client = Client::asking_to_publish(&relay, "live", "cam");
    assert_eq!(client.refused().0, "NetStream.Publish.Failed");
    let outcome = relay.outcome(client.address());
    assert!(outcome.contains(" guard "), "{outcome}");
    let of_session = |line: &Value| line["session"] == 1;
    let failed: Vec<_> = relay.events("upstream_dial_failed").into_iter().filter(of_session).collect();
    assert_eq!(failed.len(), 1, "what policy refuses is not tried again");
    let error = failed[0]["error"].as_str().expect("a text");
    assert!(error.contains("loopback") && error.contains("\"upstream_allowed_networks\": ["), "{error}");
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"guard\"}"), 1);
    assert_eq!(origin.count(), 0, "not even the relay's own look");
    assert_eq!(circuit(&relay), "closed");
    // The same name, once its network is allowed.
    let relay = Relay::with(&upstream, json!({ "security": { "upstream_allowed_networks": ["127.0.0.0/8", "::1/128"] } }));
    Client::publishing(&relay, "live", "cam");
}

#[test]
fn a_relay_does_not_relay_to_itself() {
    let own = nobody(2);
    let relay = Process::with(&format!("rtmp://{own}"), json!({ "listen_addr": own }));
    let mut client = Client::asking_to_publish(&relay, "live", "cam");
    assert_eq!(client.refused().0, "NetStream.Publish.Failed");
    let outcome = relay.outcome(client.address());
    assert!(outcome.contains(" self "), "{outcome}");
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"self\"}"), 1);
    let failed = relay.events("upstream_dial_failed");
    assert!(failed.iter().any(|line| line["error"].as_str().is_some_and(|e| e.contains("does not relay to itself"))));
}

#[test]
fn a_name_without_an_address_is_an_upstream_error_of_its_own() {
    let relay = Relay::with("rtmp://no-such-host.invalid", merged(&[no_retry(), json!({ "dial_timeout": "1s" })]));
    let mut client = Client::asking_to_publish(&relay, "live", "cam");
    assert_eq!(client.refused().1, UNREACHABLE);
    relay.wait_ended("upstream", "dns");
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"dns\"}"), 1);
}

#[test]
fn an_upstream_that_does_not_speak_rtmp_or_breaks_it_is_a_failed_dial() {
    let garbage = |number: usize| match number {
        0 => Script::default(),
        _ => Script { replay: Some([vec![0xC3; 100], Vec::new(), Vec::new()]), ..Script::default() },
    };
    let origin = Origin::scripted(garbage);
    let relay = Relay::with(&origin.url(""), merged(&[no_retry(), breaker(1, 60.0)]));
    wait_until("the origin was looked at", || origin.count() == 1);
    assert_eq!(Client::asking_to_publish(&relay, "live", "cam").refused().0, "NetStream.Publish.Failed");
    assert_eq!(relay.metric("rtmp_relay_upstream_errors_total{error_type=\"protocol\"}"), 1);
    wait_equal("the circuit", &"open".to_owned(), || circuit(&relay));
}

#[test]
fn an_upstream_that_breaks_the_protocol_while_it_streams_ends_the_session_by_name() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let mut client = Client::playing(&relay, "live", "cam");
    origin.line_of("cam").write(&[0xC9; 40]);
    relay.wait_ended("upstream", "upstream_protocol_error");
    client.ended();
    assert_eq!(client.ear.record().wrong, None, "nothing of it reaches the client");
    client.leave();
}
