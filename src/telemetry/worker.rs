//! What the sessions of one worker thread count together: written by that thread alone, summed by the collector.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Count;

/// Upper bounds of the buckets of a frame's latency, ns: what a busy machine adds, up to what a viewer sees.
pub(super) const BOUNDS: [u64; 15] = [
    25_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
];
/// One bucket more, for what is later than all of them.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// All sessions of one worker, ended ones included.
#[derive(Debug, Default)]
pub struct WorkerTraffic {
    /// Towards upstreams.
    pub to_upstream: Total,
    /// Towards clients.
    pub to_client: Total,
    /// What the worker saw when it last looked at all of its sessions.
    pub streams: Streams,
}

/// One direction of them.
#[derive(Debug, Default)]
pub struct Total {
    bytes: Count,
    latency: Latency,
}

impl Total {
    /// Adds bytes that were written.
    pub fn add(&self, bytes: u64) {
        self.bytes.add(bytes);
    }

    /// Bytes written since start.
    pub fn get(&self) -> u64 {
        self.bytes.get()
    }

    /// `messages` have left `took` after the read that made them whole.
    pub fn left_after(&self, took: Duration, messages: u64) {
        self.latency.note(took, messages);
    }

    pub(super) fn latency(&self) -> &Latency {
        &self.latency
    }
}

/// How often what took how long. Noting costs a search among sixteen buckets and two additions.
#[derive(Debug, Default)]
pub(super) struct Latency {
    buckets: [Count; BUCKETS],
    nanos: Count,
}

impl Latency {
    fn note(&self, took: Duration, times: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|&bound| bound < nanos)].add(times);
        self.nanos.add(nanos.saturating_mul(times));
    }

    /// Adds what was noted to `sum`.
    pub(super) fn add_to(&self, sum: &mut Latencies) {
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        sum.nanos = sum.nanos.wrapping_add(self.nanos.get());
    }
}

/// The same, of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Latencies {
    /// How many fell into each bucket; not cumulative.
    pub(super) buckets: [u64; BUCKETS],
    pub(super) nanos: u64,
}

/// How streams stood when a worker last looked, which it does once a second.
#[derive(Debug, Default)]
pub struct Streams {
    publishers: AtomicU64,
    players: AtomicU64,
    silent: AtomicU64,
    without_key_frame: AtomicU64,
    oldest_key_frame_ms: AtomicU64,
    /// Times that a publisher fell silent, since start.
    pub stalls: Count,
}

/// What a look at the streams finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Sessions that relay a publisher.
    pub publishers: u64,
    /// Sessions that relay to a player.
    pub players: u64,
    /// Publishers that have sent nothing for [`SILENT`].
    pub silent: u64,
    /// Publishers of video whose last key frame is older than [`KEY_FRAME_LATE`].
    pub without_key_frame: u64,
    /// The longest time since any publisher's last key frame.
    pub oldest_key_frame: Duration,
}

/// A publisher that has sent nothing for so long is counted as silent, and each time once as a stall.
pub const SILENT: Duration = Duration::from_secs(2);
/// A player that joins would wait longer than this for a picture.
pub const KEY_FRAME_LATE: Duration = Duration::from_secs(10);

impl Seen {
    /// Adds what another worker saw.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            publishers: self.publishers + other.publishers,
            players: self.players + other.players,
            silent: self.silent + other.silent,
            without_key_frame: self.without_key_frame + other.without_key_frame,
            oldest_key_frame: self.oldest_key_frame.max(other.oldest_key_frame),
        }
    }
}

impl Streams {
    /// Notes what was seen. Only the worker that owns this may call it.
    pub fn show(&self, seen: Seen) {
        self.publishers.store(seen.publishers, Relaxed);
        self.players.store(seen.players, Relaxed);
        self.silent.store(seen.silent, Relaxed);
        self.without_key_frame.store(seen.without_key_frame, Relaxed);
        let ms = u64::try_from(seen.oldest_key_frame.as_millis()).unwrap_or(u64::MAX);
        self.oldest_key_frame_ms.store(ms, Relaxed);
    }

    /// What was seen last.
    pub fn now(&self) -> Seen {
        Seen {
            publishers: self.publishers.load(Relaxed),
            players: self.players.load(Relaxed),
            silent: self.silent.load(Relaxed),
            without_key_frame: self.without_key_frame.load(Relaxed),
            oldest_key_frame: Duration::from_millis(self.oldest_key_frame_ms.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_first_bucket_that_is_not_below_it() {
        let total = Total::default();
        total.left_after(Duration::from_micros(25), 3);
        total.left_after(Duration::from_nanos(25_001), 1);
        total.left_after(Duration::from_secs(1), 1);
        total.left_after(Duration::from_secs(3), 2);
        let mut sum = Latencies::default();
        total.latency().add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[BUCKETS - 2], sum.buckets[BUCKETS - 1]), (3, 1, 1, 2));
        assert_eq!(sum.buckets.iter().sum::<u64>(), 7);
        assert_eq!(sum.nanos, 75_000 + 25_001 + 7_000_000_000);
    }

    #[test]
    fn what_workers_saw_adds_up_and_the_oldest_key_frame_is_that_of_all() {
        let streams = [Streams::default(), Streams::default()];
        let one = Seen { publishers: 2, players: 1, silent: 1, without_key_frame: 0, oldest_key_frame: Duration::from_secs(4) };
        streams[0].show(one);
        streams[1].show(Seen { oldest_key_frame: Duration::from_secs(9), without_key_frame: 1, ..one });
        let all = streams.iter().map(Streams::now).fold(Seen::default(), Seen::and);
        let wanted =
            Seen { publishers: 4, players: 2, silent: 2, without_key_frame: 1, oldest_key_frame: Duration::from_secs(9) };
        assert_eq!(all, wanted);
    }
}
