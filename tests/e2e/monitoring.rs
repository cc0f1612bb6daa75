//! Does every panel of the dashboard show something, and does every alert know what it watches? A real Prometheus asks a relay
//! that has work to do.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use relay::origin::Origin;
use serde_json::{Value, json};

use crate::clip;
use crate::peers::{Player, Prometheus, Publisher, Receiver, Sender, Take};
use crate::process::{Running, workdir};
use crate::relay::Relay;
use crate::wait::{CLIP, SOON, wait_for, wait_until};

/// What the questions of the dashboard are, in their order.
const ROWS: [&str; 7] = [
    "Is it up?",
    "Who is on?",
    "Are streams healthy?",
    "Is the upstream healthy?",
    "Who is being turned away?",
    "What does it cost?",
    "What did somebody change?",
];
/// Percentiles of what does not happen here are no number: this upstream speaks no TLS, and never goes away.
const QUIET: [&str; 2] = ["rtmp_relay_upstream_tls_duration_seconds", "rtmp_relay_publish_hold_duration_seconds"];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn dashboard() -> Value {
    let text = fs::read_to_string(project("grafana/dashboards/relay.json")).expect("the dashboard");
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// (panel, query) of all panels, in the order of the page.
fn questions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut questions = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a panel has a title");
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(panel["type"] == "row" || !targets.is_empty(), "the panel {title:?} asks nothing");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "relay-prometheus", "{title}: as provisioned");
            questions.push((title.to_owned(), target["expr"].as_str().expect("a query").to_owned()));
        }
    }
    questions
}

/// The query as Grafana would send it for all relays.
fn filled_in(query: &str) -> String {
    // All of this test lies in one minute.
    let filled = query.replace("$__rate_interval", "1m").replace("$job", "relay").replace("$instance", ".*");
    assert!(!filled.contains('$'), "{query} has a variable that this test does not know");
    filled
}

/// The names of our metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("rtmp_relay_") || word.starts_with("process_")).map(str::to_owned).collect()
}

fn names(data: &Value) -> BTreeSet<String> {
    data.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// A publisher, a player, a stream that has ended, and clients that are turned away.
struct Load {
    _publisher: Publisher,
    _player: Player,
    _sockets: Vec<TcpStream>,
}

impl Load {
    /// For a relay that lets four connections of an address in.
    fn on(relay: &Relay) -> Self {
        let url = |stream: &str| format!("rtmp://{}/live/{stream}", relay.address());
        let long = Take { clip: clip::small(), times: 100, ..Take::live() };
        let publisher = Publisher::start(Sender::Ffmpeg, &url("cam"), long);
        relay.wait_for_active(1);
        let player = Player::start(Receiver::Ffmpeg, &url("cam"));
        relay.wait_for_active(2);
        Publisher::start(Sender::Ffmpeg, &url("short"), Take::unpaced()).succeed();
        // Two places are left, and are taken without a word; whoever comes then is refused.
        let sockets: Vec<TcpStream> = (0..6).map(|_| TcpStream::connect(relay.address()).expect("the relay accepts")).collect();
        wait_until("some are refused", SOON, || {
            relay.metric("rtmp_relay_connection_limit_rejections_total").is_some_and(|count| count > 0.0)
        });
        relay.status();
        Self { _publisher: publisher, _player: player, _sockets: sockets }
    }
}

/// Why the query shows nothing; `None` where it shows something.
fn trouble(prometheus: &Prometheus, query: &str) -> Option<String> {
    match prometheus.ask(&filled_in(query)) {
        Err(error) => Some(error),
        Ok(values) if values.is_empty() => Some("no series".to_owned()),
        Ok(values) if values.iter().any(|value| !value.is_nan()) => None,
        Ok(_) => {
            let quiet = metrics(query).iter().any(|metric| QUIET.iter().any(|quiet| metric.starts_with(quiet)));
            (!quiet).then(|| "no number".to_owned())
        }
    }
}

#[test]
fn every_panel_shows_something_and_every_alert_watches_what_there_is() {
    let questions = questions();
    assert!(questions.len() > 40, "{questions:?}");
    let origin = Origin::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("loopback has a free port");
    let relay = Relay::start(&origin.addr().to_string(), json!({ "connection_limit": { "max_per_ip": 4 } }));
    let prometheus = Prometheus::watching(relay.http());
    // A rate is what has changed since Prometheus looked first.
    wait_until("Prometheus has looked at the relay", SOON, || prometheus.ask("up{job=\"relay\"}") == Ok(vec![1.0]));
    let _load = Load::on(&relay);
    for (title, query) in &questions {
        let mut last = None;
        wait_until(&format!("the panel {title:?} shows something for {query}"), CLIP, || {
            let now = trouble(&prometheus, query);
            if now != last {
                println!("{title}: {}", now.as_deref().unwrap_or("shows something"));
                last.clone_from(&now);
            }
            now.is_none()
        });
    }
    for (title, query) in &questions {
        println!("{title}: {:?}", prometheus.ask(&filled_in(query)));
    }
    let known = names(&prometheus.api("label/__name__/values").expect("Prometheus knows names"));
    let variables = dashboard()["templating"]["list"].to_string();
    let asked = questions.iter().map(|(_, query)| query.as_str()).chain([variables.as_str()]);
    for name in asked.flat_map(metrics) {
        assert!(known.contains(&name), "the dashboard asks for {name}, which the relay does not tell");
    }
    let rules = wait_for("all rules have been evaluated", SOON, || {
        let groups = prometheus.api("rules").ok()?["groups"].clone();
        let rules: Vec<Value> =
            groups.as_array()?.iter().flat_map(|group| group["rules"].as_array()).flatten().cloned().collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    assert!(rules.len() >= 10);
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        for name in metrics(rule["query"].as_str().expect("a rule has a query")) {
            assert!(known.contains(&name), "{} watches {name}, which the relay does not tell", rule["name"]);
        }
    }
    let bad = ["RelayDown", "RelayCircuitOpen", "RelayUpstreamUnreachable", "RelayPanics", "RelayCannotAccept"];
    let pending = rules.iter().filter(|rule| rule["state"] != "inactive").filter_map(|rule| rule["name"].as_str());
    let false_alarms: Vec<&str> = pending.filter(|name| bad.contains(name)).collect();
    assert!(false_alarms.is_empty(), "nothing of the kind has happened: {false_alarms:?}");
}

#[test]
fn the_dashboard_answers_its_questions_in_order() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let rows: Vec<&str> = panels.iter().filter(|panel| panel["type"] == "row").filter_map(|row| row["title"].as_str()).collect();
    assert_eq!(rows, ROWS);
    let tops = panels.iter().map(|panel| panel["gridPos"]["y"].as_u64().expect("a place"));
    assert!(tops.is_sorted(), "panels stand in the order in which they are listed");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "Grafana wants each id once");
    let provisioned = fs::read_to_string(project("grafana/provisioning/datasources/prometheus.yml")).expect("the data source");
    assert!(provisioned.contains("uid: relay-prometheus"));
}

/// promtool plays hours through, on however little processor is left for it.
const PATIENT: Duration = Duration::from_secs(180);

#[test]
fn alerts_come_when_they_must_and_only_then() {
    let dir = workdir("promtool");
    let promtool = |args: &[&str]| {
        let mut command = Command::new("promtool");
        Running::start("promtool", command.args(args).current_dir(project("prometheus")), dir.path()).succeed(PATIENT);
    };
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
}

#[test]
fn every_alert_is_tried_and_explained() {
    let read = |path: &str| fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (alerts, tests, page) = (read("prometheus/alerts.yml"), read("prometheus/alerts_test.yml"), read("docs/OPERATIONS.md"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 10);
    for name in names {
        assert!(tests.contains(name), "prometheus/alerts_test.yml does not try {name}");
        assert!(page.contains(&format!("| `{name}` |")), "docs/OPERATIONS.md does not say what to do about {name}");
    }
}
