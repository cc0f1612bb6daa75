//! One run of one work against one target.

use std::time::Duration;

use super::gauges::{Counted, quantile_ms};
use super::load::Load;
use super::machine::Cores;
use super::media::{Media, Wire};
use super::papers::Papers;
use super::rows::What;
use super::scrape::Scraper;
use super::targets::{Kind, Target};

/// From the first segment to the first that counts.
const SETTLE: Duration = Duration::from_secs(2);
/// Whole-frame latency that [`What::Capacity`] allows for 99 in 100 frames, ms.
const IN_TIME: f64 = 20.0;
/// The generator itself was on time, ms at the 99th percentile.
const PUNCTUAL: f64 = 5.0;
/// Of what was sent so much must arrive while it is counted, or the target is full.
const KEPT_UP: f64 = 0.97;

/// How runs are made.
pub struct Bench {
    /// Where.
    pub cores: Cores,
    /// For TLS.
    pub papers: Papers,
    /// How long is measured.
    pub time: Duration,
    /// The generator sleeps between events.
    pub sleepy: bool,
}

/// What one run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// CPU-seconds a GB, CPU-µs a session, kB a session, or streams.
    pub cost: f64,
    /// Whole-frame latency, or set-up time, ms.
    pub p50: f64,
    /// The same.
    pub p99: f64,
    /// Gb/s received, sessions a second, % of a core while idle, or ms a scrape.
    pub rate: f64,
    /// The target did not keep up with what was sent: latency means nothing then.
    pub full: bool,
    /// The generator did not keep up with itself: the figure is its limit, not the target's.
    pub late: bool,
}

impl Bench {
    /// Measures.
    pub fn run(&self, kind: Kind, what: What) -> Result<Figures, String> {
        let (tls, scheme) = match what {
            What::Paced { tls, media, .. } => (tls, if media.wire == Wire::Rtsp { "rtsp" } else { "rtmp" }),
            _ => (false, "rtmp"),
        };
        let papers = tls.then_some(&self.papers);
        let load = Load::start(self.sleepy, papers.map(|papers| papers.client.clone()))?;
        let watched = matches!(what, What::Crowd { .. });
        let target = Target::start(kind, load.origin(), &self.cores, papers, scheme, watched)?;
        let address = target.address();
        match what {
            What::Paced { streams, media, side, .. } => {
                load.streams(address, streams, media, side)?;
                load.activate(streams);
                std::thread::sleep(SETTLE);
                let (counted, cpu) = self.count(&load, &target)?;
                Ok(paced(&counted, cpu, streams, media))
            }
            What::Unpaced { streams } => {
                load.unpaced(address, streams)?;
                std::thread::sleep(SETTLE / 2);
                let (counted, cpu) = self.count(&load, &target)?;
                Ok(Figures { cost: per_gb(&counted, cpu), rate: gbps(&counted), ..Figures::default() })
            }
            What::Sessions { at_once } => {
                let cpu = target.cpu();
                let times = load.sessions(address, at_once, self.time)?;
                let cost = (target.cpu() - cpu) * 1e6 / times.len() as f64;
                let rate = times.len() as f64 / self.time.as_secs_f64();
                Ok(Figures { cost, p50: quantile_ms(&times, 0.5), p99: quantile_ms(&times, 0.99), rate, ..Figures::default() })
            }
            What::Idle { sessions } => {
                let before = target.pss();
                load.idle(address, 0, sessions)?;
                std::thread::sleep(SETTLE);
                let cpu = target.cpu();
                std::thread::sleep(self.time);
                let rate = (target.cpu() - cpu) / self.time.as_secs_f64() * 100.0;
                Ok(Figures { cost: (target.pss() - before) as f64 / sessions as f64, rate, ..Figures::default() })
            }
            What::Crowd { sessions, streams, media, scraped } => {
                load.idle(address, streams, sessions)?;
                load.streams(address, streams, media, super::load::Side::Publish)?;
                load.activate(streams);
                std::thread::sleep(SETTLE);
                let scraper = target.http().filter(|_| scraped).map(Scraper::begin);
                let (counted, cpu) = self.count(&load, &target)?;
                let scrapes = scraper.map(Scraper::end).transpose()?.unwrap_or_default();
                Ok(Figures { rate: quantile_ms(&scrapes, 0.5), ..paced(&counted, cpu, streams, media) })
            }
            What::Capacity { media, most } => {
                load.streams(address, most, media, super::load::Side::Publish)?;
                self.most(&load, &target, media, most)
            }
        }
    }

    fn count(&self, load: &Load, target: &Target) -> Result<(Counted, f64), String> {
        let mut at = Vec::new();
        let counted = load.gauges.count(self.time, || at.push(target.cpu()));
        if counted.bytes == 0 { Err("nothing arrived".to_owned()) } else { Ok((counted, at[1] - at[0])) }
    }

    /// Doubles the streams until frames are late, then halves the gap until it is 5 %.
    fn most(&self, load: &Load, target: &Target, media: Media, most: usize) -> Result<Figures, String> {
        let (mut holds, mut fails) = (0, None);
        let mut best = Figures::default();
        let mut streams = most.min(50);
        loop {
            load.activate(streams);
            std::thread::sleep(SETTLE / 2);
            let (counted, cpu) = self.count(load, target)?;
            let figures = paced(&counted, cpu, streams, media);
            if figures.p99 < IN_TIME && !figures.full && !figures.late {
                (holds, best) = (streams, Figures { cost: streams as f64, ..figures });
            } else {
                fails = Some(streams);
                // What waits in the sockets must be gone before the next try.
                load.activate(0);
                while load.gauges.count(Duration::from_millis(200), || ()).bytes > 0 {}
                // Where the generator is what fails, the result says so.
                best.late |= figures.late;
            }
            streams = match fails {
                None if holds == most => return Ok(best),
                None => (2 * holds).min(most),
                Some(fails) if fails - holds <= (holds / 20).max(1) => return Ok(best),
                Some(fails) => holds.midpoint(fails),
            };
        }
    }
}

fn paced(counted: &Counted, cpu: f64, streams: usize, media: Media) -> Figures {
    let seconds = counted.time.as_secs_f64();
    let offered = streams as f64 * media.rate() * seconds;
    let cost = if media == Media::light() { cpu * 1e3 / (streams as f64 * seconds) } else { per_gb(counted, cpu) };
    Figures {
        cost,
        p50: quantile_ms(&counted.latencies, 0.5),
        p99: quantile_ms(&counted.latencies, 0.99),
        rate: gbps(counted),
        full: (counted.bytes as f64) < offered * KEPT_UP,
        late: quantile_ms(&counted.lateness, 0.99) > PUNCTUAL,
    }
}

fn per_gb(counted: &Counted, cpu: f64) -> f64 {
    cpu / (counted.bytes as f64 / 1e9)
}

fn gbps(counted: &Counted) -> f64 {
    counted.bytes as f64 * 8.0 / counted.time.as_secs_f64() / 1e9
}

/// The median of each figure.
pub fn median(runs: &[Figures]) -> Figures {
    let of = |pick: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        cost: of(|f| f.cost),
        p50: of(|f| f.p50),
        p99: of(|f| f.p99),
        rate: of(|f| f.rate),
        full: runs.iter().any(|f| f.full),
        late: runs.iter().any(|f| f.late),
    }
}
