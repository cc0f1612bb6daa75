//! Who knows whom?
//!
//! [`Relay`] is the relay wired together; [`run`] runs one as a process: log, limits, signals, drain.

mod demo;
mod doors;
mod health;
mod relay;

use std::time::SystemTime;

use anyhow::Context;
use ipnetwork::IpNetwork;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

pub use demo::{demo, demo_origin, demo_publisher};
pub use health::{health, health_url};
#[doc(hidden)]
pub use relay::Actors;
pub use relay::Relay;

use crate::config::{self, Config, Judges, Loaded, Objection};
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
pub fn run_with(loaded: Loaded, started: impl FnOnce(&Relay)) -> anyhow::Result<()> {
    let Loaded { mut config, warnings, .. } = loaded;
    let telemetry = Telemetry::new(&config.log);
    let log = logging::init(&config.log, &telemetry).context("log.output")?;
    for warning in &warnings {
        telemetry.emit(events::ConfigWarning { path: &warning.at, text: &warning.text });
    }
    raise_descriptor_limit(&mut config, &telemetry)?;
    let result = actix_rt::System::new().block_on(serve(&config, telemetry.clone(), &log, started));
    telemetry.emit(events::Stopped { code: i32::from(result.is_err()) });
    result
}

async fn serve(config: &Config, telemetry: Telemetry, log: &LogGuard, started: impl FnOnce(&Relay)) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let relay = Relay::start(config, telemetry)?;
    started(&relay);
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => log.reopen(),
            why = relay.failed() => break Some(why),
        }
    };
    // Also behind a failure: streams that run are not cut for it.
    tokio::select! {
        () = relay.drain() => relay.stop().await,
        // A second signal ends at once.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    failed.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
}

/// Raises the soft limit on open files to the hard one, and lowers the connection limit where even that is too small.
fn raise_descriptor_limit(config: &mut Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).context("raising the limit on open files")?;
    }
    let budget = config::fd_budget(config, limit.maximum).map_err(|e| anyhow::anyhow!("{e}"))?;
    if let Some(warning) = &budget.warning {
        telemetry.emit(events::ConfigWarning { path: &warning.at, text: &warning.text });
    }
    config.connection_limit.max_total_connections = budget.connections;
    Ok(())
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
