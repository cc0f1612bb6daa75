//! Every metric of the relay, in one table.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::labels;

/// From a refused handshake to a day of streaming, seconds.
const DURATIONS: [f64; 12] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0];
/// From the same rack to the other side of the world, and then to the deadlines, seconds.
const LATENCIES: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The handles. Cheap to clone; all clones count in the same place.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub(super) active_connections: IntGauge,
    pub(super) connections: IntCounterVec,
    pub(super) empty_connections: IntCounter,
    pub(super) connection_duration: Histogram,
    pub(super) bytes_upstream: IntCounter,
    pub(super) bytes_downstream: IntCounter,
    pub(super) sessions_ended: IntCounterVec,
    pub(super) rejections: IntCounterVec,
    pub(super) rate_limit_rejections: IntCounter,
    pub(super) connection_limit_rejections: IntCounter,
    pub(super) auth_failures: IntCounter,
    pub(super) accept_errors: IntCounter,
    pub(super) upstream_errors: IntCounterVec,
    pub(super) upstream_retries: IntCounter,
    pub(super) upstream_connect_duration: Histogram,
    pub(super) circuit_state: IntGaugeVec,
    pub(super) upstream_healthy: IntGaugeVec,
    upstream_sessions: IntGaugeVec,
    pub(super) panics: IntCounterVec,
    dropped_lines: DroppedLines,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, at zero, every label set of [`labels`] among them.
    pub fn new() -> Self {
        let table = Table(Registry::new());
        let bytes = table.counters(
            "rtmp_relay_bytes_total",
            &["direction"],
            "Bytes of streams written: upstream = towards upstreams, downstream = towards clients; counted while they run.",
        );
        let metrics = Self {
            active_connections: table.gauge("rtmp_relay_active_connections", "Accepted client sockets that are open now."),
            connections: table.counters("rtmp_relay_connections_total", &["status"], "Accepted client sockets, each counted once at its end: success = relayed and ended without a fault of relay or upstream, rejected = by limit, authentication, guard or policy, error = all else."),
            empty_connections: table.counter("rtmp_relay_empty_connections_total", "Client sockets that closed without a byte, as load balancers' checks do; in no status of connections_total."),
            connection_duration: table.histogram("rtmp_relay_connection_duration_seconds", &DURATIONS, "From accept to end, of connections with status success or error."),
            bytes_upstream: bytes.with_label_values(&[labels::UPSTREAM]),
            bytes_downstream: bytes.with_label_values(&[labels::DOWNSTREAM]),
            sessions_ended: table.counters("rtmp_relay_sessions_ended_total", &["side", "reason"], "Ends of sessions by who ended them and why."),
            rejections: table.counters("rtmp_relay_rejections_total", &["reason"], "Refused clients by reason."),
            rate_limit_rejections: table.counter("rtmp_relay_rate_limit_rejections_total", "Clients refused because their address connects too often."),
            connection_limit_rejections: table.counter("rtmp_relay_connection_limit_rejections_total", "Clients refused because all places, or all places of their address, are taken."),
            auth_failures: table.counter("rtmp_relay_auth_failures_total", "Clients refused because of their token."),
            accept_errors: table.counter("rtmp_relay_accept_errors_total", "Failures to accept a client's socket."),
            upstream_errors: table.counters("rtmp_relay_upstream_errors_total", &["error_type"], "Dials, handshakes and running connections to upstreams that failed."),
            upstream_retries: table.counter("rtmp_relay_upstream_retries_total", "Waits before another dial."),
            upstream_connect_duration: table.histogram("rtmp_relay_upstream_connect_duration_seconds", &LATENCIES, "Name look-up and TCP connect of successful dials."),
            circuit_state: table.gauges("rtmp_relay_circuit_state", &["target"], "Circuit of each upstream: 0 = closed (dials pass), 1 = half-open, 2 = open."),
            upstream_healthy: table.gauges("rtmp_relay_upstream_healthy", &["upstream"], "Whether each upstream is tried in its turn: 1 = yes, 0 = only after the others, since its last dial or its last checks failed."),
            upstream_sessions: table.gauges("rtmp_relay_upstream_sessions", &["upstream"], "Sessions and dials in progress at each upstream."),
            panics: table.counters("rtmp_relay_panics_total", &["where"], "Panics that were caught; each is a bug worth a report."),
            dropped_lines: DroppedLines::new(),
            registry: table.0.clone(),
        };
        table.register(metrics.dropped_lines.clone());
        table.about_the_process();
        metrics.show_zeros();
        metrics
    }

    /// For /metrics, and for metrics of others' making.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A socket was accepted; it is active until the answer is dropped.
    pub fn connection_opened(&self) -> OpenConnection {
        self.active_connections.inc();
        OpenConnection(self.active_connections.clone())
    }

    /// Bytes written so far towards upstreams and towards clients.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_upstream.get(), self.bytes_downstream.get())
    }

    /// A session is, or tries to be, at the upstream with this label until the answer is dropped.
    pub fn session_at(&self, label: &str) -> SessionAtUpstream {
        let gauge = self.upstream_sessions.with_label_values(&[label]);
        gauge.inc();
        SessionAtUpstream(gauge)
    }

    /// Names the upstreams whose circuits, health and sessions are shown. At start.
    pub fn set_targets<'a>(&self, labels: impl IntoIterator<Item = &'a str>) {
        self.circuit_state.reset();
        self.upstream_healthy.reset();
        self.upstream_sessions.reset();
        for label in labels {
            self.circuit_state.with_label_values(&[label]).set(0);
            self.upstream_healthy.with_label_values(&[label]).set(1);
            self.upstream_sessions.with_label_values(&[label]).set(0);
        }
    }

    /// From now on `lost` is asked how many log lines were lost since start.
    pub(super) fn watch_log(&self, lost: impl Fn() -> u64 + Send + Sync + 'static) {
        self.dropped_lines.watch(Arc::new(lost));
    }

    fn show_zeros(&self) {
        labels::STATUSES.iter().for_each(|status| drop(self.connections.with_label_values(&[status])));
        labels::REJECTIONS.iter().for_each(|reason| drop(self.rejections.with_label_values(&[reason])));
        labels::ERROR_TYPES.iter().for_each(|kind| drop(self.upstream_errors.with_label_values(&[kind])));
        labels::PLACES.iter().for_each(|place| drop(self.panics.with_label_values(&[place])));
        for (side, reasons) in labels::ENDINGS {
            reasons.iter().for_each(|reason| drop(self.sessions_ended.with_label_values(&[side.as_str(), reason])));
        }
    }
}

/// One accepted socket, active until this is dropped.
#[must_use = "the connection stops being active when this is dropped"]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One session at an upstream, counted until this is dropped.
#[must_use = "the session is counted until this is dropped"]
pub struct SessionAtUpstream(IntGauge);

impl Drop for SessionAtUpstream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes metrics and registers them. Names and labels are constants, right and unlike each other: the test below makes
/// them all.
struct Table(Registry);

impl Table {
    fn register(&self, metric: impl Collector + 'static) {
        self.0.register(Box::new(metric)).expect("each name is registered once");
    }

    fn made<T: Collector + Clone + 'static>(&self, metric: prometheus::Result<T>) -> T {
        let metric = metric.expect("names, labels and buckets are constants that prometheus accepts");
        self.register(metric.clone());
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.made(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, labels: &[&str], help: &str) -> IntCounterVec {
        self.made(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.made(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, labels: &[&str], help: &str) -> IntGaugeVec {
        self.made(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, buckets: &[f64], help: &str) -> Histogram {
        self.made(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    /// What Prometheus' own libraries say of a process, and our version.
    fn about_the_process(&self) {
        let start: Gauge = self.made(Gauge::new("process_start_time_seconds", "Start of the process, seconds since 1970."));
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
        let build = self.gauges("rtmp_relay_build_info", &["version"], "Always 1; the version is in the label.");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }
}

type Lost = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A counter that asks its source when it is read: the log's writer counts what it drops by itself.
#[derive(Clone)]
struct DroppedLines {
    counter: IntCounter,
    source: Arc<Mutex<Option<Lost>>>,
}

impl DroppedLines {
    fn new() -> Self {
        let help = "Log lines lost because the output did not take them.";
        let counter = IntCounter::new("rtmp_relay_log_lines_dropped_total", help).expect("a constant that prometheus accepts");
        Self { counter, source: Arc::default() }
    }

    fn watch(&self, lost: Lost) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(lost);
    }
}

impl Collector for DroppedLines {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Held while adding, so that two readers do not add the same lines twice.
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lost) = &*source {
            self.counter.inc_by(lost().saturating_sub(self.counter.get()));
        }
        self.counter.collect()
    }
}
