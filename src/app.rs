//! Who knows whom?
//!
//! [`Relay`] is the relay wired together; [`run`] runs one as a process: log, limits, signals, drain.

mod change;
mod demo;
mod doors;
mod drain;
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

pub use demo::{demo, demo_origin, demo_publisher};
pub use drain::Leaving;
pub use health::{health, health_url};
#[doc(hidden)]
pub use relay::Actors;
pub use relay::Relay;
pub use sockets::Sockets;

use reload::Reloader;

use crate::config::{self, Config, Finding, Judges, Loaded, Objection};
use crate::telemetry::logging::{self, LogGuard};
use crate::telemetry::{Telemetry, events};
use crate::tls;
use crate::upstream;

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
    let relay = Relay::start_on(sockets, &loaded, telemetry.clone())?;
    started(&relay);
    manager::ready();
    let mut reloader = Reloader::new(loaded);
    let told = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                _ = hangup.recv() => {
                    log.reopen();
                    reloader.reload(&relay, Some(log), "signal").await;
                }
                () = pause(reloader.watch()) => {
                    if reloader.look() {
                        reloader.reload(&relay, Some(log), "watch").await;
                    }
                }
                why = relay.failed() => break Some(why),
            }
        }
    };
    let failed = tokio::select! {
        failed = told => failed,
        () = manager::feed(&relay, &telemetry) => None,
    };
    manager::stopping();
    // Also behind a failure: streams that run are not cut for it.
    let why = if failed.is_some() { Leaving::Failed } else { Leaving::Told };
    let drained = tokio::select! {
        () = relay.drain(why) => true,
        () = manager::feed(&relay, &telemetry) => false,
        // A second signal ends at once.
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    if drained {
        relay.stop().await;
    }
    failed.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
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
