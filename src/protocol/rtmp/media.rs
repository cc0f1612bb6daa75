//! Pure: what does a message mean to who joins late? (FLV 10.1 annex E, Enhanced RTMP v2.)

use super::command::kind;

/// The tracks that a message speaks of. One without a multitrack header speaks of track 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tracks([u64; 4]);

impl Tracks {
    /// Track `id` alone.
    pub fn one(id: u8) -> Self {
        let mut tracks = Self::default();
        tracks.add(id);
        tracks
    }

    fn add(&mut self, id: u8) {
        self.0[usize::from(id >> 6)] |= 1 << (id & 63);
    }

    /// Whether track `id` is among them.
    pub fn has(&self, id: u8) -> bool {
        self.0[usize::from(id >> 6)] & 1 << (id & 63) != 0
    }

    /// Whether all of `other` are among them.
    pub fn cover(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(ours, theirs)| ours & theirs == *theirs)
    }

    /// The lowest of them.
    pub fn first(&self) -> Option<u8> {
        (0..=255).find(|&id| self.has(id))
    }
}

/// Which of a stream's lasting messages it is: a new one takes the place of the old ones that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    kind: u8,
    packet_type: u8,
    /// The tracks it is about.
    pub tracks: Tracks,
}

impl Slot {
    /// Whether who has this needs `old` no more.
    pub fn covers(&self, old: &Self) -> bool {
        self.kind == old.kind && self.packet_type == old.packet_type && self.tracks.cover(&old.tracks)
    }

    /// Whether it is about video.
    pub fn is_video(&self) -> bool {
        self.kind == kind::VIDEO
    }
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `onMetaData`: what the stream is, for all that comes.
    Metadata,
    /// What a decoder must have before the first frame.
    Header(Slot),
    /// A video frame that needs no other: a group of pictures begins on these tracks.
    Key(Tracks),
    /// A video frame that needs those before it.
    Inter,
    /// Anything that can be taken alone: audio, other data, marks.
    Other,
}

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

/// Multitrack types.
const ONE_TRACK: u8 = 0;
const MANY_TRACKS: u8 = 1;
const MANY_TRACKS_MANY_CODECS: u8 = 2;

const META: &[u8] = b"\x02\x00\x0aonMetaData";
/// What publishers say in front of it.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";

/// What the whole message of type `kind` is for.
pub fn role(kind: u8, payload: &[u8]) -> Role {
    match kind {
        kind::VIDEO => video(payload),
        kind::AUDIO => audio(payload),
        kind::DATA | kind::DATA_AMF3 if is_metadata(kind, payload) == Some(true) => Role::Metadata,
        _ => Role::Other,
    }
}

/// Whether a message of type `kind` that begins with `front` is metadata or a header; `None` while that is too little to
/// tell. Cheap: it looks at a few bytes.
pub fn lasts(kind: u8, front: &[u8]) -> Option<bool> {
    match kind {
        kind::VIDEO => {
            let (&first, rest) = front.split_first()?;
            if first & 0x80 != 0 {
                let (packet_type, _) = enhanced(first & 0xF, VIDEO_MULTITRACK, rest)?;
                return Some(matches!(packet_type, SEQUENCE_START | CONFIG | TS_SEQUENCE_START));
            }
            if matches!(first & 0xF, AVC | HEVC) { rest.first().map(|&t| t == SEQUENCE_START) } else { Some(false) }
        }
        kind::AUDIO => {
            let (&first, rest) = front.split_first()?;
            match first >> 4 {
                AAC => rest.first().map(|&t| t == SEQUENCE_START),
                ENHANCED => {
                    let (packet_type, _) = enhanced(first & 0xF, AUDIO_MULTITRACK, rest)?;
                    Some(matches!(packet_type, SEQUENCE_START | CONFIG))
                }
                _ => Some(false),
            }
        }
        kind::DATA | kind::DATA_AMF3 => is_metadata(kind, front),
        _ => Some(false),
    }
}

fn is_metadata(kind: u8, front: &[u8]) -> Option<bool> {
    // AMF3 in name only: a selector, and AMF0 behind it.
    let body = if kind == kind::DATA_AMF3 { front.get(1..)? } else { front };
    let body = match body.strip_prefix(SET_DATA_FRAME) {
        Some(body) => body,
        None if SET_DATA_FRAME.starts_with(body) => return None,
        None => body,
    };
    match body.len() {
        length if length >= META.len() => Some(body.starts_with(META)),
        _ if META.starts_with(body) => None,
        _ => Some(false),
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
        Some(SEQUENCE_START) if has_types => {
            Role::Header(Slot { kind: kind::VIDEO, packet_type: SEQUENCE_START, tracks: Tracks::one(0) })
        }
        // The end of a sequence calls itself a key frame.
        Some(packet_type) if has_types && packet_type != CODED_FRAMES => Role::Other,
        _ if frame == KEY => Role::Key(Tracks::one(0)),
        _ if frame == INFO => Role::Other,
        _ => Role::Inter,
    }
}

fn enhanced_video(frame: u8, packet_type: u8, rest: &[u8]) -> Role {
    let Some((packet_type, multi)) = enhanced(packet_type, VIDEO_MULTITRACK, rest) else { return Role::Other };
    let Some(tracks) = tracks(multi) else { return Role::Other };
    match packet_type {
        SEQUENCE_START | CONFIG | TS_SEQUENCE_START => Role::Header(Slot { kind: kind::VIDEO, packet_type, tracks }),
        CODED_FRAMES | CODED_FRAMES_X if frame == KEY => Role::Key(tracks),
        CODED_FRAMES | CODED_FRAMES_X if frame != INFO => Role::Inter,
        _ => Role::Other,
    }
}

fn audio(payload: &[u8]) -> Role {
    let Some((&first, rest)) = payload.split_first() else { return Role::Other };
    let header = match first >> 4 {
        AAC if rest.first() == Some(&SEQUENCE_START) => Some((SEQUENCE_START, Tracks::one(0))),
        ENHANCED => enhanced(first & 0xF, AUDIO_MULTITRACK, rest)
            .filter(|(packet_type, _)| matches!(*packet_type, SEQUENCE_START | CONFIG))
            .and_then(|(packet_type, multi)| Some((packet_type, tracks(multi)?))),
        _ => None,
    };
    header.map_or(Role::Other, |(packet_type, tracks)| Role::Header(Slot { kind: kind::AUDIO, packet_type, tracks }))
}

/// What stands behind the packet type of a multitrack message: its kind, and the tracks.
type Multitrack<'a> = (u8, &'a [u8]);

/// The packet type behind modifiers and the multitrack byte; of a multitrack message also its type, and what stands
/// behind. `None` for a header that is not whole.
fn enhanced(mut packet_type: u8, multitrack: u8, mut rest: &[u8]) -> Option<(u8, Option<Multitrack<'_>>)> {
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
    let (&multi, behind) = rest.split_first()?;
    Some((multi & 0xF, Some((multi >> 4, behind))))
}

/// The tracks of a whole message. `None` where it is cut off.
fn tracks(multi: Option<Multitrack<'_>>) -> Option<Tracks> {
    let Some((multi, mut rest)) = multi else { return Some(Tracks::one(0)) };
    if multi != MANY_TRACKS_MANY_CODECS {
        rest = rest.get(4..)?;
    }
    if multi == ONE_TRACK {
        return Some(Tracks::one(*rest.first()?));
    }
    let mut tracks = Tracks::default();
    while matches!(multi, MANY_TRACKS | MANY_TRACKS_MANY_CODECS) && !rest.is_empty() {
        if multi == MANY_TRACKS_MANY_CODECS {
            rest = rest.get(4..)?;
        }
        let ([id, size @ ..], body) = rest.split_first_chunk::<4>()?;
        tracks.add(*id);
        let size = size.iter().fold(0, |n: usize, &b| n << 8 | usize::from(b));
        rest = body.get(size..)?;
    }
    tracks.first().map(|_| tracks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_header(role: Role) -> bool {
        matches!(role, Role::Header(_))
    }

    const LEAD: Role = Role::Key(Tracks([1, 0, 0, 0]));

    #[test]
    fn the_usual_codecs_are_told_apart() {
        assert!(is_header(role(kind::VIDEO, &[0x17, 0, 0, 0, 0])));
        assert_eq!(role(kind::VIDEO, &[0x17, 1, 0, 0, 0]), LEAD);
        assert_eq!(role(kind::VIDEO, &[0x27, 1, 0, 0, 0]), Role::Inter);
        assert_eq!(role(kind::VIDEO, &[0x17, 2, 0, 0, 0]), Role::Other, "the end of a sequence is no key frame");
        assert_eq!(role(kind::VIDEO, &[0x12, 0x84]), LEAD, "Sorenson has no packet types");
        assert!(is_header(role(kind::VIDEO, &[0x1C, 0, 0, 0, 0])));
        assert!(is_header(role(kind::AUDIO, &[0xAF, 0, 0x12, 0x10])));
        assert_eq!(role(kind::AUDIO, &[0xAF, 1, 0x21]), Role::Other);
        assert_eq!(role(kind::AUDIO, &[0x2F, 0]), Role::Other, "MP3 has no header");
        assert_eq!(role(kind::DATA, b"\x02\x00\x0aonMetaData\x08"), Role::Metadata);
        assert_eq!(role(kind::DATA, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x08"), Role::Metadata);
        assert_eq!(role(kind::DATA_AMF3, b"\x00\x02\x00\x0aonMetaData\x08"), Role::Metadata);
        assert_eq!(role(kind::DATA, b"\x02\x00\x0aonTextData\x08"), Role::Other);
        assert_eq!(role(kind::DATA, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonCuePoint"), Role::Other);
    }

    #[test]
    fn enhanced_headers_and_frames_are_told_apart() {
        assert!(is_header(role(kind::VIDEO, b"\x90hvc1")));
        assert_eq!(role(kind::VIDEO, b"\x91hvc1\0\0\0"), LEAD);
        assert_eq!(role(kind::VIDEO, b"\xA3av01"), Role::Inter);
        assert!(is_header(role(kind::VIDEO, b"\xD4hvc1")), "colour metadata lasts");
        assert!(is_header(role(kind::AUDIO, b"\x90Opus")));
        assert_eq!(role(kind::AUDIO, b"\x91Opus"), Role::Other);
    }

    #[test]
    fn each_track_has_headers_of_its_own() {
        let [one, two] = [b"\x96\x00avc1\x00", b"\x96\x00avc1\x01"].map(|header| role(kind::VIDEO, header));
        let both = role(kind::VIDEO, b"\x96\x10avc1\x00\0\0\x01a\x01\0\0\x00");
        let mixed = role(kind::VIDEO, b"\x96\x20avc1\x00\0\0\x01ahvc1\x01\0\0\x00");
        let (Role::Header(one), Role::Header(two), Role::Header(both)) = (one, two, both) else { panic!("headers") };
        assert!(!one.covers(&two) && !two.covers(&one) && both.covers(&one) && both.covers(&two) && !one.covers(&both));
        assert_eq!(mixed, Role::Header(both));
        assert_eq!(role(kind::VIDEO, b"\x96\x01avc1\x00"), LEAD);
        assert_eq!(role(kind::VIDEO, b"\x96\x01avc1\x01"), Role::Key(Tracks::one(1)));
        assert_eq!(role(kind::VIDEO, b"\x96\x10avc1\x00\0\0\x09a"), Role::Other, "cut off");
    }

    #[test]
    fn modifiers_are_looked_through() {
        assert!(is_header(role(kind::VIDEO, b"\x97\x02abc\x00hvc1")));
        let mut long = vec![0x97, 255, 1, 0];
        long.extend_from_slice(&[0; 257]);
        long.extend_from_slice(b"\x01hvc1");
        assert_eq!(role(kind::VIDEO, &long), LEAD);
        assert_eq!(role(kind::VIDEO, b"\x97\x09ab"), Role::Other, "cut off");
    }

    #[test]
    fn whether_a_message_lasts_is_seen_from_its_front_however_short_that_is() {
        let messages: &[(u8, &[u8])] = &[
            (kind::VIDEO, &[0x17, 0, 0, 0, 0]),
            (kind::VIDEO, &[0x27, 1, 0, 0, 0]),
            (kind::VIDEO, &[0x12, 0x84]),
            (kind::VIDEO, b"\x90hvc1"),
            (kind::VIDEO, b"\x91hvc1\0\0\0"),
            (kind::VIDEO, b"\x97\x02abc\x00hvc1"),
            (kind::VIDEO, b"\x96\x10avc1\x00\0\0\x01a\x01\0\0\x00"),
            (kind::VIDEO, b"\x96\x11avc1\x00\0\0\x01a\x01\0\0\x00"),
            (kind::AUDIO, &[0xAF, 0, 0x12, 0x10]),
            (kind::AUDIO, &[0xAF, 1, 0x21]),
            (kind::AUDIO, b"\x95\x00Opus\x01"),
            (kind::AUDIO, b"\x95\x01Opus\x01"),
            (kind::DATA, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x08"),
            (kind::DATA, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonCuePoint\x08"),
            (kind::DATA, b"\x02\x00\x0aonMetaData\x08"),
            (kind::DATA, b"\x02\x00\x0bonSomething\x08"),
        ];
        for (kind, payload) in messages {
            let want = matches!(role(*kind, payload), Role::Metadata | Role::Header(_));
            assert_eq!(lasts(*kind, payload), Some(want), "{payload:?}");
            for length in 0..payload.len() {
                let early = lasts(*kind, &payload[..length]);
                assert!(early.is_none_or(|early| early == want), "{payload:?} at {length}");
            }
        }
        assert_eq!(lasts(kind::VIDEO, &[0x12]), Some(false));
        assert_eq!(lasts(kind::COMMAND, &[]), Some(false));
    }

    #[test]
    fn no_short_message_makes_it_panic() {
        for kind in [kind::AUDIO, kind::VIDEO, kind::DATA, kind::DATA_AMF3] {
            for first in 0..=255 {
                for second in 0..=255 {
                    role(kind, &[first, second]);
                    lasts(kind, &[first, second]);
                }
                role(kind, &[first]);
                lasts(kind, &[first]);
            }
            assert_eq!(role(kind, &[]), Role::Other);
        }
    }
}
