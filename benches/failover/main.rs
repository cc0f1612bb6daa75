//! How long is a stream without an origin when its origin dies? Prints figures, asserts nothing.
//!
//! The relay runs as a program, and so do two origins, of which one is ended by SIGKILL. One process publishes all streams, each at a time of
//! its own within its group of pictures, and never reconnects. The gap of a stream is
//! from the kill to the first frame that the other origin receives of it; frames are numbered, so that those that were lost are
//! counted.
//!
//! Behind that: how soon is a publisher accepted, with warm connections and without?
//!
//! And what does a rollout cost, a relay that takes the place of another?
//!
//! `cargo bench --bench failover -- [--only death|warm|rollout] [--streams N] [--tries N] [--group MS]`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark keeps time by sleeping, prints its table, and may fail loudly"
)]

mod origin;
#[path = "../common/program.rs"]
mod program;
mod publisher;
mod rollout;
#[path = "../common/talk.rs"]
mod talk;
mod warm;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use origin::{First, wall_micros};
use program::Program;
use publisher::Publishers;

/// How long a try may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for on the command line.
#[derive(Debug, Clone, Copy)]
struct Options {
    streams: usize,
    tries: usize,
    /// Milliseconds between key frames.
    group: u64,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "origin") {
        origin::run(args[at + 1].parse().expect("an address"));
    }
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let only = args.iter().position(|arg| arg == "--only").and_then(|at| args.get(at + 1));
    let wanted = |name: &str| only.is_none_or(|only| only.split('|').any(|word| word == name));
    let count = |name: &str, default: u64| usize::try_from(number(name, default)).expect("a number");
    let tries = count("--tries", 20);
    if wanted("death") {
        measure(Options { streams: count("--streams", 50), tries, group: number("--group", 1000) });
    }
    if wanted("warm") {
        warm::measure(tries);
    }
    if wanted("rollout") {
        rollout::measure(count("--streams", 500), count("--tries", 3), number("--group", 2000));
    }
}

/// An origin in a process of its own.
struct Origin {
    child: Child,
    address: SocketAddr,
}

impl Origin {
    /// At `address`; what it receives first of each publication comes to `tell`.
    fn start(address: SocketAddr, tell: &mpsc::Sender<First>) -> Self {
        let program = std::env::current_exe().expect("a program has a path");
        let mut command = Command::new(program);
        command.arg("origin").arg(address.to_string()).stdout(Stdio::piped()).stdin(Stdio::piped());
        let mut child = command.spawn().expect("the origin starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let address = lines.next().and_then(|line| line.parse().ok()).expect("it says where it listens");
        let tell = tell.clone();
        std::thread::spawn(move || {
            lines.filter_map(|line| First::parse(&line)).for_each(|first| _ = tell.send(first));
        });
        Self { child, address }
    }

    /// Ends it by SIGKILL; when.
    fn kill(&mut self) -> u64 {
        let at = wall_micros();
        self.child.kill().expect("a child of ours can be killed");
        self.child.wait().expect("a killed child ends");
        at
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, between the publishers and the origins.
struct Relay {
    program: Program,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Relay {
    fn start(origins: &[Origin], streams: usize) -> Self {
        let upstreams: Vec<_> = origins.iter().map(|o| serde_json::json!({ "url": format!("rtmp://{}", o.address) })).collect();
        Self::of(&serde_json::json!({
            "listen_addr": "127.0.0.1:0", "http_addr": "", "upstreams": upstreams, "upstream_strategy": "failover",
            "security": { "upstream_allowed_networks": ["127.0.0.0/8"] },
            "connection_limit": { "max_total_connections": streams + 10 },
            "log": { "level": "info" },
        }))
    }

    /// With this configuration.
    fn of(config: &serde_json::Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the configuration");
        let program = Program::start(&folder.path().join("config.json"), config, &["listening"], drop);
        Self { address: program.address("listening"), program, _folder: folder }
    }
}

/// What was seen in all tries.
#[derive(Default)]
struct Seen {
    gaps: Vec<Duration>,
    lost: Vec<Duration>,
    missing: usize,
    disconnected: usize,
}

fn measure(options: Options) {
    let Options { streams, tries, group } = options;
    println!("{streams} streams, 25 frames a second, a key frame each {group} ms; {tries} tries");
    let mut seen = Seen::default();
    for number in 0..tries {
        attempt(options, number, &mut seen);
        print!(".");
        let _ = std::io::stdout().flush();
    }
    println!();
    report(&mut seen, group);
}

/// One death. Everything is begun anew for it: a publisher that has lost two origins within ten seconds is made to wait on purpose.
fn attempt(Options { streams, group, .. }: Options, number: usize, seen: &mut Seen) {
    let (tell, told) = mpsc::channel();
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut origins = [Origin::start(free, &tell), Origin::start(free, &tell)];
    let relay = Relay::start(&origins, streams);
    let publishers = Publishers::start(relay.address, streams, Duration::from_millis(group));
    let begun = collect(&told, streams, PATIENCE);
    assert_eq!(begun.len(), streams, "not all streams have begun");
    // Not always at the same place of the group.
    std::thread::sleep(Duration::from_millis(1200 + (number as u64 * 137) % group));
    let killed = origins[0].kill();
    let sent: Vec<u32> = publishers.streams.iter().map(|stream| stream.sent.load(Relaxed)).collect();
    let firsts = collect(&told, streams, PATIENCE);
    for (stream, sent) in sent.iter().enumerate() {
        match firsts.get(&stream) {
            Some(first) => {
                seen.gaps.push(Duration::from_micros(first.micros.saturating_sub(killed)));
                seen.lost.push(Duration::from_millis(40) * first.number.saturating_sub(*sent));
            }
            None => seen.missing += 1,
        }
    }
    seen.disconnected += publishers.streams.iter().filter(|stream| stream.ended.load(Relaxed)).count();
}

/// The first frame of each stream, until all are there or it takes too long.
fn collect(told: &mpsc::Receiver<First>, streams: usize, patience: Duration) -> HashMap<usize, First> {
    let deadline = Instant::now() + patience;
    let mut firsts = HashMap::new();
    while firsts.len() < streams {
        let Ok(first) = told.recv_timeout(deadline.saturating_duration_since(Instant::now())) else { break };
        firsts.insert(first.stream, first);
    }
    firsts
}

fn report(Seen { gaps, lost, missing, disconnected }: &mut Seen, group: u64) {
    println!("| | p50, ms | p90 | p99 | longest |");
    println!("|---|---|---|---|---|");
    row("until the other origin receives a frame", gaps);
    row("stream lost", lost);
    let aim = Duration::from_millis(group + 250);
    let within = gaps.iter().filter(|gap| **gap <= aim).count();
    println!(
        "{within} of {} within a group and 250 ms; {missing} never came; {disconnected} publishers were disconnected",
        gaps.len() + *missing
    );
}

/// A line of a table.
pub(crate) fn row(name: &str, list: &mut [Duration]) {
    list.sort();
    let at = |part: f64| {
        let last = list.len().saturating_sub(1);
        list.get((last as f64 * part) as usize).map_or(f64::NAN, |d| d.as_secs_f64() * 1000.0)
    };
    println!("| {name} | {:.1} | {:.1} | {:.1} | {:.1} |", at(0.5), at(0.9), at(0.99), at(1.0));
}

/// Waits until somebody listens there.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(e) => assert!(Instant::now() < deadline, "{address}: {e}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
