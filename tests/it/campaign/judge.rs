//! What a relay must be like when a plan is over: as it was before it.

use std::collections::BTreeMap;

use relay::telemetry::labels::ENDINGS;
use rustix::process::Signal;
use serde_json::Value;

use crate::relay::Process;
use crate::wait::{wait_equal, wait_until};

/// Resident memory that a relay may have more after a plan than after its first one, bytes: the allocator's, which keeps what was freed.
const SLACK: u64 = 8 << 20;
/// Ends that none of the faults may lead to.
const NEVER: [&str; 4] = ["panic", "unavailable", "socket", "self"];

/// See the module.
pub(super) struct Judge {
    descriptors: usize,
    /// After the first plan.
    resident: Option<u64>,
}

impl Judge {
    /// Before anybody came.
    pub(super) fn before(relay: &Process) -> Self {
        relay.wait_empty();
        Self { descriptors: relay.settled_descriptors(), resident: None }
    }

    /// Behind a plan.
    pub(super) fn after(&mut self, relay: &Process) {
        relay.wait_empty();
        relay.wait_descriptors(self.descriptors);
        let gauges =
            ["rtmp_relay_publishers_held", "rtmp_relay_streams", "rtmp_relay_upstream_sessions", "rtmp_relay_buffers_lent_bytes"];
        wait_equal("gauges", &0.0, || sum(&relay.metrics(), &gauges, ""));
        Self::accounts_for_everybody(relay);
        Self::accounts_for_every_byte(relay);
        Self::knows_every_end(relay);
        let now = relay.resident();
        let first = *self.resident.get_or_insert(now);
        assert!(now <= first + SLACK, "resident memory has grown from {first} to {now} bytes");
    }

    /// In one line: what the relay has gone through.
    pub(super) fn summary(&self, relay: &Process) -> String {
        let (metrics, mut ends) = (relay.metrics(), ends(&relay.metrics()).into_iter().collect::<Vec<_>>());
        ends.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let sessions: u64 = ends.iter().map(|(_, count)| count).sum();
        let ends: Vec<String> = ends.into_iter().map(|((side, reason), count)| format!("{side} {reason} {count}")).collect();
        let bytes = sum(&metrics, &["rtmp_relay_bytes_total"], "") as u64;
        let (first, now) = (self.resident.unwrap_or(0) >> 10, relay.resident() >> 10);
        format!("{sessions} sessions, {bytes} bytes, {first} to {now} kB resident; {}", ends.join(", "))
    }

    /// Told to end, it does.
    pub(super) fn at_the_end(self, mut relay: Process) {
        relay.signal(Signal::TERM);
        assert_eq!(relay.exit().code(), Some(0));
        let panicked: Vec<_> = relay.log().into_iter().filter(|line| line.contains("panicked")).collect();
        assert!(panicked.is_empty(), "{panicked:#?}");
    }

    /// Each session has one closing line, and was counted once in both ways.
    fn accounts_for_everybody(relay: &Process) {
        wait_until("lines and counters agree on how many have come", || {
            let metrics = relay.metrics();
            let mut numbers: Vec<u64> =
                relay.events("session_ended").iter().filter_map(|line| line["session"].as_u64()).collect();
            numbers.sort_unstable();
            let each_once = numbers.iter().zip(1..).all(|(number, want)| *number == want);
            let ended = sum(&metrics, &["rtmp_relay_sessions_ended_total"], "") as usize;
            let counted = sum(&metrics, &["rtmp_relay_connections_total", "rtmp_relay_empty_connections_total"], "") as usize;
            each_once && ended == numbers.len() && counted == numbers.len()
        });
    }

    /// The closing lines name every byte that was counted.
    fn accounts_for_every_byte(relay: &Process) {
        for (direction, field) in [("upstream", "bytes_upstream"), ("downstream", "bytes_downstream")] {
            let label = format!("direction=\"{direction}\"");
            let counted = || sum(&relay.metrics(), &["rtmp_relay_bytes_total"], &label) as u64;
            let told = || relay.events("session_ended").iter().filter_map(|line| line[field].as_u64()).sum::<u64>();
            wait_until("closing lines and the counter agree", || counted() == told());
        }
        assert_eq!(sum(&relay.metrics(), &["rtmp_relay_log_lines_dropped_total"], ""), 0.0);
    }

    fn knows_every_end(relay: &Process) {
        let ends = ends(&relay.metrics());
        for (side, reason) in ends.keys() {
            let known = ENDINGS.iter().any(|(of, reasons)| of.as_str() == side && reasons.contains(&&reason[..]));
            assert!(known && !NEVER.contains(&&reason[..]), "a session ended by {side}: {reason}");
        }
        assert_eq!(sum(&relay.metrics(), &["rtmp_relay_panics_total"], ""), 0.0);
        let unnamed: Vec<Value> = relay.events("session_ended").into_iter().filter(|line| line["reason"].is_null()).collect();
        assert!(unnamed.is_empty(), "{unnamed:?}");
    }
}

/// Sessions by side and reason, where there are any.
pub(super) fn ends(metrics: &str) -> BTreeMap<(String, String), u64> {
    let mut ends = BTreeMap::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("rtmp_relay_sessions_ended_total{reason=\"") else { continue };
        let mut parts = rest.split('"');
        let (Some(reason), _, Some(side), Some(value)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let count = value.trim_start_matches('}').trim().parse::<f64>().unwrap_or(f64::NAN) as u64;
        if count > 0 {
            ends.insert((side.to_owned(), reason.to_owned()), count);
        }
    }
    ends
}

/// The sum of these metrics over all labels that hold `label`.
fn sum(metrics: &str, names: &[&str], label: &str) -> f64 {
    let value = |line: &str| {
        let name = line.split(['{', ' ']).next()?;
        (names.contains(&name) && line.contains(label)).then(|| line.rsplit(' ').next()?.parse::<f64>().ok())?
    };
    metrics.lines().filter_map(value).sum()
}
