//! What does a scrape cost streams, where there are many sessions? Nothing: each frame arrives, in its order and byte for byte.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay::origin::{Options, Origin as Crowded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::amf::{self, Amf, obj, s};
use crate::client::{Client, hello};
use crate::origin::Origin;
use crate::parser::kind;
use crate::relay::{Face, Process};
use crate::speech::{Say, body};
use crate::wait::{SOON, pace, wait_equal};

/// Sessions that are there and say nothing. (`cargo bench --bench load -- --only scraped` has five times as many, and measures.)
const CROWD: usize = 1000;
const LIVE: usize = 6;
/// Frames of each, at least.
const FRAMES: u32 = 150;
/// Scrapes while they pass, at least.
const SCRAPES: usize = 10;

/// Publishes a stream and is silent from then on. Nobody reads what it is told: it is little.
fn silent(relay: &Face, number: usize) -> TcpStream {
    let app = obj(&[("app", s("crowd")), ("tcUrl", s("rtmp://relay.test/crowd"))]);
    let name = s(&format!("cam{number}"));
    let commands = [
        (3, 0, "connect", vec![app]),
        (3, 0, "createStream", vec![Amf::Null]),
        (8, 1, "publish", vec![Amf::Null, name, s("live")]),
    ];
    let mut said = hello();
    for (n, (csid, stream, name, args)) in commands.iter().enumerate() {
        let command = amf::command(name, (n + 1) as f64, args);
        said.extend(Say::full(*csid, 0, kind::COMMAND, *stream, &command).bytes(128));
    }
    let mut socket = TcpStream::connect(relay.address).expect("the relay accepts");
    socket.write_all(&said).expect("it is taken");
    socket
}

fn published(metrics: &str) -> usize {
    let value = metrics.lines().find_map(|line| line.strip_prefix("rtmp_relay_streams{action=\"publish\"} "));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Asks for /metrics again and again until told to stop.
struct Scraping {
    count: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Scraping {
    /// What is wrong with an answer that shows other than `streams` publishers is told by [`Self::end`].
    fn begin(relay: Face, streams: usize) -> Self {
        let (count, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counts, stops) = (Arc::clone(&count), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut wrong = Vec::new();
            while !stops.load(SeqCst) {
                match relay.get("/metrics") {
                    Ok((200, metrics)) if published(&metrics) == streams => {}
                    Ok((code, metrics)) => wrong.push(format!("{code}, {} publishers", published(&metrics))),
                    Err(error) => wrong.push(error.to_string()),
                }
                counts.fetch_add(1, SeqCst);
            }
            wrong
        });
        Self { count, stop, thread }
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        self.thread.join().expect("it only asks")
    }
}

#[test]
fn scrapes_among_a_thousand_sessions_cost_no_stream_a_frame() {
    // Both ends of the crowd are in this process, and some shells give a process a thousand.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("a limit may be raised to its bound");
    let options = Options { connections: CROWD * 2, ..Options::default() };
    let crowded = Crowded::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options).expect("loopback has a free port");
    let origin = Origin::willing();
    let url = format!("rtmp://{}", crowded.addr());
    let relay = Process::several(json!({
        "upstreams": [{ "name": "crowd", "url": url }, { "name": "live", "url": origin.url("") }],
        "routes": [{ "match": { "app": "crowd" }, "upstreams": ["crowd"] }, { "upstreams": ["live"] }],
        "connection_limit": { "max_total_connections": CROWD * 2 },
        "idle_timeout": "10m",
        "handshake_timeout": "1m",
        "log": { "level": "info" },
    }));
    let mut crowd = Vec::new();
    for half in 0..2 {
        crowd.extend((CROWD / 2 * half..CROWD / 2 * (half + 1)).map(|n| silent(&relay, n)));
        wait_equal("the crowd is in", &crowd.len(), || published(&relay.metrics()));
    }
    let mut live: Vec<Client> = (0..LIVE).map(|n| Client::publishing(&relay, "live", &format!("cam{n}"))).collect();
    wait_equal("everybody is in", &(CROWD + LIVE), || published(&relay.metrics()));

    let scraping = Scraping::begin(*relay, CROWD + LIVE);
    let (began, mut said, mut number) = (Instant::now(), vec![Vec::new(); LIVE], 0);
    while number < FRAMES || scraping.count.load(SeqCst) < SCRAPES {
        assert!(began.elapsed() < SOON * 2, "{} scrapes were answered", scraping.count.load(SeqCst));
        pace(began + Duration::from_millis(10) * number);
        for (n, client) in live.iter_mut().enumerate() {
            let length = 500 + 900 * (number as usize % 7);
            said[n].push(client.say(6, number * 10, kind::VIDEO, 1, &body(number * 10 + n as u32, length)));
        }
        number += 1;
    }
    let wrong = scraping.end();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (n, said) in said.iter().enumerate() {
        let line = origin.line_of(&format!("cam{n}"));
        let heard = line.ear.wait_count(&[kind::VIDEO], said.len());
        assert!(heard == *said, "cam{n}: {} frames were said, {} others were heard", said.len(), heard.len());
        assert_eq!(line.ear.record().wrong, None);
    }
    assert_eq!(relay.status()["connections"]["active"], CROWD + LIVE, "and nobody was lost");
}
