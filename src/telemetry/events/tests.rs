//! Each happening as the operator sees it: its line, and what it counts.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::config::{Log, LogFormat, LogLevel, LogOutput, StreamNames};
use crate::telemetry::{SessionCell, SessionId, Side, Status, logging};

/// Collects what is written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn settings(format: LogFormat, level: LogLevel) -> Log {
    Log { format, level, output: LogOutput::Stderr, stream_names: StreamNames::Masked, fingerprint_key: None }
}

fn text(log: &Log, act: impl FnOnce(&Telemetry)) -> String {
    let lines = Lines::default();
    logging::hear(log, lines.clone(), || act(&Telemetry::new(log)));
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// The lines that `act` writes, every one of them JSON.
fn written(act: impl FnOnce(&Telemetry)) -> Vec<Value> {
    text(&settings(LogFormat::Json, LogLevel::Debug), act).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn line(event: impl Event) -> Value {
    let mut lines = written(|telemetry| telemetry.emit(event));
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4000);
const TARGET: &str = "rtmp://origin.example:1935/live";

fn cell() -> SessionCell {
    let cell = SessionCell::new(SessionId(7), CLIENT, Instant::now(), SystemTime::now());
    cell.learn(|facts| {
        facts.protocol = Some("rtmp");
        facts.action = Some("publish");
        facts.app = Some("live".into());
        facts.stream = Some("se…#0123456789".into());
        facts.fingerprint = Some("0123456789".into());
        facts.token_name = Some("studio".into());
        facts.upstream = Some(TARGET.into());
        facts.upstream_addr = Some(([198, 51, 100, 1], 1935).into());
    });
    cell.to_upstream.bytes.add(1000);
    cell
}

fn ended(cell: &SessionCell, status: Status, relayed: bool) -> SessionEnded<'_> {
    let now = cell.started + Duration::from_millis(1500);
    SessionEnded { cell, side: Side::Client, reason: "client_closed", status, relayed, detail: None, now }
}

/// Value of a sample of /metrics, zero where there is none.
fn metric(telemetry: &Telemetry, sample: &str) -> f64 {
    let all = prometheus::TextEncoder::new().encode_to_string(&telemetry.metrics().registry().gather()).unwrap();
    let value = all.lines().find_map(|line| line.strip_prefix(sample).and_then(|rest| rest.strip_prefix(' ')));
    value.unwrap_or_else(|| panic!("{sample} is not in\n{all}")).parse().unwrap()
}

#[test]
fn every_happening_is_one_flat_line_with_its_name_and_its_session() {
    let (cell, error) = (cell(), io::Error::other("no route"));
    let session = SessionId(7);
    let relaying = line(SessionRelaying { cell: &cell, setup: Duration::from_millis(42) });
    let lines = [
        (line(SessionRefused { session, client: CLIENT, reason: "max_total", text: "full" }), "session_refused"),
        (line(AuthFailed { session, client: CLIENT, action: "publish", text: "the token is missing" }), "auth_failed"),
        (line(AddressFilled { session, client: CLIENT }), "address_filled"),
        (relaying.clone(), "session_relaying"),
        (line(ended(&cell, Status::Success, true)), "session_ended"),
        (
            line(UpstreamDialFailed { session: Some(session), target: TARGET, kind: "dns", error: &error, attempt: 1 }),
            "upstream_dial_failed",
        ),
        (
            line(UpstreamConnected {
                session: Some(session),
                target: TARGET,
                address: CLIENT,
                latency: Duration::ZERO,
                tls: None,
            }),
            "upstream_connected",
        ),
        (line(UpstreamLost { session, target: TARGET, error: &error }), "upstream_lost"),
        (line(UpstreamRefused { session, target: TARGET, code: "NetStream.Publish.BadName" }), "upstream_refused"),
        (line(UpstreamRetry { session, target: Some(TARGET), attempt: 2, delay: Duration::from_secs(1) }), "upstream_retry"),
        (line(Panicked { place: "session", session: Some(session) }), "panic"),
    ];
    for (line, event) in &lines {
        assert_eq!((&line["event"], &line["session"]), (&json!(event), &json!(7)), "{line}");
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
        let at = line["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(at).is_ok() && at.ends_with('Z'), "{at}");
        assert!(line.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array()), "{line}");
    }
    assert_eq!(relaying["fingerprint"], "0123456789");
    assert_eq!((&relaying["token"], &relaying["upstream_addr"]), (&json!("studio"), &json!("198.51.100.1:1935")));
    assert_eq!(relaying["setup_ms"], 42);
}

#[test]
fn happenings_of_the_service_have_lines_too() {
    let error = io::Error::other("too many open files");
    let lines = [
        (line(Started { workers: 2 }), "started"),
        (line(Listening { address: CLIENT, tls: "off" }), "listening"),
        (line(HttpListening { address: CLIENT, open: true }), "http_listening"),
        (line(AcceptFailed { error: &error }), "accept_failed"),
        (line(SocketRefused { client: CLIENT, reason: "hard_cap" }), "socket_refused"),
        (line(UpstreamCircuit { target: TARGET, from: "closed", to: "open", failures: 5 }), "upstream_circuit"),
        (line(UpstreamHealth { target: TARGET, healthy: false, kind: Some("dns"), error: Some("no name") }), "upstream_health"),
        (line(DrainStarted { active: 3, delay: Duration::ZERO, timeout: Duration::from_secs(30) }), "drain_started"),
        (line(DrainFinished { ended: 2, reconnected: 0, closed: 0, cut: 1 }), "drain_finished"),
        (line(ConfigWarning { path: "hold.max", text: "odd" }), "config_warning"),
        (line(Stopped { code: 0 }), "stopped"),
    ];
    for (line, event) in &lines {
        assert_eq!(&line["event"], event, "{line}");
    }
    assert!(lines[2].0["hint"].as_str().unwrap().contains("http_allowed_networks"));
}

#[test]
fn the_closing_line_says_who_why_how_long_and_how_much() {
    let line = line(ended(&cell(), Status::Success, true));
    let want = json!({ "side": "client", "reason": "client_closed", "status": "success", "duration_ms": 1500,
        "bytes_upstream": 1000, "bytes_downstream": 0, "client": "192.0.2.1:4000", "stream": "se…#0123456789" });
    for (field, value) in want.as_object().unwrap() {
        assert_eq!(&line[field], value, "{field} in {line}");
    }
}

#[test]
fn each_accepted_socket_counts_once_at_its_end() {
    let (telemetry, cell) = (Telemetry::silent(), cell());
    for (status, relayed) in [(Status::Success, true), (Status::Error, false), (Status::Rejected, false), (Status::Empty, false)]
    {
        telemetry.emit(ended(&cell, status, relayed));
    }
    telemetry.emit(SocketRefused { client: CLIENT, reason: "hard_cap" });
    let count = |sample: &str| metric(&telemetry, sample);
    assert_eq!(count("rtmp_relay_connections_total{status=\"success\"}"), 1.0);
    assert_eq!(count("rtmp_relay_connections_total{status=\"error\"}"), 1.0);
    assert_eq!(count("rtmp_relay_connections_total{status=\"rejected\"}"), 2.0);
    assert_eq!(count("rtmp_relay_empty_connections_total"), 1.0);
    assert_eq!(count("rtmp_relay_connection_duration_seconds_count"), 2.0, "refusals would hide how long streams run");
    assert_eq!(count("rtmp_relay_sessions_ended_total{reason=\"client_closed\",side=\"client\"}"), 4.0);
}

#[test]
fn a_refusal_counts_by_its_reason_and_in_the_sum_it_belongs_to() {
    let telemetry = Telemetry::silent();
    for reason in ["rate_limit", "max_total", "max_per_ip", "denied_network"] {
        telemetry.emit(SessionRefused { session: SessionId(1), client: CLIENT, reason, text: "" });
    }
    telemetry.emit(AuthFailed { session: SessionId(1), client: CLIENT, action: "play", text: "" });
    telemetry.emit(SocketRefused { client: CLIENT, reason: "hard_cap" });
    let count = |sample: &str| metric(&telemetry, sample);
    assert_eq!(count("rtmp_relay_rate_limit_rejections_total"), 1.0);
    assert_eq!(count("rtmp_relay_connection_limit_rejections_total"), 3.0);
    assert_eq!(count("rtmp_relay_auth_failures_total"), 1.0);
    for reason in ["rate_limit", "max_total", "max_per_ip", "denied_network", "auth", "hard_cap"] {
        assert_eq!(count(&format!("rtmp_relay_rejections_total{{reason=\"{reason}\"}}")), 1.0, "{reason}");
    }
}

#[test]
fn a_circuit_and_a_connect_show_in_their_metrics() {
    let telemetry = Telemetry::silent();
    telemetry.metrics().set_targets([TARGET]);
    let sample = format!("rtmp_relay_circuit_state{{target=\"{TARGET}\"}}");
    assert_eq!(metric(&telemetry, &sample), 0.0);
    telemetry.emit(UpstreamCircuit { target: TARGET, from: "closed", to: "open", failures: 5 });
    assert_eq!(metric(&telemetry, &sample), 2.0);
    telemetry.emit(UpstreamCircuit { target: TARGET, from: "open", to: "half_open", failures: 5 });
    assert_eq!(metric(&telemetry, &sample), 1.0);
    let sample = format!("rtmp_relay_upstream_healthy{{upstream=\"{TARGET}\"}}");
    assert_eq!(metric(&telemetry, &sample), 1.0, "the best is assumed");
    telemetry.emit(UpstreamHealth { target: TARGET, healthy: false, kind: None, error: None });
    assert_eq!(metric(&telemetry, &sample), 0.0);
    let latency = Duration::from_millis(20);
    telemetry.emit(UpstreamConnected { session: None, target: TARGET, address: CLIENT, latency, tls: Some(latency) });
    assert_eq!(metric(&telemetry, "rtmp_relay_upstream_connect_duration_seconds_bucket{le=\"0.025\"}"), 1.0);
    assert_eq!(metric(&telemetry, "rtmp_relay_upstream_connect_duration_seconds_bucket{le=\"0.01\"}"), 0.0);
}

#[test]
fn a_connection_is_active_until_it_is_dropped() {
    let telemetry = Telemetry::silent();
    let open = [telemetry.metrics().connection_opened(), telemetry.metrics().connection_opened()];
    assert_eq!(metric(&telemetry, "rtmp_relay_active_connections"), 2.0);
    drop(open);
    assert_eq!(metric(&telemetry, "rtmp_relay_active_connections"), 0.0);
}

#[test]
fn a_flood_of_refusals_writes_ten_lines_and_a_sum_while_closing_lines_are_all_written() {
    let cell = cell();
    let lines = written(|telemetry| {
        for _ in 0..1000 {
            telemetry.emit(SessionRefused { session: SessionId(1), client: CLIENT, reason: "rate_limit", text: "too often" });
            telemetry.emit(ended(&cell, Status::Success, true));
        }
        telemetry.flush(Instant::now() + Duration::from_secs(1));
        assert_eq!(metric(telemetry, "rtmp_relay_rejections_total{reason=\"rate_limit\"}"), 1000.0, "all are counted");
    });
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).count() as u64;
    assert_eq!(of("session_ended"), 1000);
    let sums: Vec<_> = lines.iter().filter(|line| line["event"] == "lines_suppressed").collect();
    let kept_back: u64 = sums.iter().map(|sum| sum["count"].as_u64().unwrap()).sum();
    assert_eq!(of("session_refused") + kept_back, 1000);
    let last = sums.last().unwrap();
    assert_eq!((&last["about"], &last["reason"]), (&json!("session_refused"), &json!("rate_limit")));
    assert!(last["top"].as_str().unwrap().starts_with("192.0.2.1 ("), "{last}");
}

#[test]
fn a_refused_session_s_end_is_no_second_line_at_the_usual_level() {
    let cell = cell();
    let log = settings(LogFormat::Json, LogLevel::Info);
    let ends = |status, relayed| text(&log, |telemetry| telemetry.emit(ended(&cell, status, relayed))).lines().count();
    assert_eq!(ends(Status::Rejected, false), 0, "the refusal was told");
    assert_eq!(ends(Status::Empty, false), 0, "a load balancer's check");
    assert_eq!(ends(Status::Error, false), 1);
    assert_eq!(ends(Status::Rejected, true), 1, "whoever relayed gets a closing line");
}

#[test]
fn names_of_peers_cannot_break_a_line() {
    let cell = cell();
    cell.learn(|facts| facts.stream = Some("a\n{\"event\":\"fake\"}\u{1b}[31m".into()));
    let lines = written(|telemetry| telemetry.emit(ended(&cell, Status::Success, true)));
    assert_eq!(lines.len(), 1);
    let as_text = text(&settings(LogFormat::Text, LogLevel::Info), |telemetry| {
        telemetry.emit(ended(&cell, Status::Success, true));
    });
    assert_eq!(as_text.lines().count(), 1, "{as_text:?}");
    assert!(!as_text.contains('\u{1b}'), "no colours where nobody looks, and none by a peer: {as_text:?}");
}

#[test]
fn libraries_are_heard_from_warn_up() {
    let said = text(&settings(LogFormat::Json, LogLevel::Debug), |_| {
        tracing::info!(target: "actix_server::builder", "starting 1 workers");
        tracing::warn!(target: "actix_server::accept", "odd");
    });
    assert_eq!(said.lines().count(), 1, "{said}");
}
