//! Pure: the tags of an FLV file, which are also what an RTMP aggregate message holds (FLV 10.1 annex E.4).

use crate::protocol::rtmp::command::kind;

/// Audio, video or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a> {
    /// RTMP message type: 8, 9 or 18.
    pub kind: u8,
    /// Milliseconds.
    pub timestamp: u32,
    /// Its body.
    pub payload: &'a [u8],
}

/// Why bytes are not FLV. Offsets are from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// No `FLV` in front, or a header that points behind the end.
    #[error("not an FLV file")]
    Header,
    /// A tag that is neither audio nor video nor data.
    #[error("tag type {kind} at byte {at}")]
    Kind {
        /// The type found.
        kind: u8,
        /// Where.
        at: usize,
    },
    /// The file ends inside a tag.
    #[error("the file ends inside the tag at byte {0}")]
    Truncated(usize),
}

/// Bytes of a tag's header.
const TAG: usize = 11;
/// Bytes of the back-pointer behind a tag.
const BACK: usize = 4;

/// Reads a whole file. Nothing is copied.
///
/// # Errors
/// [`FlvError`].
pub fn parse(file: &[u8]) -> Result<Vec<Tag<'_>>, FlvError> {
    let header = file.strip_prefix(b"FLV").and_then(|rest| rest.get(2..6)).ok_or(FlvError::Header)?;
    let length = header.iter().fold(0, |n, &b| n << 8 | usize::from(b));
    let begin = length.checked_add(BACK).ok_or(FlvError::Header)?;
    let body = file.get(begin..).ok_or(FlvError::Header)?;
    tags(body, begin)
}

/// Reads tags that stand one behind the other, each with its back-pointer. `offset` is added to positions in errors.
///
/// # Errors
/// [`FlvError::Kind`] and [`FlvError::Truncated`].
pub fn tags(body: &[u8], offset: usize) -> Result<Vec<Tag<'_>>, FlvError> {
    let mut tags = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let at = offset + body.len() - rest.len();
        let (header, behind) = rest.split_first_chunk::<TAG>().ok_or(FlvError::Truncated(at))?;
        let [tag_kind, l0, l1, l2, t0, t1, t2, t3, ..] = *header;
        if !matches!(tag_kind, kind::AUDIO | kind::VIDEO | kind::DATA) {
            return Err(FlvError::Kind { kind: tag_kind, at });
        }
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let payload = behind.get(..length).ok_or(FlvError::Truncated(at))?;
        rest = behind.get(length + BACK..).ok_or(FlvError::Truncated(at))?;
        // The fourth byte of the time is its highest.
        tags.push(Tag { kind: tag_kind, timestamp: u32::from_be_bytes([t3, t0, t1, t2]), payload });
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

    fn file(tags: &[&[u8]]) -> Vec<u8> {
        [HEAD, &tags.concat()].concat()
    }

    #[test]
    fn tags_are_read_with_the_high_byte_of_their_time() {
        let bytes = file(&[b"\x08\0\0\x02\0\0\x05\x01\0\0\0\xAF\x01\0\0\0\x0D", b"\x09\0\0\0\0\0\x06\0\0\0\0\0\0\0\x0B"]);
        let tags = parse(&bytes).expect("it is FLV");
        assert_eq!(tags[0], Tag { kind: 8, timestamp: 0x0100_0005, payload: &[0xAF, 1] });
        assert_eq!(tags[1], Tag { kind: 9, timestamp: 6, payload: &[] });
    }

    #[test]
    fn what_is_no_flv_is_refused_at_its_place() {
        assert_eq!(parse(b""), Err(FlvError::Header));
        assert_eq!(parse(b"FLV\x01\x05\xFF\xFF\xFF\xFF"), Err(FlvError::Header));
        assert_eq!(parse(&file(&[b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0"])), Err(FlvError::Kind { kind: 7, at: 13 }));
        assert_eq!(parse(&file(&[b"\x08\xFF\xFF\xFF\0\0\0\0\0\0\0\x01"])), Err(FlvError::Truncated(13)));
        assert_eq!(parse(&file(&[b"\x08\0\0"])), Err(FlvError::Truncated(13)));
    }
}
