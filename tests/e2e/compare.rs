//! Is this the same stream? The judgement of recordings, and tests that it can say no.

use crate::flv::{Kind, Tag};

/// What a player may miss at the very end, in milliseconds of stream: some stop reading when they hear that the
/// publisher has left, before the frames that arrived just ahead of that.
pub const PLAYER_TAIL: u32 = 500;

/// Audio and video without sequence headers, which origins repeat as they like.
pub fn frames(tags: &[Tag]) -> Vec<&Tag> {
    tags.iter().filter(|tag| tag.kind != Kind::Script && !tag.is_sequence_header()).collect()
}

/// The same frames in the same order at the same times, to the last byte of the last one.
///
/// Times are compared from the first frame on, so that a recording which begins at zero matches a stream that does not.
pub fn identical(sent: &[Tag], recorded: &[Tag]) -> Result<(), String> {
    same_headers(sent, recorded)?;
    let (sent, recorded) = (frames(sent), frames(recorded));
    let start = |frames: &[&Tag]| frames.first().map(|tag| i64::from(tag.time)).ok_or("not one frame");
    run(&sent, &recorded, start(&recorded)? - start(&sent)?)?;
    if sent.len() != recorded.len() {
        return Err(format!("{} frames were sent, {} recorded; the first {} agree", sent.len(), recorded.len(), recorded.len()));
    }
    Ok(())
}

/// What a player got: for each kind a run of the frames sent, without a gap, to within `tail` ms of the end.
///
/// A player that joined late begins in the middle, its video with a key frame. Marks of a sequence's end do not count:
/// ffmpeg as a player writes its own.
pub fn played(sent: &[Tag], received: &[Tag], tail: u32) -> Result<(), String> {
    same_headers(sent, received)?;
    let offset = time_offset(sent, received)?;
    for kind in [Kind::Audio, Kind::Video] {
        let (sent, received) = (of_kind(sent, kind), of_kind(received, kind));
        let received = match kind {
            Kind::Video => &received[received.iter().position(|tag| tag.is_key_frame()).unwrap_or(received.len())..],
            _ => &received[..],
        };
        let first = received.first().ok_or_else(|| format!("not one frame of {kind:?}"))?;
        let start = find(&sent, first, offset).ok_or_else(|| format!("{first:?} was never sent"))?;
        run(&sent[start..], received, offset)?;
        let (last, end) = (received[received.len() - 1].time, sent[sent.len() - 1].time);
        if i64::from(last) + i64::from(tail) < i64::from(end) + offset {
            return Err(format!("{kind:?} ends at {last} ms; it was sent to {end} ms (offset {offset})"));
        }
    }
    Ok(())
}

/// What an origin got that died in the middle: how the stream begins, without a gap.
pub fn begins(sent: &[Tag], recorded: &[Tag]) -> Result<(), String> {
    same_headers(sent, recorded)?;
    let offset = time_offset(sent, recorded)?;
    run(&frames(sent), &frames(recorded), offset)
}

fn of_kind(tags: &[Tag], kind: Kind) -> Vec<&Tag> {
    frames(tags).into_iter().filter(|tag| tag.kind == kind && !tag.is_end_of_sequence()).collect()
}

/// `received` is how `sent` begins, with times that are later by `offset`.
fn run(sent: &[&Tag], received: &[&Tag], offset: i64) -> Result<(), String> {
    if received.len() > sent.len() {
        return Err(format!("{} frames were sent, but {} recorded", sent.len(), received.len()));
    }
    for (number, (sent, received)) in sent.iter().zip(received).enumerate() {
        let time = i64::from(sent.time) + offset;
        if sent.kind != received.kind || sent.payload != received.payload || time != i64::from(received.time) {
            return Err(format!("frame {number}: sent {sent:?}, got {received:?} (expected at {time} ms)"));
        }
    }
    Ok(())
}

/// Each sequence header is one that was sent, and stands before the first frame of its kind.
fn same_headers(sent: &[Tag], received: &[Tag]) -> Result<(), String> {
    for kind in [Kind::Audio, Kind::Video] {
        let of_kind = |tags: &[Tag]| -> Vec<Tag> { tags.iter().filter(|tag| tag.kind == kind).cloned().collect() };
        let (sent, received) = (of_kind(sent), of_kind(received));
        if sent.first().is_some_and(Tag::is_sequence_header) && !received.first().is_some_and(Tag::is_sequence_header) {
            return Err(format!("{kind:?} does not begin with its sequence header but with {:?}", received.first()));
        }
        for header in received.iter().filter(|tag| tag.is_sequence_header()) {
            if !sent.iter().any(|tag| tag.payload == header.payload) {
                return Err(format!("sequence header {header:?} was never sent"));
            }
        }
    }
    Ok(())
}

/// By how much the receiver's clock is ahead: found at its first key frame, whose bytes are unlike any other's nearby.
fn time_offset(sent: &[Tag], received: &[Tag]) -> Result<i64, String> {
    let key = frames(received).into_iter().find(|tag| tag.is_key_frame()).ok_or("not one key frame")?;
    let same = frames(sent).into_iter().find(|tag| tag.kind == key.kind && tag.payload == key.payload);
    let same = same.ok_or_else(|| format!("key frame {key:?} was never sent"))?;
    Ok(i64::from(key.time) - i64::from(same.time))
}

fn find(sent: &[&Tag], first: &Tag, offset: i64) -> Option<usize> {
    sent.iter().position(|tag| tag.payload == first.payload && i64::from(tag.time) + offset == i64::from(first.time))
}

#[cfg(test)]
mod tests {
    use super::{PLAYER_TAIL, begins, identical, played};
    use crate::clip;
    use crate::flv::{self, Kind, Tag};

    fn sent() -> Vec<Tag> {
        flv::read(clip::normal())
    }

    fn later(tags: &[Tag], by: u32) -> Vec<Tag> {
        tags.iter().cloned().map(|tag| Tag { time: tag.time + by, ..tag }).collect()
    }

    #[test]
    fn a_stream_is_the_same_as_itself_at_any_start_time() {
        let sent = sent();
        assert_eq!(identical(&sent, &sent), Ok(()));
        assert_eq!(identical(&sent, &later(&sent, 16_800_000)), Ok(()));
        assert_eq!(played(&sent, &sent, 0), Ok(()));
        assert_eq!(played(&sent, &later(&sent, 16_800_000), 0), Ok(()));
    }

    #[test]
    fn one_changed_byte_is_noticed() {
        let sent = sent();
        let mut damaged = sent.clone();
        *damaged[200].payload.last_mut().expect("no frame is empty") ^= 1;
        identical(&sent, &damaged).expect_err("a byte differs");
        played(&sent, &damaged, PLAYER_TAIL).expect_err("a byte differs");
    }

    #[test]
    fn a_missing_a_doubled_and_a_swapped_frame_are_noticed() {
        let sent = sent();
        let (mut missing, mut doubled, mut swapped) = (sent.clone(), sent.clone(), sent.clone());
        missing.remove(200);
        doubled.insert(200, sent[200].clone());
        let next = (201..).find(|at| sent[*at].kind == sent[200].kind).expect("it goes on");
        swapped.swap(200, next);
        for damaged in [missing, doubled, swapped] {
            identical(&sent, &damaged).expect_err("frames differ");
            played(&sent, &damaged, PLAYER_TAIL).expect_err("frames differ");
        }
    }

    #[test]
    fn a_wrong_time_is_noticed() {
        let sent = sent();
        let mut damaged = sent.clone();
        damaged[300].time += 1;
        identical(&sent, &damaged).expect_err("a time differs");
        played(&sent, &damaged, PLAYER_TAIL).expect_err("a time differs");
    }

    #[test]
    fn audio_that_drifts_from_video_is_noticed() {
        let sent = sent();
        let drifted: Vec<Tag> =
            sent.iter().cloned().map(|tag| Tag { time: tag.time + u32::from(tag.kind == Kind::Audio), ..tag }).collect();
        identical(&sent, &drifted).expect_err("audio is late");
        played(&sent, &drifted, PLAYER_TAIL).expect_err("audio is late");
    }

    #[test]
    fn a_recording_must_reach_the_end_and_a_player_almost() {
        let sent = sent();
        let mut short = sent.clone();
        short.truncate(sent.len() - 3);
        identical(&sent, &short).expect_err("three frames are missing");
        assert_eq!(played(&sent, &short, PLAYER_TAIL), Ok(()));
        short.truncate(sent.len() / 2);
        played(&sent, &short, PLAYER_TAIL).expect_err("half of it is missing");
    }

    #[test]
    fn a_late_player_begins_in_the_middle_with_the_headers() {
        let sent = sent();
        let headers = sent.iter().filter(|tag| tag.is_sequence_header()).cloned();
        let late: Vec<Tag> = headers.chain(sent[150..].iter().cloned()).collect();
        assert_eq!(played(&sent, &late, 0), Ok(()));
        played(&sent, &sent[150..], 0).expect_err("the headers are missing");
        identical(&sent, &late).expect_err("the beginning is missing");
    }

    #[test]
    fn a_beginning_has_no_gap_and_no_change() {
        let sent = sent();
        let half = sent[..sent.len() / 2].to_vec();
        assert_eq!(begins(&sent, &half), Ok(()));
        let mut damaged = half.clone();
        damaged.remove(100);
        begins(&sent, &damaged).expect_err("one is missing");
        begins(&sent, &sent[150..]).expect_err("the beginning is missing");
    }

    #[test]
    fn foreign_and_empty_recordings_are_noticed() {
        let sent = sent();
        let foreign = flv::read(clip::small());
        identical(&sent, &foreign).expect_err("another stream");
        played(&sent, &foreign, PLAYER_TAIL).expect_err("another stream");
        identical(&sent, &[]).expect_err("nothing");
        played(&sent, &[], PLAYER_TAIL).expect_err("nothing");
    }
}
