//! Does the relay stay what it is? Hours of clients that come and go, origins that die, reloads, strangers: `make soak`.
//!
//! The relay runs as a program between clients and two origins, which are in this process. Every message that anybody sends is
//! numbered, and its content follows from its number: at the end each byte must have been received, or belong to an end that has a name. Prints
//! what came of it, and how memory and descriptors went; ends with 1 where a byte is unaccounted for, a count did not return to zero,
//! or something panicked.
//!
//! `cargo bench --bench soak -- [--seconds 1800] [--clients 300] [--seed 1]`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a soak keeps time by sleeping, prints its report, and may fail loudly"
)]

mod client;
mod ledger;
mod media;
mod origin;
#[path = "../common/program.rs"]
mod program;
mod relay_process;
mod report;
mod stranger;
#[path = "../common/talk.rs"]
mod talk;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use ledger::Ledger;
use origin::Origin;
use relay_process::RelayProcess;
use report::{Report, Sample};

/// Between two looks at the relay.
const SAMPLE: Duration = Duration::from_secs(5);
/// How long everything may take to come to rest at the end.
const REST: Duration = Duration::from_secs(30);

struct Options {
    time: Duration,
    clients: usize,
    seed: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let clients = usize::try_from(number("--clients", 300)).expect("a number of clients");
    let options = Options { time: Duration::from_secs(number("--seconds", 1800)), clients, seed: number("--seed", 1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(soak(&options));
    println!("{report}");
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn soak(options: &Options) -> Report {
    let ledger = Arc::new(Ledger::default());
    let mut origins = [Origin::start(&ledger).await, Origin::start(&ledger).await];
    let mut relay = RelayProcess::start(&origins.iter().map(Origin::address).collect::<Vec<_>>(), options.clients);
    let over = CancellationToken::new();
    let mut seats = Vec::new();
    for number in 0..options.clients {
        let chance = SmallRng::seed_from_u64(options.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        seats.push(tokio::spawn(client::seat(relay.address(), number, chance, Arc::clone(&ledger), over.clone())));
    }
    let strangers = tokio::spawn(stranger::come(relay.address(), SmallRng::seed_from_u64(options.seed), over.clone()));
    let mut chance = SmallRng::seed_from_u64(options.seed ^ 0x50AC);
    let mut report = Report::new(options.time, options.clients, options.seed);
    let end = Instant::now() + options.time;
    let (mut next_death, mut next_reload) = (Instant::now() + Duration::from_secs(8), Instant::now() + Duration::from_secs(5));
    let mut next_sample = Instant::now() + SAMPLE;
    let mut returns: Option<Instant> = None;
    let mut victim = 0;
    while Instant::now() < end {
        let next = [Some(next_death), Some(next_reload), Some(next_sample), returns, Some(end)].into_iter().flatten().min();
        sleep_until(next.unwrap_or(end)).await;
        let now = Instant::now();
        if returns.is_some_and(|at| now >= at) {
            origins[victim].revive().await;
            returns = None;
        }
        if now >= next_death {
            if returns.is_none() {
                victim = chance.random_range(0..origins.len());
                origins[victim].die();
                report.deaths += 1;
                returns = Some(now + Duration::from_millis(chance.random_range(500..6_000)));
            }
            next_death = now + Duration::from_secs(chance.random_range(8..30));
        }
        if now >= next_reload {
            report.reloads += 1;
            report.bad_reloads += u64::from(relay.reload(&mut chance));
            next_reload = now + Duration::from_secs(chance.random_range(3..15));
        }
        if now >= next_sample {
            report.samples.push(relay.sample(now));
            next_sample = now + SAMPLE;
        }
    }
    over.cancel();
    for seat in seats {
        seat.await.expect("a client of ours does not panic");
    }
    report.strangers = strangers.await.expect("neither does a stranger");
    settle(&relay, &mut report).await;
    report.ended = relay.end();
    report.finish(&ledger, &relay);
    report
}

/// Waits until the relay has forgotten everybody.
async fn settle(relay: &RelayProcess, report: &mut Report) {
    let until = Instant::now() + REST;
    loop {
        let sample: Sample = relay.sample(Instant::now());
        let at_rest = sample.sessions == Some(0);
        report.last = Some(sample);
        if at_rest || Instant::now() > until {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
}
