//! What the generator's threads share: the clock, what is measured, and how many streams flow.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub struct Gauges {
    start: Instant,
    measuring: AtomicBool,
    bytes: AtomicU64,
    latencies: Mutex<Vec<u32>>,
    lateness: Mutex<Vec<u32>>,
    /// Streams that flow: those with a lower number.
    pub active: AtomicUsize,
    /// Streams that the engine has.
    pub sources: AtomicUsize,
    /// Receivers that the engine has.
    pub sinks: AtomicUsize,
    /// The end of the run.
    pub end: AtomicBool,
}

/// What was counted between two moments.
#[derive(Debug, Default)]
pub struct Counted {
    /// Received.
    pub bytes: u64,
    /// In which time.
    pub time: Duration,
    /// From a frame's last segment to its whole arrival, µs, sorted.
    pub latencies: Vec<u32>,
    /// How late the generator itself was with a frame's last segment, µs, sorted.
    pub lateness: Vec<u32>,
}

impl Gauges {
    /// The clock starts.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            measuring: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            latencies: Mutex::default(),
            lateness: Mutex::default(),
            active: AtomicUsize::new(0),
            sources: AtomicUsize::new(0),
            sinks: AtomicUsize::new(0),
            end: AtomicBool::new(false),
        }
    }

    /// µs since the start.
    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Notes received bytes.
    pub fn received(&self, bytes: usize) {
        if self.measuring.load(Relaxed) {
            self.bytes.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Notes a whole frame whose last segment was due at `due`, µs.
    pub fn frame(&self, due: u64) {
        self.note(&self.latencies, due);
    }

    /// Notes that the generator sends a segment that was due at `due`, µs.
    pub fn sent(&self, due: u64) {
        self.note(&self.lateness, due);
    }

    fn note(&self, list: &Mutex<Vec<u32>>, due: u64) {
        if self.measuring.load(Relaxed) {
            let us = u32::try_from(self.now_us().saturating_sub(due)).unwrap_or(u32::MAX);
            if let Ok(mut list) = list.lock() {
                list.push(us);
            }
        }
    }

    /// Counts for `time`, and says what it came to. `around` is called at both ends.
    pub fn count(&self, time: Duration, mut around: impl FnMut()) -> Counted {
        let take = |list: &Mutex<Vec<u32>>| list.lock().map(|mut l| std::mem::take(&mut *l)).unwrap_or_default();
        self.bytes.store(0, Relaxed);
        take(&self.latencies);
        take(&self.lateness);
        around();
        let begin = Instant::now();
        self.measuring.store(true, Relaxed);
        std::thread::sleep(time);
        self.measuring.store(false, Relaxed);
        let time = begin.elapsed();
        around();
        let (mut latencies, mut lateness) = (take(&self.latencies), take(&self.lateness));
        latencies.sort_unstable();
        lateness.sort_unstable();
        Counted { bytes: self.bytes.load(Relaxed), time, latencies, lateness }
    }
}

/// The `q` quantile of sorted µs, in ms; 0 of nothing.
pub fn quantile_ms(sorted: &[u32], q: f64) -> f64 {
    let at = (sorted.len().max(1) - 1) as f64 * q;
    sorted.get(at as usize).map_or(0.0, |us| f64::from(*us) / 1000.0)
}
