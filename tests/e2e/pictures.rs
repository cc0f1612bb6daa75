//! Which pictures are in a stream? The coded slices of H.264, read from FLV tags or from a file of their own.

use crate::flv::{Kind, Tag};

/// The slices that these tags carry, each with its first byte.
pub fn of_tags(tags: &[Tag]) -> Vec<Vec<u8>> {
    let frames = tags.iter().filter(|tag| tag.kind == Kind::Video && !tag.is_sequence_header() && !tag.is_end_of_sequence());
    let mut slices = Vec::new();
    for frame in frames {
        let mut rest = frame.payload.get(5..).unwrap_or_default();
        while let Some((length, behind)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some((unit, behind)) = behind.split_at_checked(length) else { break };
            slices.extend(slice(unit));
            rest = behind;
        }
    }
    slices
}

/// The slices of a byte stream (ITU-T H.264, Annex B).
pub fn of_bytes(bytes: &[u8]) -> Vec<Vec<u8>> {
    let starts: Vec<usize> = bytes.windows(3).enumerate().filter(|(_, code)| code == b"\0\0\x01").map(|(at, _)| at + 3).collect();
    let ends = starts.iter().skip(1).map(|next| next - 3).chain([bytes.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| slice(&bytes[*start..end])).collect()
}

/// A unit that is a slice, without the zeros that may stand behind it.
fn slice(unit: &[u8]) -> Option<Vec<u8>> {
    let end = unit.iter().rposition(|byte| *byte != 0)? + 1;
    matches!(unit[0] & 0x1f, 1 | 5).then(|| unit[..end].to_vec())
}

/// `received` is a run of the `sent` pictures without a gap, at least `least` of them.
pub fn same(sent: &[Vec<u8>], received: &[Vec<u8>], least: usize) -> Result<(), String> {
    let first = received.first().ok_or("not one picture")?;
    let start = sent.iter().position(|picture| picture == first).ok_or("its first picture was never sent")?;
    let agree = sent[start..].iter().zip(received).take_while(|(sent, received)| sent == received).count();
    if agree < received.len() {
        return Err(format!("picture {agree} of {} is not the one that was sent (from the {start}th on)", received.len()));
    }
    if agree < least {
        return Err(format!("only {agree} pictures of {}, at least {least} were expected", sent.len()));
    }
    Ok(())
}

#[test]
fn both_forms_of_a_clip_have_the_same_pictures() {
    let sent = of_tags(&crate::flv::read(crate::clip::normal()));
    assert_eq!(sent.len(), 150, "six seconds at 25 frames, a slice each");
    let stream: Vec<u8> = sent.iter().flat_map(|slice| [b"\0\0\0\x01", &slice[..]].concat()).collect();
    assert_eq!(of_bytes(&stream), sent);
    assert_eq!(same(&sent, &sent, 150), Ok(()));
    assert_eq!(same(&sent, &sent[20..140], 120), Ok(()));
}

#[test]
fn a_missing_a_damaged_and_a_foreign_picture_are_noticed() {
    let sent = of_tags(&crate::flv::read(crate::clip::normal()));
    let (mut missing, mut damaged) = (sent.clone(), sent.clone());
    missing.remove(70);
    *damaged[70].last_mut().expect("no slice is empty") ^= 1;
    let foreign = of_tags(&crate::flv::read(crate::clip::small()));
    for received in [&missing, &damaged, &foreign, &Vec::new(), &sent[..20].to_vec()] {
        same(&sent, received, 100).expect_err("it differs");
    }
}
