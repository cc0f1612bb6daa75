//! Origins are killed while real encoders publish: the encoders notice nothing, and what the origins recorded is, together, the
//! stream but for the gap.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::clip;
use crate::compare::{begins, frames, played};
use crate::flv::{self, Kind, Tag};
use crate::peers::{Nginx, NginxOptions, Publisher, Sender, Take};
use crate::process::{Running, workdir};
use crate::relay::Relay;
use crate::route::{Route, direct};
use crate::wait::{CLIP, SOON, wait_until};

/// Milliseconds between key frames of the clip.
const GROUP: u32 = 1000;

/// Waits until `origin` has recorded the stream up to here, ms.
fn wait_recorded(origin: &Nginx, stream: &str, until: u32) {
    wait_until(&format!("{stream} is recorded up to {until} ms"), SOON, || {
        let bytes = std::fs::read(origin.recording(stream)).unwrap_or_default();
        flv::parse(&bytes).is_ok_and(|tags| frames(&tags).last().is_some_and(|tag| tag.time >= until))
    });
}

/// What an encoder sends, as an origin records it.
fn sent_by(sender: Sender) -> Vec<Tag> {
    if sender == Sender::Ffmpeg {
        return flv::read(clip::normal());
    }
    // The others write the clip anew.
    let origin = Nginx::start(&NginxOptions::default());
    Publisher::start(sender, &Route::past_the_relay(&origin).url("cam"), Take::unpaced()).succeed();
    origin.recorded("cam", SOON)
}

/// How many frames of video ffprobe decodes, and all it has to complain about.
fn decoded(recording: &Path) -> (usize, String) {
    let dir = workdir("ffprobe");
    let mut probe = Command::new("ffprobe");
    probe.args([
        "-v",
        "warning",
        "-threads",
        "1",
        "-select_streams",
        "v",
        "-count_frames",
        "-show_entries",
        "stream=nb_read_frames",
    ]);
    probe.args(["-of", "default=nokey=1:noprint_wrappers=1"]).arg(recording);
    let mut running = Running::start("ffprobe", &mut probe, dir.path());
    running.succeed(CLIP);
    let said = running.output();
    let count = said.lines().filter_map(|line| line.trim().parse().ok()).next_back().unwrap_or(0);
    let complaints = said.lines().filter(|line| line.trim().parse::<usize>().is_err()).collect::<Vec<_>>().join("\n");
    (count, complaints)
}

/// The two recordings are the beginning and the rest of what was sent; what is missing between is less than two groups.
fn together(sent: &[Tag], first: &[Tag], second: &[Tag], context: &str) {
    begins(sent, first).unwrap_or_else(|problem| panic!("{context}, the first origin: {problem}"));
    played(sent, second, 0).unwrap_or_else(|problem| panic!("{context}, the second origin: {problem}"));
    let pictures = |tags: &[Tag]| frames(tags).into_iter().filter(|tag| tag.kind == Kind::Video).cloned().collect::<Vec<_>>();
    // nginx counts the times of a recording from its first message on.
    let (sent, before, behind) = (pictures(sent), pictures(first), pictures(second));
    assert!(behind[0].is_key_frame(), "{context}: it goes on with a key frame");
    let time = |tag: &Tag| sent.iter().find(|sent| sent.payload == tag.payload).map_or(u32::MAX, |sent| sent.time);
    let gap = time(&behind[0]) - time(&before[before.len() - 1]);
    assert!(gap <= 2 * GROUP, "{context}: {gap} ms are missing");
}

#[test]
fn an_encoder_whose_origin_is_killed_goes_on_at_another() {
    if direct() {
        return;
    }
    for sender in [Sender::Ffmpeg, Sender::Rtmp2Sink, Sender::RtmpSink] {
        let context = format!("{sender:?}");
        let (mut a, b) = (
            Nginx::start(&NginxOptions::default()),
            Nginx::start(&NginxOptions { chunk_size: 60_000, ..NginxOptions::default() }),
        );
        let upstreams = [&a, &b].map(|origin| json!({ "url": format!("rtmp://{}", origin.address()) }));
        let route = Route::through(Relay::before(json!(upstreams)));
        let mut publisher = Publisher::start(sender, &route.url("cam"), Take::live());
        wait_recorded(&a, "cam", 1_700);
        a.kill();
        publisher.succeed();
        let rest = b.recorded("cam", SOON);
        together(&sent_by(sender), &flv::read(&a.recording("cam")), &rest, &context);
        let pictures =
            rest.iter().filter(|tag| tag.kind == Kind::Video && !tag.is_sequence_header() && !tag.is_end_of_sequence());
        assert_eq!(decoded(&b.recording("cam")), (pictures.count(), String::new()), "{context}: it can be played");
        assert!(decoded(&a.recording("cam")).0 > 40, "{context}: so can what the first one had");
        let relay = route.relay().expect("there is a relay");
        relay.wait_for_active(0);
        let over = |result: &str| relay.metric(&format!("rtmp_relay_publish_holds_over_total{{result=\"{result}\"}}"));
        assert_eq!((over("resumed"), over("expired")), (Some(1.0), Some(0.0)), "{context}");
    }
}

#[test]
fn an_encoder_whose_only_origin_is_killed_and_started_again_goes_on_there() {
    if direct() {
        return;
    }
    let mut origin = Nginx::start(&NginxOptions::default());
    let retry = json!({ "initial_delay_sec": 0.1, "max_delay_sec": 0.2, "max_attempts": 100 });
    let relay = Relay::start(&origin.address(), json!({ "retry": retry, "circuit_breaker": { "max_failures": 3 } }));
    let route = Route::through(relay);
    let mut publisher = Publisher::start(Sender::Ffmpeg, &route.url("cam"), Take::live());
    wait_recorded(&origin, "cam", 1_500);
    origin.kill();
    let first = flv::read(&origin.recording("cam"));
    // It would be written over.
    std::fs::rename(origin.recording("cam"), origin.recording("first")).expect("the recording is there");
    let relay = route.relay().expect("there is a relay");
    wait_until("the publisher is held", SOON, || relay.metric("rtmp_relay_publishers_held") == Some(1.0));
    origin.restart();
    publisher.succeed();
    let rest = origin.recorded("cam", SOON);
    together(&flv::read(clip::normal()), &first, &rest, "the same origin");
    assert_eq!(decoded(&origin.recording("cam")).1, "");
}
