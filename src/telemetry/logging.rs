//! How do lines get from an event to where the operator reads them?

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::Telemetry;
use super::output::{Output, Signals};
use crate::config::{Log, LogFormat, LogLevel, LogOutput};

/// Lines that wait for a slow output; more are dropped and counted, for no session may wait for a disk.
const WAITING_LINES: usize = 32_768;

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file of `log.output` cannot be opened.
    #[error("{path}, which log.output names, cannot be opened: {source}")]
    Open {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is one already.
    #[error("the log was set up twice")]
    Twice,
}

/// Keeps the log alive. Drop it last: what still waits is written then, for at most a second.
#[must_use = "the log ends when this is dropped"]
pub struct LogGuard {
    signals: Arc<Signals>,
    _worker: WorkerGuard,
}

impl LogGuard {
    /// Opens the file again at the next line; for SIGHUP. Without a file nothing happens.
    pub fn reopen(&self) {
        self.signals.reopen.store(true, Relaxed);
    }
}

/// Sets the log of this process up, once. Lines that are lost count in `telemetry`'s metrics.
///
/// # Errors
/// [`LogError`].
pub fn init(log: &Log, telemetry: &Telemetry) -> Result<LogGuard, LogError> {
    let (writer, guard, lost) = writer(log)?;
    subscriber(log, writer).try_init().map_err(|_| LogError::Twice)?;
    telemetry.metrics().watch_log(lost);
    std::panic::set_hook(Box::new(tell_panic));
    Ok(guard)
}

/// What takes lines without ever waiting, and what tells how many it lost.
fn writer(log: &Log) -> Result<(NonBlocking, LogGuard, impl Fn() -> u64 + Send + Sync + use<>), LogError> {
    let signals = Arc::new(Signals::default());
    let output = Output::open(&log.output, Arc::clone(&signals)).map_err(|source| open_error(&log.output, source))?;
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name("relay-log");
    let (writer, worker) = builder.finish(output);
    let (dropped, failed) = (writer.error_counter(), Arc::clone(&signals));
    let lost = move || (dropped.dropped_lines() as u64).saturating_add(failed.lost.load(Relaxed));
    Ok((writer, LogGuard { signals, _worker: worker }, lost))
}

fn open_error(output: &LogOutput, source: io::Error) -> LogError {
    let path = match output {
        LogOutput::Path(path) => path.display().to_string(),
        LogOutput::Stderr => "stderr".to_owned(),
        LogOutput::Stdout => "stdout".to_owned(),
    };
    LogError::Open { path, source }
}

/// Where a panic was, as a line like any other. Its words only where they are a constant of the program: others may quote
/// what a peer sent.
fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let words = panic.payload().downcast_ref::<&'static str>().copied();
    let place = panic.location().map(ToString::to_string);
    tracing::error!(event = "panic_raised", place, words, "a bug: the program panicked");
}

/// What formats lines as `log` asks and gives them to `writer`. Libraries are heard from "warn" up.
pub fn subscriber<W>(log: &Log, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = level(log.level);
    let libraries = LevelFilter::from_level(level.min(Level::WARN));
    let filter = Targets::new().with_default(libraries).with_target("relay", level);
    let lines = fmt::layer().with_writer(writer).with_target(false).with_ansi(colours(log));
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter))
}

fn colours(log: &Log) -> bool {
    match (log.format, &log.output) {
        (LogFormat::Text, LogOutput::Stderr) => io::stderr().is_terminal(),
        (LogFormat::Text, LogOutput::Stdout) => io::stdout().is_terminal(),
        (LogFormat::Text, LogOutput::Path(_)) | (LogFormat::Json, _) => false,
    }
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }
}

/// Runs `act` with its lines going to `writer`, for tests.
#[cfg(test)]
pub(super) fn hear<T, W>(log: &Log, writer: W, act: impl FnOnce() -> T) -> T
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // While there is just one subscriber, tracing asks that of the thread which comes to an event first whether the event is
    // of interest; without this second one, a test beside us that hears nothing would switch our lines off.
    static ANOTHER: std::sync::LazyLock<tracing::Dispatch> =
        std::sync::LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));
    std::sync::LazyLock::force(&ANOTHER);
    tracing::subscriber::with_default(subscriber(log, writer), act)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::config::StreamNames;

    fn log(output: LogOutput) -> Log {
        let (format, level) = (LogFormat::Json, LogLevel::Info);
        Log { format, level, output, stream_names: StreamNames::Masked, fingerprint_key: None }
    }

    #[test]
    fn a_reader_that_is_stuck_blocks_nobody_and_what_it_misses_is_counted() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let log = log(LogOutput::Path(path.into()));
        let (writer, guard, lost) = writer(&log).unwrap();
        let telemetry = Telemetry::silent();
        telemetry.metrics().watch_log(lost);
        let lines = WAITING_LINES + 10_000;
        hear(&log, writer, || {
            (0..lines).for_each(|number| tracing::info!(event = "test", number, "a line of some length"));
        });
        let families = telemetry.metrics().registry().gather();
        let family = families.iter().find(|family| family.name() == "rtmp_relay_log_lines_dropped_total").unwrap();
        let missed = family.get_metric()[0].get_counter().get_value();
        assert!(missed > 0.0, "a pipe holds some hundred lines");
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        drop((guard, pipe));
        let text = reading.join().unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "whole lines only");
        assert_eq!(text.lines().count() + missed as usize, lines);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
        let error = writer(&log(LogOutput::Path("/nowhere/relay.log".into()))).err().unwrap();
        assert!(error.to_string().starts_with("/nowhere/relay.log, which log.output names, cannot be opened"), "{error}");
    }
}
