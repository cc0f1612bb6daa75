//! Every metric of the relay, in one table.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::sampled::{Asked, BufferUse, Frames};
use super::worker::{Latencies, Seen};
use super::{Side, labels, process};
use crate::config::LogLevel;

/// From a refused handshake to a day of streaming, seconds.
const DURATIONS: [f64; 12] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0];
/// From the same rack to the other side of the world, and then to the deadlines, seconds.
const LATENCIES: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// From a hop between two idle threads to an actor that is overrun, seconds.
const WAITS: [f64; 9] = [0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5];

/// From an upstream in the same rack to the longest usual hold, seconds.
const HOLDS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0];

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
    upstream_tls_duration: Histogram,
    upstream_handshake_duration: Histogram,
    pub(super) session_setup_duration: Histogram,
    pub(super) circuit_state: IntGaugeVec,
    pub(super) upstream_healthy: IntGaugeVec,
    upstream_drained: IntGaugeVec,
    pub(super) certificate_expiry: IntGauge,
    pub(super) certificate_reloads: IntCounterVec,
    upstream_sessions: IntGaugeVec,
    upstream_pool: IntCounterVec,
    pub(super) publishers_held: IntGauge,
    pub(super) publish_holds: IntCounter,
    pub(super) publish_holds_over: IntCounterVec,
    pub(super) publish_hold_duration: Histogram,
    pub(super) publish_hold_dropped_groups: IntCounter,
    pub(super) takeovers: IntCounter,
    pub(super) panics: IntCounterVec,
    pub(super) config_reloads: IntCounterVec,
    pub(super) admin_actions: IntCounterVec,
    pub(super) admin_refusals: IntCounterVec,
    pub(super) config_loaded: Gauge,
    pub(super) config_successful: IntGauge,
    pub(super) draining: IntGauge,
    log_level: IntGauge,
    targets: Arc<Mutex<BTreeSet<String>>>,
    actor_wait: HistogramVec,
    streams: IntGaugeVec,
    publishers_silent: IntGauge,
    publishers_without_key_frame: IntGauge,
    oldest_key_frame: Gauge,
    publisher_stalls: IntCounter,
    frames: Frames,
    buffers: Asked<BufferUse>,
    dropped_lines: Asked<u64>,
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
            upstream_tls_duration: table.histogram("rtmp_relay_upstream_tls_duration_seconds", &LATENCIES, "TLS handshakes with upstreams that succeeded, from the TCP connection on."),
            upstream_handshake_duration: table.histogram("rtmp_relay_upstream_handshake_duration_seconds", &LATENCIES, "RTMP handshakes with upstreams that succeeded, from the connection on."),
            session_setup_duration: table.histogram("rtmp_relay_session_setup_duration_seconds", &LATENCIES, "From accept until the stream passes."),
            circuit_state: table.gauges("rtmp_relay_circuit_state", &["target"], "Circuit of each upstream: 0 = closed (dials pass), 1 = half-open, 2 = open."),
            upstream_healthy: table.gauges("rtmp_relay_upstream_healthy", &["upstream"], "Whether each upstream is tried in its turn: 1 = yes, 0 = only after the others, since its last dial or its last checks failed."),
            upstream_drained: table.gauges("rtmp_relay_upstream_drained", &["upstream"], "Whether an operator has taken each upstream out of turn: 1 = it takes no new streams until it is enabled again."),
            certificate_expiry: table.gauge("rtmp_relay_tls_certificate_expiry_timestamp_seconds", "When the certificate that clients are shown expires, seconds since 1970; 0 without TLS."),
            certificate_reloads: table.counters("rtmp_relay_tls_certificate_reloads_total", &["result"], "Changed certificate files: loaded = served from then on, refused = cannot be used, the old one stays."),
            upstream_pool: table.counters("rtmp_relay_upstream_pool_total", &["result"], "Dials that found a spare connection (hit) or none (miss) where pool is on, and spares that ended or spoke before anybody used them (stale)."),
            upstream_sessions: table.gauges("rtmp_relay_upstream_sessions", &["upstream"], "Sessions and dials in progress at each upstream."),
            publishers_held: table.gauge("rtmp_relay_publishers_held", "Publishers whose upstream is gone and who are kept now."),
            publish_holds: table.counter("rtmp_relay_publish_holds_total", "Times that a publisher's upstream went away and the publisher was kept."),
            publish_holds_over: table.counters("rtmp_relay_publish_holds_over_total", &["result"], "Ends of these: resumed = another upstream took the stream, expired = none within publish_hold.max_time, refused = none ever will, ended = the client or the relay ended meanwhile."),
            publish_hold_duration: table.histogram("rtmp_relay_publish_hold_duration_seconds", &HOLDS, "From the loss of a publisher's upstream until another took the stream, or until the end."),
            publish_hold_dropped_groups: table.counter("rtmp_relay_publish_hold_dropped_groups_total", "Groups of pictures (sounds, where there is no video) that did not fit into publish_hold.max_bytes or max_total."),
            takeovers: table.counter("rtmp_relay_takeovers_total", "Streams that a publisher took over from an earlier connection."),
            panics: table.counters("rtmp_relay_panics_total", &["where"], "Panics that were caught; each is a bug worth a report."),
            config_reloads: table.counters("rtmp_relay_config_reloads_total", &["result"], "Reloads of the configuration: applied = something changed, unchanged = nothing did, invalid = it cannot be used, refused = it needs a restart and reload.partial is false."),
            admin_actions: table.counters("rtmp_relay_admin_actions_total", &["action", "result"], "What operators asked for through /admin: done = it was done, refused = what was asked for is not there or not possible, failed = the relay is ending or busy, left = whoever asked was gone before the answer."),
            admin_refusals: table.counters("rtmp_relay_admin_refusals_total", &["reason"], "Requests to /admin that nobody looked at: from outside of http_allowed_networks, without the token, from another machine where there is none, of a page in a browser, or with a body that is not JSON."),
            config_loaded: table.made(Gauge::new("rtmp_relay_config_last_reload_success_timestamp_seconds", "When the configuration that runs was loaded, seconds since 1970.")),
            config_successful: table.gauge("rtmp_relay_config_last_reload_successful", "Whether the last attempt to load a configuration succeeded."),
            draining: table.gauge("rtmp_relay_draining", "Whether the relay is emptying: 1 = it was told to end, by a signal or through /admin, or another process has taken its place."),
            log_level: table.gauge("rtmp_relay_log_level", "The least important lines that are written now, whatever the configuration says: 0 = error, 1 = warn, 2 = info, 3 = debug, 4 = trace."),
            targets: Arc::default(),
            actor_wait: table.histograms("rtmp_relay_actor_wait_seconds", &["actor"], &WAITS, "From the asking of a control actor to its answer, the wait in its mailbox included."),
            streams: table.gauges("rtmp_relay_streams", &["action"], "Sessions that relay now, by what the client does."),
            publishers_silent: table.gauge("rtmp_relay_publishers_silent", "Relaying publishers of whom nothing has come for 2 s or longer."),
            publishers_without_key_frame: table.gauge("rtmp_relay_publishers_without_key_frame", "Relaying publishers of video whose last key frame is 10 s old or older."),
            oldest_key_frame: table.made(Gauge::new("rtmp_relay_oldest_key_frame_seconds", "Longest time since the last key frame of any relaying publisher of video.")),
            publisher_stalls: table.counter("rtmp_relay_publisher_stalls_total", "Times that a relaying publisher fell silent for 2 s."),
            frames: table.registered(Frames::new("rtmp_relay_frame_latency_seconds", "What the relay adds to a frame: from the read that made a message whole until its last byte was taken by the far socket.", labels::DIRECTIONS)),
            buffers: table.registered(buffers()),
            dropped_lines: table.registered(Asked::new(&[("rtmp_relay_log_lines_dropped_total", "Log lines lost because the output did not take them.", |lost| *lost as f64)])),
            registry: table.0.clone(),
        };
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

    /// A publisher has lost its upstream; it is held until the answer is dropped.
    pub fn publisher_held(&self) -> OpenConnection {
        self.publishers_held.inc();
        OpenConnection(self.publishers_held.clone())
    }

    /// Sessions that `side` has ended for `reason`.
    pub fn ended(&self, side: Side, reason: &str) -> u64 {
        self.sessions_ended.with_label_values(&[side.as_str(), reason]).get()
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

    /// Names the upstreams whose circuits, health and sessions are shown; others are forgotten, and those that stay keep what they show.
    /// At start and at reload.
    pub fn set_targets<'a>(&self, labels: impl IntoIterator<Item = &'a str>) {
        let labels: BTreeSet<String> = labels.into_iter().map(str::to_owned).collect();
        let mut known = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in known.difference(&labels) {
            // Fails only for one that is not there.
            let _ = self.circuit_state.remove_label_values(&[gone]);
            let _ = self.upstream_sessions.remove_label_values(&[gone]);
            let _ = self.upstream_healthy.remove_label_values(&[gone]);
            let _ = self.upstream_drained.remove_label_values(&[gone]);
        }
        for new in labels.difference(&known) {
            self.circuit_state.with_label_values(&[new]).set(0);
            self.upstream_healthy.with_label_values(&[new]).set(1);
            self.upstream_sessions.with_label_values(&[new]).set(0);
            self.upstream_drained.with_label_values(&[new]).set(0);
        }
        *known = labels;
    }

    /// Of the upstreams of [`Self::set_targets`], these are drained by an operator, and no others.
    pub fn show_drained(&self, labels: &BTreeSet<&str>) {
        for known in self.targets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.upstream_drained.with_label_values(&[known]).set(i64::from(labels.contains(known.as_str())));
        }
    }

    /// Lines of `level` and above are written from now on.
    pub(super) fn show_log_level(&self, level: LogLevel) {
        self.log_level.set(match level {
            LogLevel::Error => 0,
            LogLevel::Warn => 1,
            LogLevel::Info => 2,
            LogLevel::Debug => 3,
            LogLevel::Trace => 4,
        });
    }

    /// From now on `lost` is asked how many log lines were lost since start.
    pub(super) fn watch_log(&self, lost: impl Fn() -> u64 + Send + Sync + 'static) {
        self.dropped_lines.watch(lost);
    }

    /// From now on `buffers` is asked how the buffers stand; it must not block.
    pub fn watch_buffers(&self, buffers: impl Fn() -> BufferUse + Send + Sync + 'static) {
        self.buffers.watch(buffers);
    }

    /// Somebody asked for a spare connection; `result` is one of [`labels::POOL`].
    pub fn pool_asked(&self, result: &'static str) {
        self.upstream_pool.with_label_values(&[result]).inc();
    }

    /// A TLS handshake with an upstream has succeeded.
    pub fn upstream_secured(&self, took: Duration) {
        self.upstream_tls_duration.observe(took.as_secs_f64());
    }

    /// An RTMP handshake with an upstream has succeeded.
    pub fn upstream_handshaken(&self, took: Duration) {
        self.upstream_handshake_duration.observe(took.as_secs_f64());
    }

    /// Times the questions to one of [`labels::ACTORS`].
    pub fn waits(&self, actor: &'static str) -> Waits {
        Waits(self.actor_wait.with_label_values(&[actor]))
    }

    /// What the workers have counted, summed: latencies towards upstreams and towards clients, streams, stalls since start.
    pub(super) fn show_workers(&self, latencies: [Latencies; 2], seen: Seen, stalls: u64) {
        self.frames.show(latencies);
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.streams.with_label_values(&[labels::PUBLISH]).set(count(seen.publishers));
        self.streams.with_label_values(&[labels::PLAY]).set(count(seen.players));
        self.publishers_silent.set(count(seen.silent));
        self.publishers_without_key_frame.set(count(seen.without_key_frame));
        self.oldest_key_frame.set(seen.oldest_key_frame.as_secs_f64());
        self.publisher_stalls.inc_by(stalls.saturating_sub(self.publisher_stalls.get()));
    }

    fn show_zeros(&self) {
        labels::STATUSES.iter().for_each(|status| drop(self.connections.with_label_values(&[status])));
        labels::REJECTIONS.iter().for_each(|reason| drop(self.rejections.with_label_values(&[reason])));
        labels::ERROR_TYPES.iter().for_each(|kind| drop(self.upstream_errors.with_label_values(&[kind])));
        labels::RELOADS.iter().for_each(|result| drop(self.certificate_reloads.with_label_values(&[result])));
        labels::ACTORS.iter().for_each(|actor| drop(self.actor_wait.with_label_values(&[actor])));
        labels::ACTIONS.iter().for_each(|action| drop(self.streams.with_label_values(&[action])));
        labels::CONFIG_RELOADS.iter().for_each(|result| drop(self.config_reloads.with_label_values(&[result])));
        for action in labels::ADMIN_ACTIONS {
            labels::ADMIN_RESULTS.iter().for_each(|result| drop(self.admin_actions.with_label_values(&[action, result])));
        }
        labels::ADMIN_REFUSALS.iter().for_each(|reason| drop(self.admin_refusals.with_label_values(&[reason])));
        labels::HOLDS.iter().for_each(|result| drop(self.publish_holds_over.with_label_values(&[result])));
        labels::POOL.iter().for_each(|result| drop(self.upstream_pool.with_label_values(&[result])));
        labels::PLACES.iter().for_each(|place| drop(self.panics.with_label_values(&[place])));
        for (side, reasons) in labels::ENDINGS {
            reasons.iter().for_each(|reason| drop(self.sessions_ended.with_label_values(&[side.as_str(), reason])));
        }
    }
}

/// One of those that a gauge counts, until this is dropped: an accepted socket, or a publisher that is held.
#[must_use = "it is counted until this is dropped"]
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

/// Times the questions to one actor. Cheap to clone; all clones count in the same place.
#[derive(Debug, Clone)]
pub struct Waits(Histogram);

impl Waits {
    /// Waits for the answer, and notes in `waits`, where there is one, how long that took. An answer that nobody waits for any
    /// more is not noted.
    pub async fn time<T>(waits: Option<&Self>, answer: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = answer.await;
        if let Some(Self(histogram)) = waits {
            histogram.observe(began.elapsed().as_secs_f64());
        }
        answer
    }
}

fn buffers() -> Asked<BufferUse> {
    Asked::new(&[
        ("rtmp_relay_buffers_lent_bytes", "Buffers that sessions have bytes in now, bytes.", |now: &BufferUse| {
            now.lent_bytes as f64
        }),
        ("rtmp_relay_buffers_made_total", "Buffers that were made because none was spare.", |now| now.made as f64),
        (
            "rtmp_relay_buffers_max_bytes",
            "buffers.max_total: bytes lent beyond which partial messages pass through instead of being held.",
            |now| now.max_bytes as f64,
        ),
        (
            "rtmp_relay_messages_unheld_total",
            "Messages that were passed on in pieces because buffers.max_total was reached.",
            |now| now.unheld as f64,
        ),
    ])
}

/// Makes metrics and registers them. Names and labels are constants, right and unlike each other: the test below makes
/// them all.
struct Table(Registry);

impl Table {
    fn register(&self, metric: impl Collector + 'static) {
        self.0.register(Box::new(metric)).expect("each name is registered once");
    }

    fn made<T: Collector + Clone + 'static>(&self, metric: prometheus::Result<T>) -> T {
        self.registered(metric.expect("names, labels and buckets are constants that prometheus accepts"))
    }

    /// For metrics that were made elsewhere.
    fn registered<T: Collector + Clone + 'static>(&self, metric: T) -> T {
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

    fn histograms(&self, name: &str, labels: &[&str], buckets: &[f64], help: &str) -> HistogramVec {
        self.made(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    /// What Prometheus' own libraries say of a process, and our version.
    fn about_the_process(&self) {
        self.register(process::standing());
        let build = self.gauges("rtmp_relay_build_info", &["version"], "Always 1; the version is in the label.");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }
}
