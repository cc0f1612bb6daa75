//! Pure: what does a packet mean to someone who joins late? (FLV 10.1 annex E, Enhanced RTMP v2.)

use bytes::Bytes;

use crate::protocol::rtmp::command::kind;

/// One message of a stream: audio, video or data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// RTMP message type: 8, 9 or 18.
    pub kind: u8,
    /// Milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    /// Its body; shared, not copied, between players.
    pub payload: Bytes,
}

/// Which of a stream's lasting packets it is: a new one takes the place of the old one in the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    kind: u8,
    packet_type: u8,
    /// Track of a multitrack packet; [`EVERY_TRACK`] when it holds several.
    track: Option<u16>,
}

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `onMetaData`: what the stream is, for all that comes.
    Metadata,
    /// What a decoder must have before the first frame.
    Header(Slot),
    /// A video frame that needs no other: a group of pictures begins.
    Key,
    /// A video frame that needs those before it.
    Inter,
    /// Anything that can be taken alone: audio, other data, marks.
    Other,
}

const EVERY_TRACK: u16 = 256;
/// FLV frame types.
const KEY: u8 = 1;
const INFO: u8 = 5;
/// FLV codecs whose second byte says what the packet is.
const AVC: u8 = 7;
/// Not in the standard; spoken by many Chinese encoders.
const HEVC: u8 = 12;
const AAC: u8 = 10;
/// The sound format that announces an Enhanced RTMP header.
const ENHANCED: u8 = 9;

/// Enhanced RTMP packet types; those of audio and video agree on these.
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const CODED_FRAMES_X: u8 = 3;
/// Video: metadata (colour); audio: channel layout. Both last.
const CONFIG: u8 = 4;
const TS_SEQUENCE_START: u8 = 5;
const VIDEO_MULTITRACK: u8 = 6;
const AUDIO_MULTITRACK: u8 = 5;
const MOD_EX: u8 = 7;

impl Packet {
    /// What it is for.
    pub fn role(&self) -> Role {
        match self.kind {
            kind::VIDEO => video(&self.payload),
            kind::AUDIO => audio(&self.payload),
            kind::DATA if self.payload.starts_with(b"\x02\x00\x0aonMetaData") => Role::Metadata,
            _ => Role::Other,
        }
    }

    /// What it weighs in a bounded buffer: an empty packet is not free.
    pub(super) fn weight(&self) -> usize {
        self.payload.len() + 64
    }
}

fn video(payload: &[u8]) -> Role {
    let Some((&first, rest)) = payload.split_first() else { return Role::Other };
    if first & 0x80 != 0 {
        return enhanced_video(first >> 4 & 7, first & 0xF, rest);
    }
    let (frame, codec, packet_type) = (first >> 4, first & 0xF, rest.first().copied());
    let has_types = matches!(codec, AVC | HEVC);
    match packet_type {
        Some(SEQUENCE_START) if has_types => Role::Header(Slot { kind: kind::VIDEO, packet_type: 0, track: None }),
        // The end of a sequence calls itself a key frame.
        Some(packet_type) if has_types && packet_type != CODED_FRAMES => Role::Other,
        _ if frame == KEY => Role::Key,
        _ if frame == INFO => Role::Other,
        _ => Role::Inter,
    }
}

fn enhanced_video(frame: u8, packet_type: u8, rest: &[u8]) -> Role {
    let Some((packet_type, track)) = unwrap(packet_type, VIDEO_MULTITRACK, rest) else { return Role::Other };
    match packet_type {
        SEQUENCE_START | CONFIG | TS_SEQUENCE_START => Role::Header(Slot { kind: kind::VIDEO, packet_type, track }),
        // Groups are counted by the first track; a player that joins may miss the beginning of another's.
        CODED_FRAMES | CODED_FRAMES_X if frame == KEY && matches!(track, None | Some(0 | EVERY_TRACK)) => Role::Key,
        CODED_FRAMES | CODED_FRAMES_X if frame != INFO => Role::Inter,
        _ => Role::Other,
    }
}

fn audio(payload: &[u8]) -> Role {
    let Some((&first, rest)) = payload.split_first() else { return Role::Other };
    let header = match first >> 4 {
        AAC if rest.first() == Some(&SEQUENCE_START) => Some((SEQUENCE_START, None)),
        ENHANCED => unwrap(first & 0xF, AUDIO_MULTITRACK, rest).filter(|(t, _)| matches!(*t, SEQUENCE_START | CONFIG)),
        _ => None,
    };
    header.map_or(Role::Other, |(packet_type, track)| Role::Header(Slot { kind: kind::AUDIO, packet_type, track }))
}

/// The packet type behind modifiers and multitrack, and the track. `None` for a header that is not whole.
fn unwrap(mut packet_type: u8, multitrack: u8, mut rest: &[u8]) -> Option<(u8, Option<u16>)> {
    while packet_type == MOD_EX {
        let mut size = usize::from(*rest.first()?) + 1;
        rest = &rest[1..];
        if size == 256 {
            let (long, behind) = rest.split_first_chunk::<2>()?;
            size = usize::from(u16::from_be_bytes(*long)) + 1;
            rest = behind;
        }
        let (&next, behind) = rest.get(size..)?.split_first()?;
        (packet_type, rest) = (next & 0xF, behind);
    }
    if packet_type != multitrack {
        return Some((packet_type, None));
    }
    let (&tracks, behind) = rest.split_first()?;
    // One track: its codec's four letters, then its number.
    let track = if tracks >> 4 == 0 { u16::from(*behind.get(4)?) } else { EVERY_TRACK };
    Some((tracks & 0xF, Some(track)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(kind: u8, payload: &[u8]) -> Role {
        Packet { kind, timestamp: 0, payload: Bytes::copy_from_slice(payload) }.role()
    }

    fn is_header(role: Role) -> bool {
        matches!(role, Role::Header(_))
    }

    #[test]
    fn the_usual_codecs_are_told_apart() {
        assert!(is_header(role(kind::VIDEO, &[0x17, 0, 0, 0, 0])));
        assert_eq!(role(kind::VIDEO, &[0x17, 1, 0, 0, 0]), Role::Key);
        assert_eq!(role(kind::VIDEO, &[0x27, 1, 0, 0, 0]), Role::Inter);
        assert_eq!(role(kind::VIDEO, &[0x17, 2, 0, 0, 0]), Role::Other, "the end of a sequence is no key frame");
        assert_eq!(role(kind::VIDEO, &[0x12, 0x84]), Role::Key, "Sorenson has no packet types");
        assert!(is_header(role(kind::VIDEO, &[0x1C, 0, 0, 0, 0])));
        assert!(is_header(role(kind::AUDIO, &[0xAF, 0, 0x12, 0x10])));
        assert_eq!(role(kind::AUDIO, &[0xAF, 1, 0x21]), Role::Other);
        assert_eq!(role(kind::AUDIO, &[0x2F, 0]), Role::Other, "MP3 has no header");
        assert_eq!(role(kind::DATA, b"\x02\x00\x0aonMetaData\x08"), Role::Metadata);
        assert_eq!(role(kind::DATA, b"\x02\x00\x0aonTextData\x08"), Role::Other);
    }

    #[test]
    fn enhanced_headers_and_frames_are_told_apart() {
        assert!(is_header(role(kind::VIDEO, b"\x90hvc1")));
        assert_eq!(role(kind::VIDEO, b"\x91hvc1\0\0\0"), Role::Key);
        assert_eq!(role(kind::VIDEO, b"\xA3av01"), Role::Inter);
        assert!(is_header(role(kind::VIDEO, b"\xD4hvc1")), "colour metadata lasts");
        assert!(is_header(role(kind::AUDIO, b"\x90Opus")));
        assert_eq!(role(kind::AUDIO, b"\x91Opus"), Role::Other);
    }

    #[test]
    fn each_track_has_headers_of_its_own_and_the_first_one_counts_groups() {
        let (one, two) = (role(kind::VIDEO, b"\x96\x00avc1\x00"), role(kind::VIDEO, b"\x96\x00avc1\x01"));
        assert!(is_header(one) && is_header(two) && one != two);
        assert_eq!(role(kind::VIDEO, b"\x96\x01avc1\x00"), Role::Key);
        assert_eq!(role(kind::VIDEO, b"\x96\x01avc1\x01"), Role::Inter);
    }

    #[test]
    fn modifiers_are_looked_through() {
        assert!(is_header(role(kind::VIDEO, b"\x97\x02abc\x00hvc1")));
        let mut long = vec![0x97, 255, 1, 0];
        long.extend_from_slice(&[0; 257]);
        long.extend_from_slice(b"\x01hvc1");
        assert_eq!(role(kind::VIDEO, &long), Role::Key);
        assert_eq!(role(kind::VIDEO, b"\x97\x09ab"), Role::Other, "cut off");
    }

    #[test]
    fn no_short_packet_makes_it_panic() {
        for kind in [kind::AUDIO, kind::VIDEO, kind::DATA] {
            for first in 0..=255 {
                for second in 0..=255 {
                    role(kind, &[first, second]);
                }
                role(kind, &[first]);
            }
            assert_eq!(role(kind, &[]), Role::Other);
        }
    }
}
