//! Pure: totals over time, and how fast they grow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples kept: eleven bound ten seconds of ticks.
const SAMPLES: usize = 11;

/// Bytes each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Towards upstreams.
    pub to_upstream: u64,
    /// Towards clients.
    pub to_client: u64,
}

/// Bytes a second each way.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Towards upstreams.
    pub to_upstream: f64,
    /// Towards clients.
    pub to_client: f64,
}

/// The last samples of a total.
#[derive(Debug, Default)]
pub(super) struct Window {
    samples: VecDeque<(Instant, Bytes)>,
}

impl Window {
    /// Notes the total at `now`.
    pub(super) fn note(&mut self, now: Instant, total: Bytes) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, total));
    }

    /// Growth between the oldest and the newest sample; zero before there are two.
    pub(super) fn rates(&self) -> Rates {
        let (Some((from, old)), Some((to, new))) = (self.samples.front(), self.samples.back()) else {
            return Rates::default();
        };
        let over = to.saturating_duration_since(*from);
        if over == Duration::ZERO {
            return Rates::default();
        }
        let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / over.as_secs_f64();
        Rates { to_upstream: rate(old.to_upstream, new.to_upstream), to_client: rate(old.to_client, new.to_client) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let (mut window, now) = (Window::default(), Instant::now());
        assert_eq!(window.rates(), Rates::default());
        for n in 0..100_u32 {
            let to_upstream = if n < 50 { u64::from(n) * 1_000_000 } else { 49_000_000 + u64::from(n - 49) * 100 };
            window.note(now + SECOND * n, Bytes { to_upstream, to_client: 7 });
        }
        assert_eq!(window.rates(), Rates { to_upstream: 100.0, to_client: 0.0 });
        assert_eq!(window.samples.len(), SAMPLES);
    }

    #[test]
    fn two_samples_at_one_time_are_no_rate() {
        let (mut window, now) = (Window::default(), Instant::now());
        window.note(now, Bytes::default());
        window.note(now, Bytes { to_upstream: 5, to_client: 5 });
        assert_eq!(window.rates(), Rates::default());
    }
}
