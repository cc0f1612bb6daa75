//! The frame-aligned pump: one wake and one send a frame, however many segments it comes in; and a deadline for half a frame.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::origin::{Line, Origin};
use crate::parser::{Message, kind};
use crate::relay::Relay;
use crate::speech::{Say, body, set_chunk_size};
use crate::wait::{pace, wait_for};

const SEGMENT: usize = 1448;
const SEGMENTS: usize = 7;
/// With its header a message fills its segments exactly.
const BODY: usize = SEGMENTS * SEGMENT - 12;
const EVERY: Duration = Duration::from_millis(2);

/// How a paced stream went through.
struct Run {
    messages: u64,
    reads: u64,
    writes: u64,
    /// Messages that the sender itself took so long over that they ran into the hold deadline, or so late that two came at once.
    late: u64,
    /// Reads of the origin that ended inside a message.
    halves: u64,
}

/// Sends `count` video messages, a segment each [`EVERY`].
fn stream(relay: &Relay, origin: &Origin, count: u32) -> Run {
    let mut client = Client::publishing(relay, "live", "cam");
    client.write(&set_chunk_size(60_000));
    let line = origin.line_of("cam");
    line.ear.wait_message("Set Chunk Size is heard", |m| m.kind == kind::SET_CHUNK_SIZE && m.body == 60_000_u32.to_be_bytes());
    // What came before counts for nothing.
    let before = wait_for("the session relays", || Some(relay.row(client.address())).filter(|row| row["state"] == "relaying"));
    let heard = line.ear.record().reads.len();
    let mut late = 0;
    let mut sent = Vec::new();
    let mut next = Instant::now();
    for number in 0..count {
        let body = body(number, BODY);
        let bytes = Say::full(6, number * 14, kind::VIDEO, 1, &body).bytes(60_000);
        let began = Instant::now();
        for segment in bytes.chunks(SEGMENT) {
            pace(next);
            client.try_write(segment).expect("the relay takes it");
            next += EVERY;
        }
        late += u64::from(began.elapsed() > EVERY * SEGMENTS as u32 + Duration::from_millis(3));
        sent.push(body);
    }
    let got = line.ear.wait_count(&[kind::VIDEO], count as usize);
    assert!(got.iter().map(|m| &m.body).eq(&sent), "every message arrives as it was sent");
    let halves = line.ear.record().reads[heard..].iter().filter(|read| !read.whole).count() as u64;
    let after = wait_for("every message is counted", || {
        Some(relay.row(client.address())).filter(|row| row["to_upstream"]["messages"] == json!(count))
    });
    let grown = |key: &str| {
        let number = |row: &Value| row["to_upstream"][key].as_u64().expect("a count");
        number(&after) - number(&before)
    };
    Run { messages: u64::from(count), reads: grown("reads"), writes: grown("writes"), late, halves }
}

#[test]
fn a_thousand_frames_of_seven_segments_cost_at_most_two_and_a_half_reads_and_one_write_each_and_leave_whole() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let Run { messages, reads, writes, late, halves } = stream(&relay, &origin, 1000);
    println!("{messages} messages: {reads} reads, {writes} writes, {late} late, {halves} halves");
    // A sender that a busy machine kept waiting may run into the deadline; those messages may cost what they like.
    assert!(late <= messages / 4, "this machine is too busy to send a segment each 2 ms: {late} of {messages} were late");
    assert!(reads * 10 <= (messages - late) * 25 + late * 70, "{reads} reads of {messages} messages, {late} of them late");
    assert!(writes * 10 <= (messages - late) * 12 + late * 70, "{writes} writes of {messages} messages, {late} of them late");
    // What has begun to leave at the deadline goes on as it comes.
    assert!(halves <= late * 6, "{halves} half frames left before the hold deadline; {late} came late");
}

#[test]
fn the_same_frames_without_holding_show_that_the_check_above_can_fail() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({ "hold": { "max": "0s" } }));
    let Run { messages, reads, writes, halves, .. } = stream(&relay, &origin, 150);
    println!("{messages} messages: {reads} reads, {writes} writes, {halves} halves");
    assert!(reads >= 4 * messages, "{reads} reads of {messages} messages");
    assert!(writes >= 4 * messages, "{writes} writes of {messages} messages");
    assert!(halves > messages);
}

/// Waits until the origin has heard `count` bytes; when.
fn heard_at(line: &Line, count: usize) -> Instant {
    line.ear.wait(&format!("{count} bytes are heard"), |record| {
        record.reads.iter().find(|read| read.bytes >= count).map(|read| read.at)
    })
}

#[test]
fn half_a_frame_leaves_at_the_hold_deadline_and_not_before() {
    let hold = Duration::from_millis(300);
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({ "hold": { "max": "300ms" } }));
    let mut client = Client::publishing(&relay, "live", "cam");
    client.write(&set_chunk_size(60_000));
    let line = origin.line_of("cam");
    line.ear.wait_message("Set Chunk Size is heard", |m| m.body == 60_000_u32.to_be_bytes());
    let heard = line.ear.record().bytes.len();
    let body = body(1, BODY);
    let frame = Say::full(6, 40, kind::VIDEO, 1, &body).bytes(60_000);
    let (first, rest) = frame.split_at(frame.len() / 2);
    let sent = Instant::now();
    client.write(first);
    let at = heard_at(&line, heard + 1);
    assert!(at - sent >= hold, "it left after {:?}", at - sent);
    assert_eq!(heard_at(&line, heard + first.len()), at, "all of it");
    // The rest is not held once more: it completes what has left already.
    client.write(rest);
    heard_at(&line, heard + frame.len());
    // The next frame is held as if nothing had been.
    client.write(&frame[..200]);
    let video = |m: &Message| m.kind == kind::VIDEO;
    assert_eq!(line.ear.wait_message("the frame is whole", video).body, body);
    assert_eq!(line.ear.record().bytes.len(), heard + frame.len(), "the next half waits");
    client.write(&frame[200..]);
    assert_eq!(line.ear.wait_count(&[kind::VIDEO], 2)[1].body, body);
}

#[test]
fn a_frame_that_takes_three_reads_because_audio_stands_inside_it_still_leaves_whole() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({ "hold": { "max": "1s" } }));
    let mut client = Client::publishing(&relay, "live", "cam");
    client.write(&set_chunk_size(4096));
    let line = origin.line_of("cam");
    line.ear.wait_message("Set Chunk Size is heard", |m| m.body == 4096_u32.to_be_bytes());
    let heard = line.ear.record().bytes.len();
    let heard_reads = line.ear.record().reads.len();
    let picture = body(1, BODY);
    let mut frame = Say::full(6, 40, kind::VIDEO, 1, &picture).bytes(4096);
    let sound = Say::full(4, 40, kind::AUDIO, 1, &body(2, 340)).bytes(4096);
    // Behind the first chunk: its header of 12 bytes, and 4096 of payload.
    frame.splice(4108..4108, sound);
    let address = client.address();
    let reads = || relay.row(address)["to_upstream"]["reads"].as_u64().expect("a count");
    let before = reads();
    client.try_write(&frame[..1000]).expect("the relay takes it");
    wait_for("the first part is read", || (reads() > before).then_some(()));
    // The mark asks for what the picture lacks, and the sound counts towards it.
    client.try_write(&frame[1000..frame.len() - 200]).expect("the relay takes it");
    wait_for("the second part is read", || (reads() > before + 1).then_some(()));
    assert_eq!(line.ear.record().bytes.len(), heard, "no half frame leaves before its time");
    client.try_write(&frame[frame.len() - 200..]).expect("the relay takes it");
    assert_eq!(line.ear.wait_message("the frame is whole", |m| m.kind == kind::VIDEO).body, picture);
    assert!(line.ear.record().reads[heard_reads..].iter().all(|read| read.whole), "in one piece");
}

#[test]
fn each_frame_has_its_own_deadline_however_close_they_come() {
    let hold = Duration::from_millis(500);
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({ "hold": { "max": "500ms" } }));
    let mut client = Client::publishing(&relay, "live", "cam");
    client.write(&set_chunk_size(60_000));
    let line = origin.line_of("cam");
    line.ear.wait_message("Set Chunk Size is heard", |m| m.body == 60_000_u32.to_be_bytes());
    let heard = line.ear.record().bytes.len();
    let [one, two] = [1, 2].map(|number| Say::full(6, number * 40, kind::VIDEO, 1, &body(number, BODY)).bytes(60_000));
    client.write(&one[..1000]);
    pace(Instant::now() + hold / 2);
    // The end of the first and the beginning of the second arrive together.
    let sent = Instant::now();
    client.write(&[&one[1000..], &two[..1000]].concat());
    assert!(heard_at(&line, heard + one.len()) - sent < hold, "what is whole does not wait");
    let at = heard_at(&line, heard + one.len() + 1);
    assert!(at - sent >= hold, "the second left after {:?}, on the deadline of the first", at - sent);
}

#[test]
fn a_player_is_sent_whole_frames_too() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({ "hold": { "max": "1s" } }));
    let client = Client::playing(&relay, "live", "cam");
    let line = origin.line_of("cam");
    line.write(&set_chunk_size(60_000));
    client.ear.wait_message("Set Chunk Size is heard", |m| m.body == 60_000_u32.to_be_bytes());
    let heard = client.ear.record().reads.len();
    for number in 0..50 {
        let body = body(number, BODY);
        let frame = Say::full(7, number * 40, kind::VIDEO, 1, &body).bytes(60_000);
        let mut next = Instant::now();
        for segment in frame.chunks(SEGMENT) {
            pace(next);
            line.write(segment);
            next += Duration::from_millis(1);
        }
        let got = client.ear.wait_count(&[kind::VIDEO], number as usize + 1);
        assert_eq!(got[number as usize].body, body);
    }
    let record = client.ear.record();
    let halves = record.reads[heard..].iter().filter(|read| !read.whole).count();
    assert_eq!(halves, 0, "every read of the player ends with a frame");
}
