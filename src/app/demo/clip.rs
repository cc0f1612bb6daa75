//! Pure: a short recording that never ends: which packet comes next, and when?

use bytes::Bytes;

use crate::origin::flv::{self, FlvError};
use crate::origin::media::{Packet, Role};
use crate::protocol::rtmp::command::kind;

/// Why a recording cannot be shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClipError {
    /// It cannot be read.
    #[error(transparent)]
    Flv(#[from] FlvError),
    /// There is nothing to repeat.
    #[error("fewer than two frames")]
    Short,
}

/// A recording. Invariant: `frames` is not empty, begins at `begin`, and `period` is not 0.
#[derive(Debug)]
pub(super) struct Clip {
    lasting: Vec<Packet>,
    frames: Vec<Packet>,
    begin: u32,
    period: u32,
}

impl Clip {
    /// Reads an FLV file.
    pub(super) fn parse(file: &'static [u8]) -> Result<Self, ClipError> {
        let packets = flv::parse(file)?.into_iter().map(|tag| Packet {
            kind: tag.kind,
            timestamp: tag.timestamp,
            payload: Bytes::from_static(tag.payload),
        });
        let (mut lasting, mut frames) = (Vec::new(), Vec::new());
        for packet in packets {
            match (packet.kind, packet.role()) {
                (_, Role::Metadata | Role::Header(_)) => lasting.push(Packet { timestamp: 0, ..packet }),
                // Video that is no frame marks the end of the sequence; this one has none.
                (kind::DATA, _) | (kind::VIDEO, Role::Other) => {}
                _ => frames.push(packet),
            }
        }
        let begin = frames.first().ok_or(ClipError::Short)?.timestamp;
        let period = period(&frames, begin).ok_or(ClipError::Short)?;
        Ok(Self { lasting, frames, begin, period })
    }

    /// What is sent once, before everything else.
    pub(super) fn lasting(&self) -> &[Packet] {
        &self.lasting
    }

    /// Packet number `n`, counted on over repetitions, and its time in milliseconds since the first.
    pub(super) fn frame(&self, n: u64) -> (u64, &Packet) {
        let count = self.frames.len() as u64;
        let frame = &self.frames[usize::try_from(n % count).unwrap_or_default()];
        let within = frame.timestamp.saturating_sub(self.begin);
        (n / count * u64::from(self.period) + u64::from(within), frame)
    }
}

/// How long the recording is: until audio and video have both shown their last packet for as long as the one before.
fn period(frames: &[Packet], begin: u32) -> Option<u32> {
    let until = |kind| {
        let mut times = frames.iter().rev().filter(|frame| frame.kind == kind).map(|frame| frame.timestamp);
        let (last, before) = (times.next()?, times.next()?);
        last.checked_add(last.checked_sub(before)?)?.checked_sub(begin)
    };
    until(kind::AUDIO).max(until(kind::VIDEO)).filter(|period| *period > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_clip_goes_on_without_a_gap_or_a_step_back() {
        let clip = Clip::parse(super::super::CLIP).expect("the clip is in order");
        assert_eq!(clip.lasting().len(), 3, "metadata, and a header each of audio and video");
        for kind in [kind::AUDIO, kind::VIDEO] {
            let times: Vec<u64> = (0..3 * clip.frames.len() as u64)
                .map(|n| clip.frame(n))
                .filter_map(|(at, p)| (p.kind == kind).then_some(at))
                .collect();
            let steps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(steps.iter().all(|step| (15..=70).contains(step)), "{:?}", steps.iter().max());
        }
        let all: Vec<u64> = (0..3 * clip.frames.len() as u64).map(|n| clip.frame(n).0).collect();
        assert!(all.is_sorted());
        assert_eq!(clip.frame(0).0, 0);
    }

    #[test]
    fn it_begins_each_time_with_a_key_frame_and_has_one_each_second() {
        let clip = Clip::parse(super::super::CLIP).expect("the clip is in order");
        let video: Vec<&Packet> = clip.frames.iter().filter(|p| p.kind == kind::VIDEO).collect();
        assert!(matches!(video[0].role(), Role::Key(_)));
        assert!(video.chunks(25).all(|second| matches!(second[0].role(), Role::Key(_))));
    }

    #[test]
    fn what_cannot_repeat_is_refused() {
        assert_eq!(Clip::parse(b"RIFF").err(), Some(ClipError::Flv(FlvError::Header)));
        assert_eq!(Clip::parse(b"FLV\x01\x05\0\0\0\x09\0\0\0\0").err(), Some(ClipError::Short));
        let one = b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x08\0\0\x01\0\0\x05\0\0\0\0\x2F\0\0\0\x0C";
        assert_eq!(Clip::parse(one).err(), Some(ClipError::Short));
    }
}
