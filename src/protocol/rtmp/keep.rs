//! Pure: what is kept of a stream that passes, so that another upstream can take it up: metadata, and the newest header of each
//! track.
//!
//! It sees every payload on its way, looks at the first bytes of each message, and copies only what lasts: a few hundred bytes
//! for most streams, [`MAX_KEPT`] at most. Everything else costs it one comparison a message.

use super::chunk::{Message, Writer};
use super::command::kind;
use super::media::{Role, Slot, lasts, role};
use super::tracker::Header;

/// Most bytes kept of a stream while it passes.
pub const MAX_KEPT: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    metadata: Option<Message>,
    /// In the order of their coming.
    headers: Vec<(Slot, Message)>,
    /// Messages of which not all has come, and what has.
    collecting: Vec<(usize, Vec<u8>)>,
    timestamp: u32,
    video: bool,
    incomplete: bool,
}

impl Keep {
    /// A piece of a message's payload passes, the message being the last one on `slot`. `front`: it is the first; `last`: the
    /// message is whole with it.
    pub fn passes(&mut self, slot: usize, header: &Header, piece: &[u8], front: bool, last: bool) {
        if front {
            self.meet(header);
            if !self.collecting.is_empty() {
                // An aborted message never ends.
                self.collecting.retain(|(s, _)| *s != slot);
            }
            match lasts(header.kind, piece) {
                Some(false) => return,
                None if last => return,
                _ => self.collecting.push((slot, Vec::new())),
            }
        } else if self.collecting.is_empty() {
            return;
        }
        self.collect(slot, header, piece, last);
    }

    /// A whole message comes by, in place of [`Self::passes`].
    pub fn note(&mut self, header: &Header, payload: &[u8]) {
        self.meet(header);
        if lasts(header.kind, payload) == Some(true) {
            self.keep(header, payload.to_vec());
        }
    }

    /// Whether the stream can be taken up elsewhere with what is kept: not where its headers were too long for
    /// [`MAX_KEPT`], or stood in aggregate messages, which nobody looks into.
    pub fn is_complete(&self) -> bool {
        !self.incomplete
    }

    /// Whether the stream can begin with this message: a key frame of its first video track, or any sound where there is no
    /// video.
    pub fn may_begin(&self, header: &Header, payload: &[u8]) -> bool {
        match role(header.kind, payload) {
            Role::Key(tracks) => tracks.has(self.lead()),
            Role::Other => !self.video && header.kind == kind::AUDIO,
            _ => false,
        }
    }

    /// Whether there has been video.
    pub fn has_video(&self) -> bool {
        self.video
    }

    /// Timestamp of the newest audio or video, ms.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// What has come of messages that are not whole and may have to be kept, by the index of their chunk stream.
    pub fn take_unfinished(&mut self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.collecting)
    }

    /// Says everything kept, at the time `timestamp` of what follows. `stream_id` maps message stream ids.
    pub fn write(&self, writer: &mut Writer, out: &mut Vec<u8>, timestamp: u32, stream_id: impl Fn(u32) -> u32) {
        let headers = self.headers.iter().map(|(_, message)| message);
        for Message { header, payload } in self.metadata.iter().chain(headers) {
            writer.write(out, header.csid, timestamp, header.kind, stream_id(header.stream_id), payload);
        }
    }

    fn meet(&mut self, header: &Header) {
        match header.kind {
            kind::VIDEO => (self.video, self.timestamp) = (true, header.timestamp),
            kind::AUDIO => self.timestamp = header.timestamp,
            kind::AGGREGATE => self.incomplete = true,
            _ => {}
        }
    }

    fn collect(&mut self, slot: usize, header: &Header, piece: &[u8], last: bool) {
        let others: usize = self.collecting.iter().map(|(_, bytes)| bytes.len()).sum();
        let Some(at) = self.collecting.iter().position(|(s, _)| *s == slot) else { return };
        let (_, bytes) = &mut self.collecting[at];
        // So long that it cannot be kept: still to be judged, by its front.
        let room = MAX_KEPT.saturating_sub(others);
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        let whole = bytes.len() == header.length as usize;
        match lasts(header.kind, bytes) {
            Some(true) if whole && last => {
                let (_, bytes) = self.collecting.swap_remove(at);
                self.keep(header, bytes);
            }
            Some(true) if header.length as usize > MAX_KEPT || piece.len() > room => {
                self.collecting.swap_remove(at);
                self.cannot_keep(header);
            }
            Some(true) if !last => {}
            None if !last && piece.len() <= room => {}
            _ => {
                self.collecting.swap_remove(at);
            }
        }
    }

    fn keep(&mut self, header: &Header, payload: Vec<u8>) {
        if self.incomplete {
            return;
        }
        let message = Message { header: *header, payload };
        match role(header.kind, &message.payload) {
            Role::Metadata => self.metadata = Some(message),
            Role::Header(slot) => {
                self.headers.retain(|(old, _)| !slot.covers(old));
                self.headers.push((slot, message));
            }
            // Cut off where it names its tracks: no decoder reads it either.
            _ => return,
        }
        if self.bytes() > MAX_KEPT {
            self.cannot_keep(header);
        }
    }

    fn cannot_keep(&mut self, header: &Header) {
        // Players can do without metadata.
        self.metadata = None;
        self.incomplete |= !matches!(header.kind, kind::DATA | kind::DATA_AMF3) || self.bytes() > MAX_KEPT;
        if self.incomplete {
            self.headers.clear();
        }
    }

    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(_, message)| message);
        self.metadata.iter().chain(headers).map(|message| message.payload.len()).sum()
    }

    /// The video track by which groups of pictures are counted.
    fn lead(&self) -> u8 {
        let tracks = self.headers.iter().filter(|(slot, _)| slot.is_video()).filter_map(|(slot, _)| slot.tracks.first());
        tracks.min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, timestamp: u32, length: usize) -> Header {
        let length = u32::try_from(length).expect("a short message");
        Header { csid: 4, kind, timestamp, length, stream_id: 1, ..Header::default() }
    }

    /// Lets messages pass in pieces of `piece` bytes; what is kept, as (type, timestamp, payload).
    fn kept(messages: &[(u8, Vec<u8>)], piece: usize) -> (Keep, Vec<(u8, u32, Vec<u8>)>) {
        let mut keep = Keep::default();
        for (at, (kind, payload)) in messages.iter().enumerate() {
            let header = header(*kind, at as u32, payload.len());
            let pieces = payload.len().div_ceil(piece).max(1);
            for number in 0..pieces {
                let bytes = &payload[number * piece..payload.len().min((number + 1) * piece)];
                keep.passes(at % 3, &header, bytes, number == 0, number + 1 == pieces);
            }
        }
        let said = said(&keep);
        (keep, said)
    }

    fn said(keep: &Keep) -> Vec<(u8, u32, Vec<u8>)> {
        let mut writer = Writer::default();
        let mut out = Vec::new();
        keep.write(&mut writer, &mut out, 99, |id| id + 4);
        let mut reader = super::super::chunk::Reader::commands();
        reader.allow_media(0xFF_FFFF);
        let (mut at, mut messages) = (0, Vec::new());
        while let (taken, Some(message)) = reader.read(&out[at..]).expect("our own writing") {
            assert_eq!(message.header.stream_id, 5);
            at += taken;
            messages.push((message.header.kind, message.header.timestamp, message.payload));
        }
        messages
    }

    const META: &[u8] = b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x08";

    #[test]
    fn metadata_and_the_newest_header_of_each_track_are_kept_in_every_split_and_nothing_else() {
        let messages: Vec<(u8, Vec<u8>)> = [
            (9, &b"\x17\x00\0\0\0old"[..]),
            (18, META),
            (9, b"\x17\x01\0\0\0key"),
            (8, b"\xAF\x00\x12\x10"),
            (8, b"\xAF\x01sound"),
            (9, b"\x96\x00avc1\x01second track"),
            (9, b"\x27\x01\0\0\0inter"),
            (18, b"\x02\x00\x0aonTextData"),
            (9, b"\x17\x00\0\0\0new"),
            (9, b""),
            (4, b"\x00\x00"),
        ]
        .map(|(kind, payload)| (kind, payload.to_vec()))
        .into();
        let want = [
            (18, 99, META.to_vec()),
            (8, 99, b"\xAF\x00\x12\x10".to_vec()),
            (9, 99, b"\x96\x00avc1\x01second track".to_vec()),
            (9, 99, b"\x17\x00\0\0\0new".to_vec()),
        ];
        for piece in 1..40 {
            let (keep, said) = kept(&messages, piece);
            assert_eq!(said, want, "in pieces of {piece}");
            assert!(keep.is_complete() && keep.has_video() && keep.collecting.is_empty());
            assert_eq!(keep.timestamp(), 9);
        }
    }

    #[test]
    fn headers_beyond_the_bound_make_it_incomplete_and_metadata_is_done_without() {
        let mut long = b"\x17\x00\0\0\0".to_vec();
        long.resize(MAX_KEPT + 1, 7);
        for piece in [1, 1000, 100_000] {
            let (keep, said) = kept(&[(9, long.clone())], piece);
            assert!(!keep.is_complete() && said.is_empty());
        }
        let mut meta = META.to_vec();
        meta.resize(MAX_KEPT - 10, 7);
        let header = b"\x17\x00\0\0\0avc configuration".to_vec();
        let (keep, said) = kept(&[(9, header.clone()), (18, meta.clone())], 1000);
        assert!(keep.is_complete());
        assert_eq!(said, [(9, 99, header.clone())]);
        meta.resize(MAX_KEPT + 1, 7);
        let (keep, said) = kept(&[(9, header.clone()), (18, meta)], 1000);
        assert!(keep.is_complete());
        assert_eq!(said, [(9, 99, header)]);
        let tracks = |id: u8| [&b"\x96\x00avc1"[..], &[id], &[0; 1000]].concat();
        let (keep, said) = kept(&(0..100).map(|id| (9, tracks(id))).collect::<Vec<_>>(), 333);
        assert!(!keep.is_complete() && said.is_empty());
    }

    #[test]
    fn what_is_collected_is_bounded_and_an_aborted_message_is_forgotten() {
        let mut keep = Keep::default();
        for slot in 0..64 {
            let header = header(9, 0, 60_000);
            keep.passes(slot, &header, b"\x17\x00\0\0\0", true, false);
            keep.passes(slot, &header, &[0; 30_000], false, false);
        }
        assert!(keep.collecting.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= MAX_KEPT);
        assert!(!keep.is_complete());
        let mut keep = Keep::default();
        keep.passes(0, &header(9, 0, 60_000), b"\x17\x00\0\0\0", true, false);
        keep.passes(0, &header(9, 0, 8), b"\x17\x00\0\0\0abc", true, true);
        assert_eq!(said(&keep), [(9, 99, b"\x17\x00\0\0\0abc".to_vec())]);
    }

    #[test]
    fn a_stream_begins_with_a_key_frame_of_its_first_track_or_with_any_sound_where_there_is_no_video() {
        let mut keep = Keep::default();
        assert!(keep.may_begin(&header(8, 0, 2), b"\xAF\x01"));
        assert!(!keep.may_begin(&header(8, 0, 2), b"\xAF\x00"), "a header is said before");
        keep.note(&header(9, 0, 7), b"\x96\x00avc1\x03");
        keep.note(&header(9, 0, 7), b"\x96\x00avc1\x02");
        assert!(!keep.may_begin(&header(8, 0, 2), b"\xAF\x01"));
        assert!(keep.may_begin(&header(9, 0, 7), b"\x96\x01avc1\x02"));
        assert!(!keep.may_begin(&header(9, 0, 7), b"\x96\x01avc1\x03"));
        assert!(!keep.may_begin(&header(9, 0, 7), b"\xA6\x01avc1\x02"), "no key frame");
        keep.note(&header(22, 0, 7), b"");
        assert!(!keep.is_complete(), "nobody looks into an aggregate");
    }
}
