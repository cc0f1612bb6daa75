//! Metrics whose truth lies elsewhere: asked for when they are read, or summed once a second.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::worker::{BOUNDS, Latencies};

/// The buffers of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BufferUse {
    /// Bytes of the buffers that are lent now.
    pub lent_bytes: u64,
    /// Bytes lent beyond which messages are no longer held.
    pub max_bytes: u64,
    /// Buffers that were made because none was spare.
    pub made: u64,
    /// Messages that were passed on in pieces because of the bound.
    pub unheld: u64,
}

/// Says how things stand now; must not block.
type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// Numbers that are asked of `T`, which somebody else keeps. Zero until there is somebody to ask.
#[derive(Clone)]
pub(super) struct Asked<T> {
    rows: Arc<Vec<AskedRow<T>>>,
    source: Arc<Mutex<Option<Source<T>>>>,
}

/// Name, help and value of a number. Names of counters end in `_total`.
pub(super) type Row<'a, T> = (&'a str, &'a str, fn(&T) -> f64);

struct AskedRow<T> {
    desc: Desc,
    kind: MetricType,
    value: fn(&T) -> f64,
}

impl<T: Default> Asked<T> {
    /// All of them at once, so that they are of one moment.
    pub(super) fn new(rows: &[Row<'_, T>]) -> Self {
        let row = |(name, help, value): &Row<'_, T>| AskedRow {
            desc: described(name, help, &[]),
            kind: if name.ends_with("_total") { MetricType::COUNTER } else { MetricType::GAUGE },
            value: *value,
        };
        Self { rows: Arc::new(rows.iter().map(row).collect()), source: Arc::default() }
    }

    /// Whom to ask from now on.
    pub(super) fn watch(&self, source: impl Fn() -> T + Send + Sync + 'static) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(source));
    }
}

impl<T: Default> Collector for Asked<T> {
    fn desc(&self) -> Vec<&Desc> {
        self.rows.iter().map(|row| &row.desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = source.map_or_else(T::default, |ask| ask());
        let family = |row: &AskedRow<T>| family(&row.desc, row.kind, vec![sample(row.kind, (row.value)(&now))]);
        self.rows.iter().map(family).collect()
    }
}

/// How long whole messages stayed here, by direction: the workers' counts, summed by the collector.
#[derive(Clone)]
pub(super) struct Frames {
    desc: Arc<Desc>,
    directions: [&'static str; 2],
    sums: Arc<Mutex<[Latencies; 2]>>,
}

impl Frames {
    pub(super) fn new(name: &str, help: &str, directions: [&'static str; 2]) -> Self {
        Self { desc: Arc::new(described(name, help, &["direction"])), directions, sums: Arc::default() }
    }

    /// Shows these sums, in the order of the directions.
    pub(super) fn show(&self, sums: [Latencies; 2]) {
        *self.sums.lock().unwrap_or_else(PoisonError::into_inner) = sums;
    }
}

impl Collector for Frames {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let sums = *self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = self.directions.iter().zip(&sums).map(|(direction, sum)| {
            let mut metric = Metric::default();
            let mut label = LabelPair::default();
            label.set_name("direction".to_owned());
            label.set_value((*direction).to_owned());
            metric.set_label(vec![label]);
            metric.set_histogram(histogram(sum));
            metric
        });
        vec![family(&self.desc, MetricType::HISTOGRAM, metrics.collect())]
    }
}

fn histogram(sum: &Latencies) -> Histogram {
    const NANOS: f64 = 1e9;
    let mut count = 0;
    let bucket = |(&bound, &n): (&u64, &u64)| {
        count += n;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound as f64 / NANOS);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(BOUNDS.iter().zip(&sum.buckets).map(bucket).collect());
    // Of the buckets, not of a counter of its own: the workers go on counting while they are summed.
    histogram.set_sample_count(sum.buckets.iter().sum());
    histogram.set_sample_sum(sum.nanos as f64 / NANOS);
    histogram
}

fn described(name: &str, help: &str, labels: &[&str]) -> Desc {
    let labels = labels.iter().map(ToString::to_string).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, Default::default()).expect("constants that prometheus accepts")
}

fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn sample(kind: MetricType, value: f64) -> Metric {
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
