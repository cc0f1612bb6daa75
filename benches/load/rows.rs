//! The works that are measured: the rows of the table.

use super::load::Side;
use super::media::Media;
use super::targets::Kind;

/// One row of the table.
pub struct Work {
    /// As the table names it.
    pub name: String,
    /// What is measured.
    pub what: What,
    /// The targets, HAProxy first.
    pub kinds: Vec<Kind>,
    /// What the relay is to reach, as a part of HAProxy's figure.
    pub goal: Goal,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// So many streams at their own pace.
    Paced {
        /// Number of streams.
        streams: usize,
        /// What they are made of.
        media: Media,
        /// Which way they go.
        side: Side,
        /// Clients speak TLS.
        tls: bool,
    },
    /// Streams that send as fast as they are taken.
    Unpaced {
        /// Number of streams.
        streams: usize,
    },
    /// Connect, publish, one frame, close.
    Sessions {
        /// So many at a time.
        at_once: usize,
    },
    /// Published sessions that send nothing.
    Idle {
        /// So many.
        sessions: usize,
    },
    /// Live streams among published sessions that send nothing, while somebody reads /metrics, or nobody does.
    Crowd {
        /// Silent sessions.
        sessions: usize,
        /// Live streams.
        streams: usize,
        /// What they are made of.
        media: Media,
        /// Each second somebody reads /metrics.
        scraped: bool,
    },
    /// Most streams of which 99 in 100 frames arrive in time.
    Capacity {
        /// What they are made of.
        media: Media,
        /// No more are tried.
        most: usize,
    },
}

impl What {
    /// What the figure is.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Paced { media, .. } if *media == Media::light() => "CPU-ms a stream and second",
            Self::Paced { .. } | Self::Unpaced { .. } | Self::Crowd { .. } => "CPU-s a GB",
            Self::Sessions { .. } => "CPU-µs a session",
            Self::Idle { .. } => "kB (PSS) a session",
            Self::Capacity { .. } => "streams",
        }
    }

    /// The same with no more than `most` streams or sessions, to see that it works at all.
    pub fn at_most(self, most: usize) -> Self {
        match self {
            Self::Paced { streams, media, side, tls } => Self::Paced { streams: streams.min(most), media, side, tls },
            Self::Crowd { sessions, streams, media, scraped } => {
                Self::Crowd { sessions: sessions.min(most), streams: streams.min(most), media, scraped }
            }
            Self::Unpaced { streams } => Self::Unpaced { streams: streams.min(most) },
            Self::Sessions { at_once } => Self::Sessions { at_once: at_once.min(most) },
            Self::Idle { sessions } => Self::Idle { sessions: sessions.min(most) },
            Self::Capacity { media, most: tried } => Self::Capacity { media, most: tried.min(most) },
        }
    }

    /// Rough time of one run, without `seconds` of measuring, in seconds.
    pub fn overhead(&self, seconds: u64) -> u64 {
        match self {
            Self::Paced { streams, .. } => 4 + *streams as u64 / 250,
            Self::Unpaced { .. } => 3,
            Self::Sessions { .. } => 2,
            Self::Idle { sessions } | Self::Crowd { sessions, .. } => 4 + *sessions as u64 / 500,
            Self::Capacity { most, .. } => 6 + *most as u64 / 250 + 9 * (seconds + 2),
        }
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At most so much of HAProxy's figure.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
    /// At most this figure, whatever HAProxy's is.
    Absolute(f64),
    /// Only shown.
    None,
}

const LIVE: Goal = Goal::AtMost(0.4);
/// For rows that only repeat another at another size.
const FEW: [Kind; 3] = [Kind::HaProxy, Kind::Floor, Kind::Relay];
const ALL: [Kind; 5] = [Kind::HaProxy, Kind::NginxStream, Kind::NginxRtmp, Kind::Floor, Kind::Relay];
const BLIND: [Kind; 4] = [Kind::HaProxy, Kind::NginxStream, Kind::Floor, Kind::Relay];
const SPEAKING: [Kind; 5] = [Kind::HaProxy, Kind::NginxStream, Kind::NginxRtmp, Kind::SpeakingFloor, Kind::Relay];

/// All of them, in the order of the table.
pub fn all() -> Vec<Work> {
    let mut works = live();
    works.push(row("50 publishers, 20 Mb/s", paced(50, Media::heavy(), Side::Publish), &ALL, Goal::AtMost(0.6)));
    works.push(row("2 publishers, unpaced", What::Unpaced { streams: 2 }, &ALL, Goal::AtMost(0.6)));
    let sessions = "connect, publish, a frame, close; 32 at a time";
    works.push(row(sessions, What::Sessions { at_once: 32 }, &SPEAKING, Goal::AtMost(1.0)));
    works.push(row("4,000 idle publishers", What::Idle { sessions: 4000 }, &SPEAKING, Goal::Absolute(2.6)));
    for (name, spread) in SPREADS {
        let name = format!("RTMPS in, RTMP out: 200 publishers, {name}");
        let what = What::Paced { streams: 200, media: Media::live(spread), side: Side::Publish, tls: true };
        works.push(row(&name, what, &BLIND, Goal::AtMost(0.5)));
    }
    for (name, spread) in SPREADS {
        let what = paced(200, Media::live(spread).over_rtsp(), Side::Publish);
        works.push(row(&format!("RTSP: 200 publishers, {name}"), what, &BLIND, Goal::AtMost(0.7)));
    }
    for streams in [50, 200, 1000] {
        let what = paced(streams, Media::light(), Side::Publish);
        works.push(row(&format!("growth: {} publishers, 0.5 Mb/s", thousands(streams)), what, &FEW, Goal::None));
    }
    for scraped in [false, true] {
        let what = What::Crowd { sessions: 5000, streams: 50, media: Media::live(4), scraped };
        let name = format!(
            "50 publishers, 4 ms, among 5,000 silent ones, {}",
            if scraped { "scraped each second" } else { "not scraped" }
        );
        works.push(row(&name, what, &[Kind::Relay], Goal::None));
    }
    let most = What::Capacity { media: Media::live(20), most: 1000 };
    works.push(row("most publishers on one core, 20 ms, p99 below 20 ms", most, &FEW, Goal::AtLeast(2.5)));
    works
}

const SPREADS: [(&str, u64); 3] = [("4 ms", 4), ("20 ms", 20), ("evenly", 28)];

fn live() -> Vec<Work> {
    let mut works = Vec::new();
    for (side, who) in [(Side::Publish, "publishers"), (Side::Play, "players")] {
        for streams in [200, 1000] {
            for (name, spread) in SPREADS {
                let kinds: &[Kind] = if streams == 200 { &ALL } else { &FEW };
                let name = format!("{} {who}, {name}", thousands(streams));
                works.push(row(&name, paced(streams, Media::live(spread), side), kinds, LIVE));
            }
        }
    }
    works
}

fn paced(streams: usize, media: Media, side: Side) -> What {
    What::Paced { streams, media, side, tls: false }
}

fn row(name: &str, what: What, kinds: &[Kind], goal: Goal) -> Work {
    Work { name: name.to_owned(), what, kinds: kinds.to_vec(), goal }
}

fn thousands(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}
