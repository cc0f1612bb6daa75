//! Who knows whom?
//!
//! [`Relay`] is the relay wired together; [`run`] runs one as a process: log, limits, signals, drain.

mod against;
mod change;
mod demo;
mod doors;
mod drain;
mod handover;
mod health;
mod manager;
mod outfit;
mod relay;
mod reload;
mod sockets;

use std::time::Duration;

use std::time::SystemTime;

use anyhow::Context;
use ipnetwork::IpNetwork;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub use against::changes_against;
pub use demo::{demo, demo_origin, demo_publisher};
pub use drain::Leaving;
pub use health::{health, health_url};
#[doc(hidden)]
pub use relay::Actors;
pub use relay::Relay;
pub use sockets::Sockets;

use handover::Program;
use reload::{Reloaded, Reloader};

use crate::config::{self, Config, Finding, Judges, Loaded, Objection, View};
use crate::http::admin::{Answer, Asked, Order};
use crate::telemetry::logging::{self, LogGuard};
use crate::telemetry::{Telemetry, events};
use crate::tls;
use crate::upstream;

/// Longest nonce that configurations are compared under, bytes.
const MAX_NONCE: usize = 64;

/// Runs the relay until it is told to stop. Warnings of the configuration are logged first.
///
/// # Errors
/// What keeps it from starting, and the death of the Supervisor or the Listener.
pub fn run(loaded: Loaded) -> anyhow::Result<()> {
    run_with(loaded, |_| ())
}

/// As [`run`]; `started` is called with the relay once it runs. For tests, which break one of its actors.
#[doc(hidden)]
pub fn run_with(mut loaded: Loaded, started: impl FnOnce(&Relay)) -> anyhow::Result<()> {
    // Before there are threads: it takes variables out of the environment.
    let sockets = Sockets::of_process()?;
    let telemetry = Telemetry::new(&loaded.config.log);
    let log = logging::init(&loaded.config.log, &telemetry).context("log.output")?;
    raise_descriptor_limit()?;
    let budget = descriptor_budget(&mut loaded.config)?;
    for Finding { at, text } in loaded.warnings.iter().chain(&budget) {
        telemetry.emit(events::ConfigWarning { path: at, text });
    }
    let result = actix_rt::System::new().block_on(serve(loaded, sockets, telemetry.clone(), &log, started));
    telemetry.emit(events::Stopped { code: i32::from(result.is_err()) });
    result
}

async fn serve(
    loaded: Loaded,
    sockets: Sockets,
    telemetry: Telemetry,
    log: &LogGuard,
    started: impl FnOnce(&Relay),
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut succession = signal(SignalKind::user_defined2())?;
    let program = Program::of_process()?;
    let mut relay = Relay::start_on(sockets, &loaded, telemetry.clone())?;
    started(&relay);
    match relay.predecessor.take() {
        Some(predecessor) => {
            manager::took_over();
            predecessor.tell_ready();
        }
        None => manager::ready(),
    }
    let mut reloader = Reloader::new(loaded);
    // Where nobody can ask, nobody does.
    let mut orders = relay.orders.take().unwrap_or_else(|| mpsc::channel(1).1);
    let told = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break Leaving::Told,
                _ = interrupt.recv() => break Leaving::Told,
                _ = hangup.recv() => {
                    log.reopen();
                    reloader.reload(&relay, Some(log), "signal").await;
                }
                () = pause(reloader.watch()) => {
                    if reloader.look() {
                        reloader.reload(&relay, Some(log), "watch").await;
                    }
                }
                _ = succession.recv() => {
                    let replaced = tokio::select! {
                        replaced = replace(&program, &relay, &telemetry) => replaced,
                        // Who is told to end meanwhile ends the new process with it.
                        _ = terminate.recv() => break Leaving::Told,
                        _ = interrupt.recv() => break Leaving::Told,
                    };
                    if replaced {
                        break Leaving::Replaced;
                    }
                }
                Some(asked) = orders.recv() => {
                    if obey(asked, &mut reloader, &relay, log).await {
                        break Leaving::Told;
                    }
                }
                why = relay.failed() => break Leaving::Failed(why),
            }
        }
    };
    let why = tokio::select! {
        why = told => why,
        () = manager::feed(&relay, &telemetry) => Leaving::Told,
    };
    drop(orders);
    let replaced = why == Leaving::Replaced;
    if replaced {
        relay.close_http().await;
    } else {
        manager::stopping();
    }
    let feed = async {
        if replaced {
            // The watchdog is the new process's: fed from here too, it would not miss a new one that is stuck.
            std::future::pending::<()>().await;
        }
        manager::feed(&relay, &telemetry).await;
    };
    let drained = tokio::select! {
        () = relay.drain(why) => true,
        () = feed => false,
        // A second signal ends at once.
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    if drained {
        relay.stop().await;
    }
    if let Leaving::Failed(why) = why { Err(anyhow::anyhow!(why)) } else { Ok(()) }
}

/// Does what an operator asks for; whether that is to end.
async fn obey(asked: Asked, reloader: &mut Reloader, relay: &Relay, log: &LogGuard) -> bool {
    let Asked { order, answer } = asked;
    let ends = matches!(order, Order::Drain);
    let done = match order {
        Order::Reload => {
            let Reloaded { result, changes, warnings, error } = reloader.reload(relay, Some(log), "admin").await;
            Answer::Reloaded { result, changes, warnings, error }
        }
        Order::Drain => Answer::Draining,
        Order::LogLevel(level) => {
            level.into_iter().for_each(|level| log.set_level(level));
            Answer::LogLevel(log.level())
        }
        Order::Compare(view) => match View::new(reloader.running(), &view.nonce) {
            _ if view.nonce.len() > MAX_NONCE => Answer::Cannot("the nonce is too long"),
            running => Answer::Compared(running.changes(&view)),
        },
    };
    // Whoever asked may be gone; it is done all the same.
    let _ = answer.send(done);
    ends
}

/// Starts the program again and hands the sockets over. Whether the new process serves; where it does not, everything is as it was.
async fn replace(program: &Program, relay: &Relay, telemetry: &Telemetry) -> bool {
    let replaced = async {
        let successor = program.start(&relay.share().await?)?;
        telemetry.emit(events::UpgradeStarted { pid: successor.pid(), timeout: handover::PATIENCE });
        successor.ready().await
    };
    match replaced.await {
        Ok(pid) => telemetry.emit(events::UpgradeReady { pid }),
        Err(error) => {
            telemetry.emit(events::UpgradeFailed { error: &format!("{error:#}") });
            return false;
        }
    }
    true
}

/// `None` lasts for ever.
async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Raises the soft limit on open files to the hard one.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).context("raising the limit on open files")?;
    }
    Ok(())
}

/// Lowers the connection limit to what the limit on open files holds, and says so.
fn descriptor_budget(config: &mut Config) -> anyhow::Result<Option<Finding>> {
    let budget = config::fd_budget(config, getrlimit(Resource::Nofile).maximum).map_err(|e| anyhow::anyhow!("{e}"))?;
    config.connection_limit.max_total_connections = budget.connections;
    Ok(budget.warning)
}

/// The fingerprint that stands for the stream `name` ("app/stream") in logs and /status under this configuration.
///
/// # Errors
/// None today; the key was there, or the caller would not ask.
pub fn fingerprint(config: &Config, name: &str) -> anyhow::Result<String> {
    Ok(Telemetry::new(&config.log).fingerprint(name.as_bytes()))
}

/// Judge what a configuration says of upstreams and files.
pub const JUDGES: Judges<'static> = Judges { upstream: &judge_upstream, files: &judge_files };

/// What is wrong with the files of certificates and keys that `config` names.
pub fn judge_files(config: &Config) -> Vec<Objection> {
    let server = config.security.tls.as_ref().map(|files| tls::judge(files, SystemTime::now()));
    server.into_iter().flatten().chain(upstream::judge_private(config)).collect()
}

/// Whether `url` can be an upstream: its grammar, and for a literal address the guard.
///
/// # Errors
/// What is wrong, fit to be printed.
pub fn judge_upstream(url: &str, allowed: &[IpNetwork]) -> Result<(), String> {
    upstream::judge_literal(url, allowed).map_err(|problem| problem.to_string())
}
