//! How do lines get from an event to where the operator reads them?

use std::io::{self, IsTerminal};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::output::{Output, Signals};
use super::{Metrics, Telemetry};
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
    control: Control,
    metrics: Metrics,
    writer: NonBlocking,
    _worker: WorkerGuard,
}

impl LogGuard {
    /// Opens the file again at the next line; for SIGHUP. Without a file nothing happens.
    pub fn reopen(&self) {
        self.signals.reopen.store(true, Relaxed);
    }

    /// The least important level that is written.
    pub fn level(&self) -> LogLevel {
        *self.control.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the next line on, lines of `level` and above are written.
    pub fn set_level(&self, level: LogLevel) {
        *self.control.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
        // Fails only where there is no log any more.
        let _ = self.control.filter.reload(filter(level));
        self.metrics.show_log_level(level);
    }

    /// From the next line on, lines have the shape that `log` asks for. Its output stays what it was.
    pub fn set_format(&self, log: &Log) {
        let _ = self.control.lines.reload(lines(log, self.writer.clone()));
    }
}

/// What formats lines, and can be put in another's place.
type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// The handles on what a reload may change.
struct Control {
    lines: reload::Handle<Lines, Registry>,
    filter: reload::Handle<Targets, Registry>,
    level: Mutex<LogLevel>,
}

/// Sets the log of this process up, once. Lines that are lost count in `telemetry`'s metrics.
///
/// # Errors
/// [`LogError`].
pub fn init(log: &Log, telemetry: &Telemetry) -> Result<LogGuard, LogError> {
    let Opened { writer, signals, worker, lost } = open(log)?;
    let (subscriber, control) = subscriber(log, writer.clone());
    subscriber.try_init().map_err(|_| LogError::Twice)?;
    telemetry.metrics().watch_log(lost);
    std::panic::set_hook(Box::new(tell_panic));
    let metrics = telemetry.metrics().clone();
    metrics.show_log_level(log.level);
    Ok(LogGuard { signals, control, metrics, writer, _worker: worker })
}

/// An output that is open.
struct Opened<L> {
    /// Takes lines without ever waiting.
    writer: NonBlocking,
    signals: Arc<Signals>,
    worker: WorkerGuard,
    /// Tells how many lines were lost.
    lost: L,
}

fn open(log: &Log) -> Result<Opened<impl Fn() -> u64 + Send + Sync + use<>>, LogError> {
    let signals = Arc::new(Signals::default());
    let output = Output::open(&log.output, Arc::clone(&signals)).map_err(|source| open_error(&log.output, source))?;
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name("relay-log");
    let (writer, worker) = builder.finish(output);
    let (dropped, failed) = (writer.error_counter(), Arc::clone(&signals));
    let lost = move || (dropped.dropped_lines() as u64).saturating_add(failed.lost.load(Relaxed));
    Ok(Opened { writer, signals, worker, lost })
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
fn subscriber<W>(log: &Log, writer: W) -> (impl Subscriber + Send + Sync + use<W>, Control)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (lines, lines_handle) = reload::Layer::new(lines(log, writer));
    let (filter, filter_handle) = reload::Layer::new(filter(log.level));
    let control = Control { lines: lines_handle, filter: filter_handle, level: Mutex::new(log.level) };
    (tracing_subscriber::registry().with(lines.with_filter(filter)), control)
}

fn lines<W>(log: &Log, writer: W) -> Lines
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_target(false).with_ansi(colours(log));
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    }
}

fn filter(log_level: LogLevel) -> Targets {
    let level = level(log_level);
    let libraries = LevelFilter::from_level(level.min(Level::WARN));
    Targets::new().with_default(libraries).with_target("relay", level)
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
    tracing::subscriber::with_default(subscriber(log, writer).0, act)
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
        let Opened { writer, worker, lost, .. } = open(&log).unwrap();
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
        drop((worker, pipe));
        let text = reading.join().unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "whole lines only");
        assert_eq!(text.lines().count() + missed as usize, lines);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
        let error = open(&log(LogOutput::Path("/nowhere/relay.log".into()))).err().unwrap();
        assert!(error.to_string().starts_with("/nowhere/relay.log, which log.output names, cannot be opened"), "{error}");
    }

    #[test]
    fn level_and_shape_change_while_the_log_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.log");
        let log = log(LogOutput::Path(path.clone()));
        let Opened { writer, signals, worker, .. } = open(&log).unwrap();
        let (subscriber, control) = subscriber(&log, writer.clone());
        let metrics = Telemetry::silent().metrics().clone();
        let guard = LogGuard { signals, control, metrics, writer, _worker: worker };
        // See `hear`.
        let _another = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "relay", "one");
            guard.set_level(LogLevel::Debug);
            assert_eq!(guard.level(), LogLevel::Debug);
            tracing::debug!(target: "relay", "two");
            guard.set_format(&Log { format: LogFormat::Text, ..log.clone() });
            tracing::debug!(target: "relay", "three");
        });
        drop(guard);
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with('{') && lines[0].contains("two"), "{text}");
        assert!(!lines[1].starts_with('{') && lines[1].contains("three"), "{text}");
    }
}
