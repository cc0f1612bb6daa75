//! What does a live stream cost? The relay beside HAProxy and nginx in the same run: `make bench`.
//!
//! One process drives each target in turn: publishers (or an origin's players), and the other end that receives, on one core; the target
//! runs on another. CPU is what the kernel says the target's threads ran (`/proc/PID/task/*/schedstat`), latency is from the write of a
//! frame's last segment to its whole arrival. Nothing here asserts: it prints figures and ratios.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a load generator keeps time by sleeping, and prints its table"
)]

mod load;
mod targets;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use load::{Flow, Load, Side};
use targets::{Kind, Target};

/// Runs of each pair; the median is printed.
const ROUNDS: usize = 3;

/// One line of the table.
struct Work {
    name: &'static str,
    what: What,
}

/// What is measured.
#[derive(Clone, Copy)]
enum What {
    /// `streams` at a bitrate, through which side.
    Paced { streams: usize, flow: Flow, side: Side },
    /// Streams that send as fast as they are taken.
    Unpaced { streams: usize },
    /// Connect, publish, one frame, close; so many at a time.
    Sessions { at_once: usize },
    /// Published sessions that send nothing.
    Idle { sessions: usize },
}

fn works() -> Vec<Work> {
    let live = |spread_ms: u64| Flow { frame: 10_124, fps: 30, spread: Duration::from_micros(spread_ms * 1000), audio: true };
    let paced = |streams, flow, side| What::Paced { streams, flow, side };
    vec![
        Work { name: "200 publishers, 4 ms", what: paced(200, live(4), Side::Publish) },
        Work { name: "200 publishers, 20 ms", what: paced(200, live(20), Side::Publish) },
        Work { name: "200 publishers, evenly", what: paced(200, live(28), Side::Publish) },
        Work { name: "200 players, 4 ms", what: paced(200, live(4), Side::Play) },
        Work { name: "200 players, 20 ms", what: paced(200, live(20), Side::Play) },
        Work {
            name: "50 publishers, 20 Mb/s",
            what: paced(50, Flow { frame: 83_000, fps: 30, spread: Duration::from_millis(20), audio: true }, Side::Publish),
        },
        Work { name: "2 publishers, unpaced", what: What::Unpaced { streams: 2 } },
        Work { name: "sessions, 32 at a time", what: What::Sessions { at_once: 32 } },
        Work { name: "4000 idle publishers", what: What::Idle { sessions: 4000 } },
    ]
}

/// What one run came to.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// CPU-seconds a GB, CPU-µs a session, or kB a session.
    cost: f64,
    /// Whole-frame latency, or set-up time, ms.
    p50: f64,
    p99: f64,
    /// Gb/s received.
    rate: f64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--bench")).collect();
    let option = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1));
    let seconds = option("--seconds").and_then(|s| s.parse().ok()).unwrap_or(8);
    let rounds = option("--rounds").and_then(|s| s.parse().ok()).unwrap_or(ROUNDS);
    let only = option("--only").cloned().unwrap_or_default();
    targets::raise_descriptor_limit();
    targets::pin_self();
    println!("{}", targets::machine());
    println!("{:<24} {:<8} {:>9} {:>7} {:>9} {:>9} {:>8}", "work", "target", "cost", "ratio", "p50 ms", "p99 ms", "Gb/s");
    for work in works().iter().filter(|w| w.name.contains(&only)) {
        let mut base = None;
        let mut runs: Vec<(Kind, Vec<Figures>)> = Kind::all().map(|k| (k, Vec::new())).collect();
        for _ in 0..rounds {
            for (kind, figures) in &mut runs {
                match run(*kind, work.what, Duration::from_secs(seconds)) {
                    Ok(one) => figures.push(one),
                    Err(e) => eprintln!("{}: {}: {e}", work.name, kind.name()),
                }
            }
        }
        for (kind, figures) in &runs {
            if figures.is_empty() {
                continue;
            }
            let median = median(figures);
            let ratio = median.cost / *base.get_or_insert(median.cost);
            println!(
                "{:<24} {:<8} {:>9.2} {:>7.2} {:>9.2} {:>9.2} {:>8.2}",
                work.name,
                kind.name(),
                median.cost,
                ratio,
                median.p50,
                median.p99,
                median.rate
            );
        }
    }
    ExitCode::SUCCESS
}

fn median(figures: &[Figures]) -> Figures {
    let of = |pick: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures { cost: of(|f| f.cost), p50: of(|f| f.p50), p99: of(|f| f.p99), rate: of(|f| f.rate) }
}

fn run(kind: Kind, what: What, time: Duration) -> Result<Figures, String> {
    let load = Load::start()?;
    let target = Target::start(kind, load.origin())?;
    match what {
        What::Paced { streams, flow, side } => {
            load.streams(target.address(), streams, flow, side)?;
            std::thread::sleep(Duration::from_secs(2));
            measure(&load, &target, time)
        }
        What::Unpaced { streams } => {
            load.unpaced(target.address(), streams)?;
            std::thread::sleep(Duration::from_secs(1));
            measure(&load, &target, time)
        }
        What::Sessions { at_once } => {
            let (cpu, _) = (target.cpu(), Instant::now());
            let (sessions, mut setups) = load.sessions(target.address(), at_once, time)?;
            let cost = (target.cpu() - cpu) * 1e6 / sessions as f64;
            setups.sort_unstable();
            let at = |q: f64| f64::from(setups[((setups.len() - 1) as f64 * q) as usize]) / 1000.0;
            Ok(Figures { cost, p50: at(0.5), p99: at(0.99), rate: 0.0 })
        }
        What::Idle { sessions } => {
            let before = target.pss();
            load.idle(target.address(), sessions)?;
            std::thread::sleep(Duration::from_secs(2));
            let cpu = target.cpu();
            std::thread::sleep(time);
            let idle = (target.cpu() - cpu) / time.as_secs_f64() * 100.0;
            Ok(Figures { cost: (target.pss() - before) as f64 / sessions as f64, p50: idle, p99: 0.0, rate: 0.0 })
        }
    }
}

fn measure(load: &Load, target: &Target, time: Duration) -> Result<Figures, String> {
    load.begin();
    let (cpu, start) = (target.cpu(), Instant::now());
    std::thread::sleep(time);
    let (cpu, elapsed) = (target.cpu() - cpu, start.elapsed());
    let (bytes, mut latencies) = load.end();
    if bytes == 0 {
        return Err("nothing arrived".to_owned());
    }
    latencies.sort_unstable();
    let at = |q: f64| latencies.get(((latencies.len().max(1) - 1) as f64 * q) as usize).map_or(0.0, |us| f64::from(*us) / 1000.0);
    Ok(Figures {
        cost: cpu / (bytes as f64 / 1e9),
        p50: at(0.5),
        p99: at(0.99),
        rate: bytes as f64 * 8.0 / elapsed.as_secs_f64() / 1e9,
    })
}
