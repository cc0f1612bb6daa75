//! Where do messages end?

use relay::protocol::rtmp::handshake::TOTAL;
use relay::protocol::rtmp::joiner::{Filter, Joiner, Outgoing, Verdict};
use relay::protocol::rtmp::tracker::{Header, Limits, Step, Tracker};
use relay::protocol::rtsp::framing::{ChannelSet, Channels, Framer, Piece};

/// Follows one direction.
pub enum Follow {
    /// By its headers, behind a handshake of which so many bytes are still to come.
    Headers(usize, Box<Tracker>),
    /// Into another chunk stream.
    Joined(Box<Joiner>),
    /// Interleaved RTSP, the packets of a picture together; what is said between them passes as it is.
    Interleaved(Box<Framer>, Channels),
}

/// What becomes of a piece of input.
#[derive(Default)]
pub struct Followed {
    /// Bytes that were understood; the rest is a header that is not whole.
    pub taken: usize,
    /// Of these, how many end at a message boundary; 0 where none is in them.
    pub whole: usize,
    /// In place of what lies between `out.pass` and `taken`.
    pub out: Option<Outgoing>,
}

struct PassAll;

impl Filter for PassAll {
    fn message(&mut self, _: &Header, _: &[u8]) -> Verdict {
        Verdict::Pass
    }
}

impl Follow {
    /// Two hello packets stand before either side's chunk stream.
    pub fn from_the_start() -> Self {
        Self::Headers(TOTAL, Box::new(Tracker::new(Limits::MEDIA)))
    }

    /// RTSP, whose first channel is the video's.
    pub fn interleaved() -> Self {
        let mut video = ChannelSet::default();
        video.set(0, true);
        Self::Interleaved(Box::default(), Channels { open: ChannelSet::ALL, video })
    }

    /// Whether less than a whole picture was followed, though nothing is missing of what has begun.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Interleaved(framer, _) if framer.in_picture())
    }

    /// Wire bytes until the message in progress is whole.
    pub fn missing(&self) -> u64 {
        match self {
            Self::Headers(_, tracker) => tracker.missing(),
            Self::Joined(joiner) => joiner.missing(),
            Self::Interleaved(framer, _) => framer.missing() as u64,
        }
    }

    /// Looks at `input`; `None` where it is no chunk stream.
    pub fn follow(&mut self, input: &[u8]) -> Option<Followed> {
        match self {
            Self::Headers(skip, tracker) => follow(skip, tracker, input),
            Self::Joined(joiner) => {
                let mut out = Outgoing::default();
                let taken = joiner.advance(input, &mut PassAll, &mut out).ok()?;
                let differs = out.pass < taken || !out.patched.is_empty();
                Some(Followed { taken, whole: out.whole, out: differs.then_some(out) })
            }
            Self::Interleaved(framer, channels) => interleaved(framer, channels, input),
        }
    }
}

fn interleaved(framer: &mut Framer, channels: &Channels, input: &[u8]) -> Option<Followed> {
    let mut followed = Followed::default();
    loop {
        let (len, settled) = match framer.next(&input[followed.taken..], channels).ok()? {
            Piece::Nothing => return Some(followed),
            Piece::Frames { len, settled, .. } => (len, settled),
            Piece::Taken { len } | Piece::Message { len, .. } => (len, len),
        };
        if settled > 0 {
            followed.whole = followed.taken + settled;
        }
        followed.taken += len;
    }
}

fn follow(skip: &mut usize, tracker: &mut Tracker, input: &[u8]) -> Option<Followed> {
    let mut followed = Followed { taken: (*skip).min(input.len()), ..Followed::default() };
    *skip -= followed.taken;
    followed.whole = followed.taken;
    if *skip > 0 {
        return Some(followed);
    }
    loop {
        match tracker.next(&input[followed.taken..]).ok()? {
            Step::NeedMore => return Some(followed),
            Step::Header { length, .. } => followed.taken += length,
            Step::Payload { length, last, .. } => {
                followed.taken += length;
                if last && tracker.open() == 0 {
                    followed.whole = followed.taken;
                }
            }
        }
    }
}
