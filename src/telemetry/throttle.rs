//! Pure: which lines of a flood are written, and what is said of those that are not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Lines about one thing in one second.
const LINES: u64 = 10;
const SECOND: Duration = Duration::from_secs(1);
/// Addresses counted a second and reason. With more, the rarest are forgotten first, so that one which sends more than a
/// sixty-fifth of all is always among them.
const MAX_ADDRESSES: usize = 64;
/// Addresses named in a summary.
const TOP: usize = 5;

/// What was not written in one second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    /// Name of the event.
    pub(super) what: &'static str,
    /// Its reason.
    pub(super) reason: &'static str,
    /// Lines not written.
    pub(super) count: u64,
    /// Who caused most of them, with at least how many.
    pub(super) top: Vec<(IpAddr, u64)>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u64,
    kept_back: u64,
    addresses: HashMap<IpAddr, u64>,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, written: 0, kept_back: 0, addresses: HashMap::new() }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= SECOND
    }

    /// Misra and Gries: when the table is full, everybody loses one.
    fn note(&mut self, client: IpAddr) {
        if self.addresses.len() < MAX_ADDRESSES || self.addresses.contains_key(&client) {
            *self.addresses.entry(client).or_default() += 1;
            return;
        }
        self.addresses.retain(|_, count| {
            *count -= 1;
            *count > 0
        });
    }

    fn summary(self, (what, reason): (&'static str, &'static str)) -> Option<Summary> {
        if self.kept_back == 0 {
            return None;
        }
        let mut top: Vec<_> = self.addresses.into_iter().collect();
        top.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        top.truncate(TOP);
        Some(Summary { what, reason, count: self.kept_back, top })
    }
}

/// One window for each event and reason; both are words of the program, which bounds their number.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    windows: HashMap<(&'static str, &'static str), Window>,
}

impl Throttle {
    /// Whether the line may be written, and what a second that has just ended kept back.
    pub(super) fn pass(
        &mut self,
        what: &'static str,
        reason: &'static str,
        client: Option<IpAddr>,
        now: Instant,
    ) -> (bool, Option<Summary>) {
        let key = (what, reason);
        let over = self.windows.get(&key).is_some_and(|window| window.is_over(now));
        let summary = if over { self.windows.remove(&key).and_then(|window| window.summary(key)) } else { None };
        let window = self.windows.entry(key).or_insert_with(|| Window::new(now));
        if window.written < LINES {
            window.written += 1;
            return (true, summary);
        }
        window.kept_back += 1;
        if let Some(client) = client {
            window.note(network(client));
        }
        (false, summary)
    }

    /// What the seconds that are over kept back.
    pub(super) fn flush(&mut self, now: Instant) -> Vec<Summary> {
        let over = self.windows.extract_if(|_, window| window.is_over(now));
        over.filter_map(|(key, window)| window.summary(key)).collect()
    }
}

/// A v6 host moves freely within its /64; shown by the network's first address.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(n.into()))
    }

    #[test]
    fn ten_lines_a_second_and_then_a_summary() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let written = (0..100).filter(|_| throttle.pass("refused", "rate", ip(1), now).0).count();
        assert_eq!(written, 10);
        assert!(throttle.pass("refused", "auth", ip(1), now).0, "each reason has its own ten");
        assert!(throttle.flush(now).is_empty(), "the second is not over");
        let (may, summary) = throttle.pass("refused", "rate", ip(1), now + SECOND);
        assert!(may);
        let want = Summary { what: "refused", reason: "rate", count: 90, top: vec![(ip(1).unwrap(), 90)] };
        assert_eq!(summary, Some(want));
    }

    #[test]
    fn a_flood_that_stops_is_told_by_the_flush() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..12 {
            throttle.pass("refused", "rate", None, now);
        }
        let told = throttle.flush(now + SECOND);
        assert_eq!(told.iter().map(|summary| summary.count).collect::<Vec<_>>(), [2]);
        assert!(throttle.flush(now + 2 * SECOND).is_empty(), "told once");
        assert!(throttle.windows.is_empty(), "and nothing is kept");
    }

    #[test]
    fn a_loud_address_is_named_among_any_number_of_others() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..100_000 {
            throttle.pass("refused", "rate", ip(if n % 10 == 0 { 7 } else { 1_000 + n }), now);
        }
        assert!(throttle.windows.values().all(|window| window.addresses.len() <= MAX_ADDRESSES));
        let told = throttle.flush(now + SECOND).remove(0);
        assert_eq!(told.top[0].0, ip(7).unwrap());
        assert!(told.top.len() <= TOP);
    }

    #[test]
    fn a_v6_client_is_counted_by_its_64() {
        assert_eq!(network("2001:db8:1:2:3::4".parse().unwrap()), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
