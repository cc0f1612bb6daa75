//! Whole messages out of chunks: the same however they are cut, the same as an independent reader finds, and no more in hand than stated.

use super::cuts::{assert_is_a_word_of_ours, number, pieces};
use super::strict::{meaning, media_reader, read, read_strictly};
use relay::protocol::rtmp::chunk::{MAX_PARTIAL, MAX_UNKNOWN, Message, Reader, Writer};
use relay::protocol::rtmp::command::kind;
use relay::protocol::rtmp::tracker::Limits;

/// Control bytes: the cuts, how well the peer is known, the chunk size to write with.
pub const CONTROL: usize = 4;

/// Reads a chunk stream.
pub fn run(data: &[u8]) {
    let Some((control, bytes)) = data.split_first_chunk::<CONTROL>() else { return };
    let (make, limits, most): (fn() -> Reader, _, _) = match control[2] & 3 {
        0 => (Reader::unknown, Limits::COMMANDS, MAX_UNKNOWN),
        1 => (media_reader, Limits::MEDIA, bytes.len()),
        _ => (Reader::commands, Limits::COMMANDS, MAX_PARTIAL),
    };

    let mut reader = make();
    let (whole, end) = read(&mut reader, [bytes]);
    let mut cut_reader = make();
    let cut = read(&mut cut_reader, pieces(bytes, number(control, 0)));
    assert_eq!((&cut.0, cut.1), (&whole, end), "cut otherwise it is the same");
    for reader in [reader, cut_reader] {
        assert!(reader.partial_bytes() <= bytes.len());
        assert!(end.is_some() || reader.partial_bytes() <= most);
        let (tracker, partial) = reader.into_parts();
        assert!(tracker.open() <= limits.streams && partial.len() <= limits.streams);
    }
    if let Some(end) = end {
        assert_is_a_word_of_ours(end.reason());
    }
    for Message { header, payload } in &whole {
        assert!((2..=65_599).contains(&header.csid));
        assert!(header.length as usize == payload.len() && header.length <= limits.message);
    }
    assert_others_agree(bytes, &whole);
    assert_reads_back(&whole, u32::from(control[3]));
}

/// An independent reader, strict where the specification leaves a choice, finds the same as far as both go on.
fn assert_others_agree(bytes: &[u8], whole: &[Message]) {
    let (strict, _) = read_strictly(bytes);
    for (ours, theirs) in whole.iter().zip(&strict) {
        // Whether a header of format 3 repeats the extended timestamp cannot be known: the relay tells by the value, to be able to
        // follow senders that leave it out. From there on the two may differ.
        if ours.header.fmt == 3 && ours.header.extended {
            return;
        }
        assert_eq!(&meaning(ours), theirs);
    }
}

fn assert_reads_back(whole: &[Message], chunk_size: u32) {
    let (mut writer, mut out) = (Writer::default(), Vec::new());
    if chunk_size > 0 {
        writer.write(&mut out, 2, 0, kind::SET_CHUNK_SIZE, 0, &chunk_size.to_be_bytes());
        writer.set_chunk_size(chunk_size);
    }
    // These would change how the others are to be read.
    let said: Vec<_> = whole.iter().filter(|m| !matches!(m.header.kind, kind::SET_CHUNK_SIZE | kind::ABORT)).collect();
    for Message { header, payload } in &said {
        writer.write(&mut out, header.csid, header.timestamp, header.kind, header.stream_id, payload);
    }
    let (mut heard, end) = read(&mut media_reader(), [&out[..]]);
    assert_eq!(end, None);
    if chunk_size > 0 {
        heard.remove(0);
    }
    let meanings: Vec<_> = heard.iter().map(meaning).collect();
    assert_eq!(meanings, said.into_iter().map(meaning).collect::<Vec<_>>());
    assert_eq!(read_strictly(&out).1, None, "what we write nobody can misread");
}
