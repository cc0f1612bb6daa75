//! What is in an FLV file? A reader that shares nothing with the relay.

use std::fs;
use std::path::Path;

/// Audio, video and script data, as FLV numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Audio,
    Video,
    Script,
}

/// One tag of an FLV file, which is one RTMP message.
#[derive(Clone, PartialEq, Eq)]
pub struct Tag {
    pub kind: Kind,
    /// Milliseconds.
    pub time: u32,
    pub payload: Vec<u8>,
}

impl Tag {
    /// AVC or AAC configuration: servers send it whenever they see fit.
    pub fn is_sequence_header(&self) -> bool {
        match (self.kind, &self.payload[..]) {
            (Kind::Video, [first, 0, ..]) => first & 0x0f == 7,
            (Kind::Audio, [first, 0, ..]) => first >> 4 == 10,
            _ => false,
        }
    }

    /// The end of an AVC sequence: no frame, but a mark that muxers add when they close a file.
    pub fn is_end_of_sequence(&self) -> bool {
        self.kind == Kind::Video && matches!(self.payload[..], [first, 2, ..] if first & 0x0f == 7)
    }

    /// A video frame that needs no other.
    pub fn is_key_frame(&self) -> bool {
        self.kind == Kind::Video && self.payload.first().is_some_and(|first| first >> 4 == 1)
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.payload[..self.payload.len().min(8)];
        write!(f, "{:?} at {} ms, {} bytes {start:02x?}", self.kind, self.time, self.payload.len())
    }
}

/// Every whole tag of the file; a tag cut off at the end is left out, as a killed writer leaves one.
pub fn read(path: &Path) -> Vec<Tag> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&bytes).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
}

/// The tags of a file's bytes.
pub fn parse(bytes: &[u8]) -> Result<Vec<Tag>, String> {
    if bytes.len() < 9 || &bytes[..3] != b"FLV" {
        return Err(format!("{} bytes that do not begin as FLV does", bytes.len()));
    }
    let mut tags = Vec::new();
    let mut at = big_endian(&bytes[5..9]) as usize + 4;
    while at + 11 <= bytes.len() {
        let kind = match bytes[at] {
            8 => Kind::Audio,
            9 => Kind::Video,
            18 => Kind::Script,
            other => return Err(format!("tag type {other} at byte {at}")),
        };
        let body = at + 11;
        let end = body + big_endian(&bytes[at + 1..at + 4]) as usize;
        if end > bytes.len() {
            break;
        }
        // The eighth byte extends the 24 bits before it at their top.
        let time = big_endian(&bytes[at + 4..at + 7]) | u32::from(bytes[at + 7]) << 24;
        tags.push(Tag { kind, time, payload: bytes[body..end].to_vec() });
        at = end + 4;
    }
    Ok(tags)
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

#[test]
fn a_tag_is_read_with_its_extended_time() {
    let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    bytes.extend_from_slice(b"\x08\0\0\x03\x00\x00\x05\x01\0\0\0\xaf\x01\x77\0\0\0\x0e\x09\0\0\x09cut off");
    let tags = parse(&bytes).expect("it is FLV");
    assert_eq!(tags, [Tag { kind: Kind::Audio, time: 0x0100_0005, payload: vec![0xaf, 1, 0x77] }]);
}

#[test]
fn what_is_no_flv_is_refused() {
    assert!(parse(b"MKV\x01\x05\0\0\0\x09\0\0\0\0").is_err());
    assert!(parse(b"").is_err());
    assert!(parse(b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0").is_err());
}
