//! What /metrics says of streams that pass: how long frames stay, who is on, whose pictures are late.

use crate::client::Client;
use crate::origin::Origin;
use crate::parser::kind;
use crate::relay::Relay;
use crate::speech::Say;
use crate::wait::{wait_equal, wait_until};

const KEY: u8 = 0x17;
const INTER: u8 = 0x27;

fn video(first: u8, length: usize) -> Vec<u8> {
    let mut body = vec![0xA5; length];
    body[0] = first;
    body
}

#[test]
fn how_long_a_frame_stays_is_counted_once_for_each_in_its_direction() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let mut publisher = Client::publishing(&relay, "live", "cam");
    let mut player = Client::playing(&relay, "live", "cam");
    let line = origin.line_of("cam");
    line.ear.wait_message("the publish is heard", |m| m.kind == kind::COMMAND);
    for n in 0..30 {
        publisher.say(6, n * 40, kind::VIDEO, 1, &video(INTER, 3000));
    }
    // One that stands whole within another leaves with that one, and both are counted.
    let long = video(INTER, 5000);
    let [first, rest @ ..] = &Say::full(6, 1200, kind::VIDEO, 1, &long).chunks(128)[..] else { panic!("several chunks") };
    let sound = Say::full(4, 1200, kind::AUDIO, 1, &[0xAF, 1, 2, 3]).bytes(128);
    publisher.write(&[first.clone(), sound, rest.concat()].concat());
    line.ear.wait_count(&[kind::VIDEO, kind::AUDIO], 32);
    let count = |direction: &str| relay.metric(&format!("rtmp_relay_frame_latency_seconds_count{{direction=\"{direction}\"}}"));
    wait_equal("all are counted", &32, || count("upstream"));
    let all = |le: &str| relay.metric(&format!("rtmp_relay_frame_latency_seconds_bucket{{direction=\"upstream\",le=\"{le}\"}}"));
    assert_eq!(all("+Inf"), 32);
    assert!(all("0.000025") <= all("1"));
    assert_eq!(count("downstream"), 0, "the origin has sent no picture");
    player.leave();
}

#[test]
fn who_is_on_and_how_old_pictures_are_shows_without_a_name() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let streams = |action: &str| relay.metric(&format!("rtmp_relay_streams{{action=\"{action}\"}}"));
    let mut publisher = Client::publishing(&relay, "live", "cam");
    let mut player = Client::playing(&relay, "live", "cam");
    wait_equal("both are seen", &(1, 1), || (streams("publish"), streams("play")));
    publisher.say(6, 0, kind::VIDEO, 1, &video(INTER, 500));
    assert_eq!(relay.metric("rtmp_relay_oldest_key_frame_seconds"), 0);
    publisher.say(6, 40, kind::VIDEO, 1, &video(KEY, 500));
    // Nothing follows: a stall, and a key frame that grows old.
    wait_until("the silence is seen", || relay.metric("rtmp_relay_publishers_silent") == 1);
    wait_until("its key frame ages", || relay.metric("rtmp_relay_oldest_key_frame_seconds") >= 2);
    assert_eq!(relay.metric("rtmp_relay_publisher_stalls_total"), 1);
    assert_eq!(relay.metric("rtmp_relay_publishers_without_key_frame"), 0, "not that old");
    let metrics = relay.metrics();
    assert!(!metrics.contains("cam") && !metrics.contains("live/"), "a stream became a label:\n{metrics}");
    publisher.leave();
    player.leave();
    wait_equal("nobody is on", &(0, 0), || (streams("publish"), streams("play")));
    assert_eq!(relay.metric("rtmp_relay_oldest_key_frame_seconds"), 0);
}

#[test]
fn what_the_process_and_the_way_to_a_stream_cost_is_told() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let _publisher = Client::publishing(&relay, "live", "cam");
    relay.status();
    for metric in [
        "rtmp_relay_session_setup_duration_seconds_count",
        "rtmp_relay_upstream_connect_duration_seconds_count",
        "rtmp_relay_upstream_handshake_duration_seconds_count",
        "rtmp_relay_actor_wait_seconds_count{actor=\"breaker\"}",
        "rtmp_relay_actor_wait_seconds_count{actor=\"collector\"}",
        "rtmp_relay_actor_wait_seconds_count{actor=\"supervisor\"}",
        "rtmp_relay_buffers_max_bytes",
        "rtmp_relay_buffers_made_total",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
    ] {
        assert!(relay.metric(metric) >= 1, "{metric}:\n{}", relay.metrics());
    }
}
