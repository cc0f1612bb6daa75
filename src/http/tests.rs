//! The server over its socket, before real actors.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use actix::{Actor, Addr, Context, Handler, MessageResult, ResponseFuture};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::status::{Choice, Clocks, Page};
use super::*;
use crate::admission::{Permit, RateLimiter, Refusal, Supervisor, Tally, rate_limiter, supervisor};
use crate::config::{CircuitBreaker, ConnectionLimit, RateLimit};
use crate::telemetry::{MetricsCollector, SessionCell, SessionId, State, Telemetry, WorkerTraffic, collector, labels};
use crate::upstream::vital::{Rules, Trouble, Vital};
use crate::upstream::{DialError, NoRoute, TargetId, UpstreamBreaker, UpstreamView, breaker};

const TARGET: &str = "rtmp://origin.example:1935/live";

/// Every control actor, and what they are asked by.
struct House {
    sources: Sources,
    supervisor: Addr<Supervisor>,
    rate_limiter: Addr<RateLimiter>,
    collector: Addr<MetricsCollector>,
    upstream_down: Arc<Mutex<Option<String>>>,
    permits: Vec<Permit>,
}

/// What /status says of the certificate.
fn certificate() -> tls::Standing {
    tls::Standing {
        certificate: tls::Certificate {
            names: vec!["relay.example.com".into()],
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
        },
        loaded_at: SystemTime::UNIX_EPOCH,
        last_error: Some("the file key.pem does not exist".into()),
        client_certificates: false,
    }
}

/// Stands for a ConnectionActor.
struct Session;

impl Actor for Session {
    type Context = Context<Self>;
}

impl Handler<supervisor::Kick> for Session {
    type Result = ();

    fn handle(&mut self, _: supervisor::Kick, _: &mut Self::Context) {}
}

/// Never answers.
struct Silent;

impl Actor for Silent {
    type Context = Context<Self>;
}

impl Handler<breaker::Snapshot> for Silent {
    type Result = ResponseFuture<breaker::BreakerSnapshot>;

    fn handle(&mut self, _: breaker::Snapshot, _: &mut Self::Context) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

/// Counts how often it is asked.
struct Counting(Arc<AtomicUsize>);

impl Actor for Counting {
    type Context = Context<Self>;
}

impl Handler<breaker::Snapshot> for Counting {
    type Result = MessageResult<breaker::Snapshot>;

    fn handle(&mut self, _: breaker::Snapshot, _: &mut Self::Context) -> Self::Result {
        self.0.fetch_add(1, Relaxed);
        MessageResult(breaker::BreakerSnapshot { settings: None, targets: Vec::new(), panics: 0 })
    }
}

/// One that has failed a check.
fn upstream() -> UpstreamView {
    let mut vital = Vital::new(Instant::now());
    vital.checked(Instant::now(), Rules { rise: 1, fall: 1 }, Err(Trouble::new("connect_refused", "nobody listens there")));
    UpstreamView {
        target: TARGET.into(),
        name: Some("main".into()),
        weight: 1,
        backup: false,
        sessions: 1,
        max_connections: Some(500),
        tls: "off",
        health: vital.view(Instant::now()),
    }
}

impl House {
    fn new() -> Self {
        let (telemetry, tally) = (Telemetry::silent(), Tally::default());
        telemetry.metrics().set_targets([TARGET]);
        let limit = ConnectionLimit { max_total_connections: 1000, max_per_ip: Some(100) };
        let supervisor = Supervisor::new(limit, tally.clone()).start();
        let rate = RateLimit { requests_per_sec: 2.5, burst: NonZeroU32::new(5).unwrap() };
        let rate_limiter = RateLimiter::new(Some(rate), tally, Box::new(|| ())).start();
        let circuit = CircuitBreaker { max_failures: 5, reset_timeout: Duration::from_secs(30), success_threshold: 2 };
        let breaker = UpstreamBreaker::new(Some(circuit), vec![(TargetId(0), TARGET.into())], Arc::new(|_| ())).start();
        let collector = MetricsCollector::new(telemetry.clone(), vec![Arc::new(WorkerTraffic::default())]).start();
        let upstream_down: Arc<Mutex<Option<String>>> = Arc::default();
        let down = Arc::clone(&upstream_down);
        let readiness = Readiness::new(Arc::new(move || {
            let answer = down.lock().unwrap().clone().map_or(Ok(()), Err);
            Box::pin(std::future::ready(answer))
        }));
        readiness.set_accepting(true);
        let sources = Sources {
            telemetry,
            supervisor: supervisor.clone().recipient(),
            rate_limiter: rate_limiter.clone().recipient(),
            breaker: breaker.recipient(),
            collector: collector.clone().recipient(),
            readiness,
            listener: Arc::new(|| ListenerFacts {
                doors: vec![("[::]:1935".parse().unwrap(), "only")],
                tls: Some(Arc::new(certificate())),
                accepting: true,
                open_sockets: 1,
                hard_cap: 1064,
            }),
            buffers: Arc::new(BufferFacts::default),
            upstreams: Arc::new(|| vec![upstream()]),
            config: Arc::new(|| ConfigFacts {
                source: "relay.json".into(),
                hash: "0123456789abcdef".into(),
                loaded_at: SystemTime::UNIX_EPOCH,
                last_reload: None,
            }),
            started: Instant::now(),
            started_at: SystemTime::now(),
        };
        Self { sources, supervisor, rate_limiter, collector, upstream_down, permits: Vec::new() }
    }

    /// Lets a session in that relays `live/{stream}`.
    async fn session(&mut self, id: u64, stream: &str) -> Arc<SessionCell> {
        let client = SocketAddr::from(([192, 0, 2, 1], 4000));
        let cell = Arc::new(SessionCell::new(SessionId(id), client, Instant::now(), SystemTime::now()));
        let shown = self.sources.telemetry.shown(b"live", stream.as_bytes());
        cell.learn(|facts| {
            facts.protocol = Some("rtmp");
            facts.action = Some("publish");
            (facts.app, facts.stream, facts.fingerprint) = (Some(shown.app), Some(shown.stream), Some(shown.fingerprint));
            facts.token_name = Some("studio".into());
            facts.upstream = Some(TARGET.into());
            facts.upstream_addr = Some(([198, 51, 100, 1], 1935).into());
        });
        cell.set_state(State::Relaying);
        let admit = supervisor::Admit { cell: Arc::clone(&cell), session: Session.start().recipient() };
        self.permits.push(self.supervisor.send(admit).await.unwrap().unwrap());
        cell
    }

    fn serve(&self, allowed: &[&str]) -> Served {
        let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
        serve(free_port(), &Settings { allowed, tls: None }, self.sources.clone()).unwrap()
    }

    /// `/status` without the socket, and with less patience.
    async fn page(&self, choice: Choice) -> Value {
        let desk = Desk::new(self.sources.clone(), Duration::from_millis(20));
        let round = desk.ask().await;
        let clocks = Clocks { now: Instant::now(), wall: SystemTime::now() };
        serde_json::to_value(Page::new(&self.sources, &round, &choice, clocks)).unwrap()
    }
}

struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn request(served: &Served, method: &str, path: &str) -> Response {
    let mut socket = TcpStream::connect(served.address()).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn get(served: &Served, path: &str) -> Response {
    request(served, "GET", path).await
}

/// Keys and types of a document; a list is shown by its first entry.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Array(list) => list.first().map_or(json!([]), |first| json!([shape(first)])),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
    }
}

#[actix::test]
async fn status_has_the_shape_that_others_build_upon() {
    let mut house = House::new();
    house.session(1, "camera").await;
    let page = house.page(Choice::default()).await;
    let golden = include_str!("../../tests/golden/status_shape.json");
    let found = serde_json::to_string_pretty(&shape(&page)).unwrap();
    assert_eq!(found.trim(), golden.trim(), "if this is meant, tests/golden/status_shape.json is to be:\n{found}");
}

#[actix::test]
async fn status_shows_sessions_and_no_secret() {
    let mut house = House::new();
    let cell = house.session(7, "secret-key").await;
    cell.to_upstream.bytes.add(1_000_000);
    let served = house.serve(&[]);
    let answer = get(&served, "/status").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("application/json") && answer.head.contains("cache-control: no-store"));
    let page = answer.json();
    assert_eq!(page["errors"], json!({}));
    assert_eq!(page["connections"]["active"], 1);
    assert_eq!(page["connections"]["per_ip"], json!([{ "address": "192.0.2.1", "connections": 1 }]));
    assert_eq!(page["connections"]["rejected"]["rate_limit"], 0);
    let row = &page["connections"]["sessions"][0];
    assert_eq!((&row["id"], &row["state"], &row["to_upstream"]["bytes"]), (&json!(7), &json!("relaying"), &json!(1_000_000)));
    assert!(!answer.body.contains("secret-key"));
    served.stop().await;
}

#[actix::test]
async fn a_session_is_found_by_the_name_of_its_stream_though_names_are_masked() {
    let mut house = House::new();
    for id in 0..5 {
        house.session(id, if id == 3 { "wanted" } else { "other" }).await;
    }
    let ids = |page: &Value| -> Vec<u64> {
        let rows = page["connections"]["sessions"].as_array().unwrap();
        rows.iter().map(|row| row["id"].as_u64().unwrap()).collect()
    };
    let served = house.serve(&[]);
    let page = get(&served, "/status?stream=live/wanted").await.json();
    assert_eq!(ids(&page), [3]);
    assert_eq!((&page["connections"]["sessions_total"], &page["connections"]["sessions_matching"]), (&json!(5), &json!(1)));
    let fingerprint = page["connections"]["sessions"][0]["fingerprint"].as_str().unwrap();
    assert_eq!(ids(&get(&served, &format!("/status?stream={fingerprint}")).await.json()), [3], "and by its fingerprint");
    assert_eq!(ids(&get(&served, "/status?offset=1&limit=2").await.json()), [1, 2]);
    assert_eq!(get(&served, "/status?limit=999999").await.json()["connections"]["limit"], 1000);
    let wrong = get(&served, "/status?limit=many").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["error"].as_str().unwrap().contains("limit"));
}

#[actix::test]
async fn an_actor_that_has_ended_makes_exactly_its_field_null_with_the_reason() {
    let fields = ["connections", "rate_limit", "circuit_breaker", "traffic"];
    for gone in fields {
        let mut house = House::new();
        match gone {
            "connections" => house.supervisor.send(supervisor::Stop).await.unwrap(),
            "rate_limit" => house.rate_limiter.send(rate_limiter::Stop).await.unwrap(),
            "traffic" => house.collector.send(collector::Stop).await.unwrap(),
            _ => house.sources.breaker = Silent.start().recipient(),
        }
        let page = house.page(Choice::default()).await;
        for field in fields {
            assert_eq!(page[field].is_null(), field == gone, "{field} while {gone} is gone");
        }
        let errors = page["errors"].as_object().unwrap();
        assert_eq!(errors.keys().collect::<Vec<_>>(), [gone]);
        let why = errors[gone].as_str().unwrap();
        assert!(why == "the actor has ended" || why.starts_with("no answer within"), "{why}");
    }
}

#[actix::test]
async fn askers_at_the_same_time_share_one_round() {
    let (mut house, asked) = (House::new(), Arc::new(AtomicUsize::new(0)));
    house.sources.breaker = Counting(Arc::clone(&asked)).start().recipient();
    let desk = Desk::new(house.sources.clone(), PATIENCE);
    futures_util::future::join_all((0..50).map(|_| desk.ask())).await;
    assert_eq!(asked.load(Relaxed), 1);
    desk.ask().await;
    assert_eq!(asked.load(Relaxed), 2, "who comes later hears news");
}

#[actix::test]
async fn a_round_that_everybody_has_left_is_not_shown_to_the_next() {
    let (mut house, asked) = (House::new(), Arc::new(AtomicUsize::new(0)));
    house.sources.breaker = Counting(Arc::clone(&asked)).start().recipient();
    let desk = Desk::new(house.sources.clone(), PATIENCE);
    let mut left = Box::pin(desk.ask());
    assert!(futures_util::poll!(&mut left).is_pending());
    while asked.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    drop(left);
    desk.ask().await;
    assert_eq!(asked.load(Relaxed), 2);
}

#[actix::test]
async fn health_answers_while_it_runs_and_ready_only_while_clients_should_come() {
    let house = House::new();
    let served = house.serve(&[]);
    for path in ["/", "/health", "/livez", "/ready", "/version"] {
        assert_eq!(get(&served, path).await.status, 200, "{path}");
        let head = request(&served, "HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    assert_eq!(get(&served, "/").await.json()["service"], "relay");
    let refused = |answer: Response| (answer.status, answer.json()["reason"].as_str().unwrap().to_owned());
    *house.upstream_down.lock().unwrap() = Some("no upstream has been reachable for 25 s".into());
    let answer = get(&served, "/ready").await;
    assert_eq!(answer.json()["message"], "no upstream has been reachable for 25 s");
    assert_eq!(refused(answer), (503, "no_upstream".into()));
    house.sources.readiness.set_accepting(false);
    assert_eq!(refused(get(&served, "/ready").await), (503, "not_accepting".into()));
    house.sources.readiness.drain();
    assert_eq!(refused(get(&served, "/ready").await), (503, "draining".into()));
    let health = get(&served, "/health").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("draining")));
    assert_eq!(get(&served, "/livez").await.status, 200);
}

#[actix::test]
async fn networks_that_are_not_allowed_get_health_and_a_clear_word() {
    let served = House::new().serve(&["192.0.2.0/24"]);
    for path in ["/status", "/metrics", "/version", "/nothing"] {
        let answer = get(&served, path).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("http_allowed_networks"));
    }
    for path in ["/", "/health", "/livez", "/ready"] {
        assert_eq!(get(&served, path).await.status, 200, "{path}");
    }
    assert_eq!(get(&House::new().serve(&["127.0.0.0/8"]), "/status").await.status, 200);
}

#[actix::test]
async fn an_unknown_path_names_the_known_ones() {
    let served = House::new().serve(&[]);
    let answer = get(&served, "/metrics.php").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["paths"], json!(PATHS));
    let answer = request(&served, "DELETE", "/status").await;
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: get, head"));
}

fn free_port() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[actix::test]
async fn every_address_is_served_where_no_host_is_named() {
    let house = House::new();
    let settings = Settings { allowed: vec!["127.0.0.1/32".parse().unwrap()], tls: None };
    let every = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    every.set_nonblocking(true).unwrap();
    let served = serve(every, &settings, house.sources.clone()).unwrap();
    let v4 = Served {
        address: ([127, 0, 0, 1], served.address().port()).into(),
        handle: served.handle.clone(),
        door: served.door.clone(),
    };
    assert_eq!(get(&v4, "/status").await.status, 200, "a mapped v4 client is judged as v4");
}

#[actix::test]
async fn the_server_is_gone_once_it_was_stopped() {
    let served = House::new().serve(&[]);
    let address = served.address();
    assert_eq!(get(&served, "/livez").await.status, 200);
    served.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn every_refusal_and_kind_of_failed_dial_shows_its_zero() {
    assert!(Refusal::REASONS.iter().chain(&NoRoute::REASONS).all(|reason| labels::REJECTIONS.contains(reason)));
    let address = SocketAddr::from(([192, 0, 2, 1], 1935));
    let error = || std::io::Error::other("");
    let kinds = [
        DialError::Queue(Duration::ZERO).kind(),
        DialError::Dns(error()).kind(),
        DialError::Own(address).kind(),
        DialError::Refused(address).kind(),
        DialError::Timeout(address).kind(),
        DialError::Other { addr: address, source: error() }.kind(),
        DialError::Local(error()).kind(),
    ];
    for kind in kinds {
        assert!(labels::ERROR_TYPES.contains(&kind), "{kind}");
    }
}

/// The table of docs/METRICS.md as the code would write it, from what /metrics says.
fn table(metrics: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let mut help = "";
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().1;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            rows.push(format!("| `{name}` | {kind} | {} | {help} |", label_words(metrics, name)));
        }
    }
    rows
}

/// The labels of a metric with their values, where these are constants of the program.
fn label_words(metrics: &str, name: &str) -> String {
    let mut labels: Vec<(String, Vec<String>)> = Vec::new();
    for line in metrics.lines() {
        let sample = line.strip_prefix(name).map(|rest| rest.strip_prefix("_count").unwrap_or(rest));
        let Some((inner, _)) = sample.and_then(|rest| rest.strip_prefix('{')).and_then(|rest| rest.split_once('}')) else {
            continue;
        };
        for pair in inner.split("\",") {
            let (label, value) = pair.split_once("=\"").unwrap();
            let value = value.trim_end_matches('"').to_owned();
            match labels.iter_mut().find(|(known, _)| known == label) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => labels.push((label.to_owned(), vec![value])),
            }
        }
    }
    let open = |label: &str| name.contains("_http_") || ["target", "upstream", "version"].contains(&label);
    let words = |(label, values): &(String, Vec<String>)| {
        if open(label) { format!("`{label}`") } else { format!("`{label}`: {}", values.join(", ")) }
    };
    labels.iter().map(words).collect::<Vec<_>>().join("; ")
}

#[actix::test]
async fn the_documents_and_the_code_know_the_same_metrics() {
    let house = House::new();
    let served = house.serve(&[]);
    get(&served, "/livez").await;
    let answer = get(&served, "/metrics").await;
    assert_eq!(answer.status, 200);
    let wanted = table(&answer.body);
    assert!(wanted.len() >= 20, "{}", answer.body);
    let documented: Vec<&str> = include_str!("../../docs/METRICS.md").lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(documented, wanted, "if this is meant, the table of docs/METRICS.md is to be:\n{}", wanted.join("\n"));
}

#[actix::test]
async fn paths_and_methods_of_strangers_become_no_labels() {
    let served = House::new().serve(&[]);
    for n in 0..20 {
        get(&served, &format!("/admin{n}.php")).await;
        request(&served, &format!("M{n}"), "/").await;
    }
    let body = get(&served, "/metrics").await.body;
    assert!(!body.contains("admin") && !body.contains("M1"));
    let line = "rtmp_relay_http_requests_total{endpoint=\"unknown\",method=\"GET\",status=\"404\"} 20";
    assert!(body.contains(line), "{body}");
}
