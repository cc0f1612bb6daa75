//! `relay`: arguments in, exit code out.

mod cli;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use relay::app;
use relay::config::{self, Env, Loaded, Problems};

use cli::{Cli, Command, Part};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;
/// `EX_CONFIG` of sysexits.h. The systemd unit does not restart on it.
const CONFIGURATION: u8 = 78;
const FAILED: u8 = 1;
/// Where a relay answers that was told nothing else.
const USUAL_HEALTH: &str = "http://127.0.0.1:8080/health";

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(&cli).unwrap_or_else(|code| code),
        Err(error) => {
            // --help and --version are "errors" too, printed to standard output.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, ExitCode> {
    match &cli.command {
        Some(Command::Demo { part: Some(Part::Origin { listen }), .. }) => finish(app::demo_origin(*listen)),
        Some(Command::Demo { part: Some(Part::Publisher { url }), .. }) => finish(app::demo_publisher(url)),
        Some(Command::Demo { part: None, listen, http }) => finish(app::demo(*listen, http.0)),
        Some(Command::Health { url }) => health(url.as_deref()),
        Some(Command::Fingerprint { name, config }) => fingerprint(name, config.as_deref()),
        None if cli.print_schema => Ok(print(&format!("{:#}", config::schema()))),
        None if cli.check => check(cli.config.as_deref()),
        None => finish(app::run(load(cli.config.as_deref())?)),
    }
}

fn load(path: Option<&Path>) -> Result<Loaded, ExitCode> {
    config::load(path, &Env::of_process(), app::JUDGES).map_err(|problems| misconfigured(&problems))
}

fn check(path: Option<&Path>) -> Result<ExitCode, ExitCode> {
    let Loaded { config, mut warnings, source, .. } = load(path)?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match config::fd_budget(&config, limit) {
        Ok(budget) => warnings.extend(budget.warning),
        Err(error) => return Err(misconfigured(&Problems { source, errors: vec![error], warnings })),
    }
    for warning in &warnings {
        complain(&format!("{source}: warning: {warning}"));
    }
    Ok(print(&format!("{source}: ok")))
}

fn fingerprint(name: &str, path: Option<&Path>) -> Result<ExitCode, ExitCode> {
    let config = load(path)?.config;
    if config.log.fingerprint_key.is_none() {
        complain(
            "log.fingerprint_key is not set: each start takes a new key, so ask the running relay instead: /status?stream=app/stream",
        );
        return Err(ExitCode::from(CONFIGURATION));
    }
    match app::fingerprint(&config, name) {
        Ok(fingerprint) => Ok(print(&fingerprint)),
        Err(error) => finish(Err(error)),
    }
}

fn health(url: Option<&str>) -> Result<ExitCode, ExitCode> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => match own_health() {
            Some(url) => url,
            // Whoever restarts what is not well would do so for ever.
            None => return Ok(print("http_addr is empty: there is nothing to ask")),
        },
    };
    match app::health(&url) {
        Ok(answer) => Ok(print(answer.trim())),
        Err(error) => finish(Err(error)),
    }
}

/// Where a relay that was started here answers. A file that has become wrong since then does not make it ill.
fn own_health() -> Option<String> {
    let loaded = config::load(None, &Env::of_process(), app::JUDGES);
    loaded.map_or_else(|_| Some(USUAL_HEALTH.to_owned()), |loaded| app::health_url(&loaded.config))
}

fn misconfigured(problems: &Problems) -> ExitCode {
    complain(&problems.to_string());
    ExitCode::from(CONFIGURATION)
}

fn finish(result: anyhow::Result<()>) -> Result<ExitCode, ExitCode> {
    result.map(|()| ExitCode::SUCCESS).map_err(|error| {
        complain(&format!("relay: {error:#}"));
        ExitCode::from(FAILED)
    })
}

// A closed pipe (`relay --print-schema | head`) is no reason to fail.
fn print(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
