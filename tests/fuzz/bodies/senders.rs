//! A sender made of chance: every header that the specification allows, chunks of several chunk streams woven into each other.

use super::cuts::Chance;
use super::strict::Meaning;

const CSIDS: [u32; 4] = [4, 6, 70, 400];
const KINDS: [u8; 8] = [8, 9, 18, 20, 9, 8, 22, 4];
const SIZES: [u32; 4] = [1, 3, 128, 4096];
const DELTAS: [u32; 8] = [0, 20, 23, 40, 0xFF_FFFE, 0xFF_FFFF, 0x0100_0001, u32::MAX];

/// What was said, as bytes and in meaning.
pub struct Spoken {
    /// The chunk stream.
    pub bytes: Vec<u8>,
    /// Its messages, in the order in which they end.
    pub messages: Vec<Meaning>,
}

/// The last header on a chunk stream.
#[derive(Clone, Copy)]
struct Before {
    delta: u32,
    time: u32,
    length: usize,
    kind: u8,
    stream_id: u32,
}

/// A message on its way: what is still to be sent of it.
struct Open {
    meaning: Meaning,
    extended: Option<u32>,
    sent: usize,
}

/// Speaks as `recipe` says, four bytes a message.
pub fn speak(recipe: &[u8], seed: u16) -> Spoken {
    let mut chance = Chance::new(seed);
    let chunk_size = SIZES[usize::from(seed) % SIZES.len()];
    // A message of more chunks shows nothing new, and takes its time.
    let most = 60 * chunk_size as usize;
    let mut bytes = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    bytes.extend_from_slice(&chunk_size.to_be_bytes());
    let mut messages = vec![(2, 0, 1, 0, chunk_size.to_be_bytes().to_vec())];
    let mut before: [Option<Before>; 4] = [None; 4];
    let mut open: [Option<Open>; 4] = [const { None }; 4];
    let mut recipe = recipe.chunks_exact(4).take(40);
    loop {
        let busy: Vec<usize> = (0..4).filter(|lane| open[*lane].is_some()).collect();
        // Another message begins where its chunk stream is free, and by chance while others are on their way.
        if let Some(wish) = (busy.is_empty() || chance.below(2) == 0).then(|| recipe.next()).flatten() {
            let lane = usize::from(wish[0] & 3);
            while open[lane].is_some() {
                go_on(lane, &mut open[lane], chunk_size, &mut bytes, &mut messages);
            }
            open[lane] = Some(begin(lane, wish, most, &mut before[lane], &mut bytes));
            go_on(lane, &mut open[lane], chunk_size, &mut bytes, &mut messages);
        } else if busy.is_empty() {
            return Spoken { bytes, messages };
        } else {
            let lane = busy[chance.below(busy.len())];
            go_on(lane, &mut open[lane], chunk_size, &mut bytes, &mut messages);
        }
    }
}

/// Writes the header of a message, as short as the wish asks for and what was said before allows.
fn begin(lane: usize, wish: &[u8], most: usize, before: &mut Option<Before>, bytes: &mut Vec<u8>) -> Open {
    let kind = KINDS[usize::from(wish[1] & 7)];
    let delta = DELTAS[usize::from(wish[1] >> 3 & 7)];
    let length = if wish[2] < 200 { usize::from(wish[2]) / 3 } else { usize::from(wish[2]) * 4 };
    let length = if kind == 4 { 6 } else { length.min(most) };
    let stream_id = if kind == 4 || wish[3] & 7 == 7 { 0 } else { 1 };
    let fmt = match (*before, wish[0] >> 2 & 3) {
        (None, _) => 0,
        (Some(b), _) if b.stream_id != stream_id => 0,
        (Some(b), fmt @ 2..) if b.length != length || b.kind != kind => fmt.min(1),
        (Some(b), 3) if b.delta != delta => 2,
        (_, fmt) => fmt,
    };
    let time = if fmt == 0 { delta } else { before.map_or(0, |b| b.time).wrapping_add(delta) };
    *before = Some(Before { delta, time, length, kind, stream_id });
    basic(lane, fmt, bytes);
    let extended = (delta >= 0xFF_FFFF).then_some(delta);
    if fmt < 3 {
        bytes.extend_from_slice(&delta.min(0xFF_FFFF).to_be_bytes()[1..]);
    }
    if fmt < 2 {
        bytes.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
        bytes.push(kind);
    }
    if fmt == 0 {
        bytes.extend_from_slice(&stream_id.to_le_bytes());
    }
    bytes.extend(extended.iter().flat_map(|value| value.to_be_bytes()));
    let mut payload: Vec<u8> = (0..length).map(|i| wish[3].wrapping_add(i as u8)).collect();
    if kind == 4 {
        // Set Buffer Length, Stream Begin and their kin, about our stream or another.
        payload = vec![0, wish[3] >> 5, 0, 0, 0, wish[3] & 3];
    }
    Open { meaning: (CSIDS[lane], time, kind, stream_id, payload), extended, sent: 0 }
}

/// Writes the next chunk of what is on its way.
fn go_on(lane: usize, open: &mut Option<Open>, chunk_size: u32, bytes: &mut Vec<u8>, messages: &mut Vec<Meaning>) {
    let Some(Open { meaning, extended, sent }) = open else { return };
    if *sent > 0 {
        basic(lane, 3, bytes);
        bytes.extend(extended.iter().flat_map(|value| value.to_be_bytes()));
    }
    let payload = &meaning.4;
    let to = (*sent + chunk_size as usize).min(payload.len());
    bytes.extend_from_slice(&payload[*sent..to]);
    *sent = to;
    if to == payload.len() {
        messages.extend(open.take().map(|open| open.meaning));
    }
}

fn basic(lane: usize, fmt: u8, bytes: &mut Vec<u8>) {
    match CSIDS[lane] {
        csid @ 64..320 => bytes.extend_from_slice(&[fmt << 6, (csid - 64) as u8]),
        csid @ 320.. => bytes.extend_from_slice(&[fmt << 6 | 1, ((csid - 64) % 256) as u8, ((csid - 64) / 256) as u8]),
        csid => bytes.push(fmt << 6 | csid as u8),
    }
}
