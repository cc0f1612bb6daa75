//! How many instructions does the wire take? `make callgrind`: exact, and the same at every run on one kind of machine, so that a change can be
//! compared with the state before it.
//!
//! Each operation runs under callgrind a few times and a few times more; the difference is what one costs, without anything around it.

#![allow(clippy::print_stdout, reason = "it prints its table")]

mod operations;

use std::process::{Command, ExitCode};

/// Runs of an operation in the shorter and the longer process. The first ones also fill caches of the allocator.
const RUNS: [u64; 2] = [5, 25];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [word, number, runs] = &args[..]
        && word == "--run"
    {
        return repeat(number.parse().unwrap_or(0), runs.parse().unwrap_or(0));
    }
    match table() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn repeat(number: usize, runs: u64) -> ExitCode {
    let Some(mut operation) = operations::all().into_iter().nth(number) else { return ExitCode::FAILURE };
    (0..runs).for_each(|_| (operation.run)());
    ExitCode::SUCCESS
}

fn table() -> Result<(), String> {
    println!("| operation | bytes | instructions | a byte |\n|---|---|---|---|");
    for (number, operation) in operations::all().iter().enumerate() {
        let [few, many] = RUNS.map(|runs| instructions(number, runs));
        let one = (many? - few?) as f64 / (RUNS[1] - RUNS[0]) as f64;
        println!("| {} | {} | {one:.0} | {:.2} |", operation.name, operation.bytes, one / operation.bytes as f64);
    }
    Ok(())
}

/// What callgrind counts for a process that runs one operation so many times.
fn instructions(number: usize, runs: u64) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["--run", &number.to_string(), &runs.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    line.and_then(|(_, count)| count.trim().parse().ok()).ok_or(text)
}
