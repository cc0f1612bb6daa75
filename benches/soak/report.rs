//! What came of it.

use std::fmt;
use std::time::Duration;

use super::ledger::{Ledger, Sum};
use super::relay_process::RelayProcess;

/// Of the time, so much at the beginning is not looked at for slopes: caches fill.
const WARM_UP: f64 = 0.2;

/// One look at the relay.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since it started.
    pub at: Duration,
    /// Resident memory, kB.
    pub rss: f64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Sessions, unless it did not say.
    pub sessions: Option<u64>,
}

/// See the module.
pub struct Report {
    time: Duration,
    clients: usize,
    seed: u64,
    pub samples: Vec<Sample>,
    /// When everybody had left.
    pub last: Option<Sample>,
    pub deaths: u64,
    pub reloads: u64,
    pub bad_reloads: u64,
    pub strangers: u64,
    /// The exit code.
    pub ended: Option<i32>,
    sum: Sum,
    ends: Vec<(String, u64)>,
    errors: Vec<(String, u64)>,
}

impl Report {
    /// Of nothing yet.
    pub fn new(time: Duration, clients: usize, seed: u64) -> Self {
        Self {
            time,
            clients,
            seed,
            samples: Vec::new(),
            last: None,
            deaths: 0,
            reloads: 0,
            bad_reloads: 0,
            strangers: 0,
            ended: None,
            sum: Sum::default(),
            ends: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Settles the accounts.
    pub fn finish(&mut self, ledger: &Ledger, relay: &RelayProcess) {
        self.sum = ledger.settle(|stream| relay.reason(stream));
        let sorted = |counts: &std::collections::HashMap<String, u64>| {
            let mut counts: Vec<_> = counts.iter().map(|(word, count)| (word.clone(), *count)).collect();
            counts.sort_by_key(|(word, count)| (std::cmp::Reverse(*count), word.clone()));
            counts
        };
        (self.ends, self.errors) = relay.said(|said| (sorted(&said.ends), sorted(&said.errors)));
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.sum.unaccounted == 0
            && self.sum.spoiled == 0
            && self.ended == Some(0)
            && self.last.as_ref().is_some_and(|last| last.sessions == Some(0))
            && self.errors.iter().all(|(event, _)| !event.starts_with("panic"))
    }

    /// The mean, and how much is added an hour, by least squares, once it is warm.
    fn slope(&self, of: impl Fn(&Sample) -> f64) -> (f64, f64) {
        let from = self.time.mul_f64(WARM_UP);
        let points: Vec<(f64, f64)> =
            self.samples.iter().filter(|s| s.at >= from).map(|s| (s.at.as_secs_f64() / 3600.0, of(s))).collect();
        let count = points.len().max(1) as f64;
        let (mean_x, mean_y) = (points.iter().map(|p| p.0).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
        let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
        let together: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
        (mean_y, if spread > 0.0 { together / spread } else { 0.0 })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { streams, messages, sent, received, repeated, named, unaccounted, spoiled, examples } = &self.sum;
        let ((rss, rss_slope), (open, open_slope)) = (self.slope(|s| s.rss), self.slope(|s| s.descriptors as f64));
        let words = |counts: &[(String, u64)]| counts.iter().map(|(w, n)| format!("{w} {n}")).collect::<Vec<_>>().join(", ");
        writeln!(f, "| | |\n|---|---|")?;
        writeln!(f, "| time, clients at once, seed | {} s, {}, {} |", self.time.as_secs(), self.clients, self.seed)?;
        writeln!(
            f,
            "| deaths of an origin, reloads (of them bad), strangers | {}, {} ({}), {} |",
            self.deaths, self.reloads, self.bad_reloads, self.strangers
        )?;
        writeln!(f, "| streams, messages | {streams}, {messages} |")?;
        writeln!(f, "| bytes sent | {sent} |\n| bytes received | {received} |")?;
        for (name, lost) in named {
            writeln!(f, "| bytes lost: {name} | {lost} |")?;
        }
        writeln!(f, "| bytes unaccounted for | **{unaccounted}** |\n| bytes that nobody sent so | **{spoiled}** |")?;
        writeln!(f, "| bytes received again by a second origin | {repeated} |")?;
        writeln!(f, "| resident memory | {rss:.0} kB on average, {rss_slope:+.0} kB an hour |")?;
        writeln!(f, "| descriptors | {open:.0} on average, {open_slope:+.1} an hour |")?;
        if let Some(last) = &self.last {
            let sessions = last.sessions.map_or("unknown".to_owned(), |sessions| sessions.to_string());
            writeln!(
                f,
                "| when everybody had left | {sessions} sessions, {} descriptors, {:.0} kB |",
                last.descriptors, last.rss
            )?;
        }
        writeln!(f, "| sessions ended | {} |\n| lines of level error | {} |", words(&self.ends), words(&self.errors))?;
        writeln!(f, "| exit code | {} |", self.ended.map_or("none".to_owned(), |code| code.to_string()))?;
        examples.iter().try_for_each(|example| writeln!(f, "\n{example}"))
    }
}
