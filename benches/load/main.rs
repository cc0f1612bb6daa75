//! What does a live stream cost? The relay beside HAProxy, nginx and a bare loop in the same run: `make bench`.
//!
//! One process drives each target in turn: publishers (or an origin's players), and the other end that receives, on one core; the target
//! runs on another. CPU is what the kernel says the target's threads ran (`/proc/PID/task/*/schedstat`), latency is from the time at which a
//! frame's last segment is due to its whole arrival. Nothing here asserts: it prints figures and ratios.
//!
//! Options: `--only WORDS` (rows whose name holds one of the words, `|` between them), `--seconds N` of measuring, `--rounds N`, `--sleepy` (see
//! `engine`), `--targets NAMES` (columns, `|` between them), `--at-most N` streams or sessions, to see that a row works at all.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a load generator keeps time by sleeping, and prints its table"
)]

mod engine;
mod floor;
mod gauges;
mod load;
mod machine;
mod media;
mod papers;
mod report;
mod rows;
mod run;
mod scrape;
mod sink;
mod speech;
mod stream;
#[path = "../common/talk.rs"]
mod talk;
mod targets;

use std::process::ExitCode;
use std::time::Duration;

use machine::Cores;
use papers::Papers;
use report::Row;
use rows::Work;
use run::{Bench, Figures, median};
use targets::Kind;

/// Runs of each pair; the median is printed.
const ROUNDS: u64 = 3;
/// Measured in each run, s.
const SECONDS: u64 = 5;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let done = if args.first().is_some_and(|arg| arg == "--floor") { floor::run(&args[1..]) } else { table(&args) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn table(args: &[String]) -> Result<(), String> {
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str, default| option(name).map_or(Ok(default), |text| text.parse().map_err(|e| format!("{name}: {e}")));
    let (seconds, rounds) = (number("--seconds", SECONDS)?, number("--rounds", ROUNDS)?);
    let only = option("--only").cloned().unwrap_or_default();
    let most = number("--at-most", u64::MAX)?;
    let mut works: Vec<Work> = rows::all();
    works.retain(|work| only.split('|').any(|word| work.name.contains(word)));
    let targets = option("--targets").cloned().unwrap_or_default();
    for work in &mut works {
        work.what = work.what.at_most(usize::try_from(most).unwrap_or(usize::MAX));
        work.kinds.retain(|kind| targets.is_empty() || targets.split('|').any(|name| kind.name() == name));
    }
    machine::raise_descriptor_limit();
    let cores = Cores::choose();
    cores.on_load();
    let papers = Papers::new()?;
    let bench = Bench { cores, papers, time: Duration::from_secs(seconds), sleepy: args.iter().any(|arg| arg == "--sleepy") };
    eprintln!("{} rows, some {} minutes", works.len(), minutes(&works, seconds, rounds));
    let rows: Vec<Row> = works.into_iter().map(|work| measure(&bench, work, rounds)).collect();
    let command = format!("cargo bench --locked --bench load -- {}", args.join(" "));
    println!("{}", report::page(&machine::describe(), command.trim_end_matches([' ', '-']), &rows));
    Ok(())
}

fn minutes(works: &[Work], seconds: u64, rounds: u64) -> u64 {
    let one = |work: &Work| (work.what.overhead(seconds) + seconds) * rounds * work.kinds.len() as u64;
    works.iter().map(one).sum::<u64>().div_ceil(60)
}

/// The targets take turns, `rounds` times.
fn measure(bench: &Bench, work: Work, rounds: u64) -> Row {
    let mut runs: Vec<(Kind, Vec<Figures>)> = work.kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for _ in 0..rounds {
        for (kind, figures) in &mut runs {
            match bench.run(*kind, work.what) {
                Ok(one) => {
                    eprintln!("{}: {}: {one:.3?}", work.name, kind.name());
                    figures.push(one);
                }
                Err(e) => eprintln!("{}: {}: {e}", work.name, kind.name()),
            }
        }
    }
    let figures = runs.into_iter().filter(|(_, runs)| !runs.is_empty()).map(|(kind, runs)| (kind, median(&runs))).collect();
    Row { work, figures }
}
