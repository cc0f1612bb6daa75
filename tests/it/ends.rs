//! How sessions end: who is told what, how it is counted, and that nothing is left behind. Each test runs the program itself, so that
//! its file descriptors can be counted.

use std::time::Duration;

use serde_json::json;

use crate::amf::{self, Amf, n, s};
use crate::client::{Client, hello};
use crate::ear::End;
use crate::origin::{At, Deed, Origin, Script};
use crate::parser::{Message, kind};
use crate::relay::Process;
use crate::speech::{Say, body, user_control};
use crate::wait::{wait_equal, wait_until};

/// A relay in front of an origin, before anybody came.
struct Scene {
    relay: Process,
    origin: Origin,
    descriptors: usize,
}

impl Scene {
    fn new(more: serde_json::Value) -> Self {
        Self::before(Origin::willing(), more)
    }

    fn before(origin: Origin, more: serde_json::Value) -> Self {
        let relay = Process::with(&origin.url(""), more);
        // The look whether the origin is there has ended too.
        wait_until("the origin was looked at", || origin.count() == 1);
        relay.wait_empty();
        let descriptors = relay.settled_descriptors();
        Self { relay, origin, descriptors }
    }

    /// Nobody is left, no descriptor either, and every accepted socket was counted once: `counted` as (success, error, rejected).
    fn nothing_is_left(&self, counted: (u64, u64, u64)) {
        self.relay.wait_empty();
        self.relay.wait_descriptors(self.descriptors);
        wait_equal("connections_total as success, error, rejected", &counted, || self.relay.connections());
    }
}

fn frames(client: &mut Client, count: u32) -> Vec<Message> {
    (0..count).map(|i| client.say(6, i * 40, kind::VIDEO, 1, &body(i, 3000))).collect()
}

#[test]
fn a_publisher_that_ends_in_order_is_ended_in_order_and_hears_the_last_words() {
    let scene = Scene::new(json!({}));
    let mut client = Client::publishing(&scene.relay, "live", "cam");
    let said = frames(&mut client, 20);
    client.command(3, 0, "FCUnpublish", &[Amf::Null, s("cam")]);
    client.command(3, 0, "deleteStream", &[Amf::Null, n(1)]);
    client.leave();
    let line = scene.origin.line_of("cam");
    assert_eq!(line.ear.wait_end(), End::Fin);
    assert_eq!(line.ear.wait_count(&[kind::VIDEO], 20), said);
    let heard = line.ear.record().messages.clone();
    assert!(heard[heard.len() - 2].is("FCUnpublish") && heard[heard.len() - 1].is("deleteStream"), "{heard:?}");
    // The client has only closed its own half.
    let last = line.say(5, 0, kind::DATA, b"last words");
    line.finish();
    assert_eq!(client.ear.wait_count(&[kind::DATA], 1), [last]);
    assert_eq!(client.ended(), End::Fin);
    assert_eq!(scene.relay.outcome(client.address()), "client client_closed success");
    scene.nothing_is_left((1, 0, 0));
}

#[test]
fn a_publisher_that_resets_is_ended_properly_towards_the_origin() {
    let scene = Scene::new(json!({}));
    let mut client = Client::publishing(&scene.relay, "live", "cam");
    let address = client.address();
    frames(&mut client, 5);
    let line = scene.origin.line_of("cam");
    line.ear.wait_count(&[kind::VIDEO], 5);
    client.reset();
    let delete = line.ear.wait_command("deleteStream").command().expect("a command");
    assert_eq!(delete.2, [Amf::Null, n(1)]);
    assert_eq!(line.ear.wait_end(), End::Fin);
    assert_eq!(line.ear.record().wrong, None);
    assert_eq!(scene.relay.outcome(address), "client client_reset success");
    scene.nothing_is_left((1, 0, 0));
}

#[test]
fn a_publisher_that_dies_inside_a_message_leaves_the_origin_with_a_stream_that_just_ends() {
    let scene = Scene::new(json!({ "hold": { "max": "1s" } }));
    let mut client = Client::publishing(&scene.relay, "live", "cam");
    let said = frames(&mut client, 3);
    let half = Say::full(6, 500, kind::VIDEO, 1, &body(9, 3000)).bytes(128);
    client.write(&half[..1000]);
    client.leave();
    let line = scene.origin.line_of("cam");
    assert_eq!(line.ear.wait_end(), End::Fin);
    let record = line.ear.record();
    assert_eq!(record.wrong, None);
    let video: Vec<_> = record.messages.iter().filter(|m| m.kind == kind::VIDEO).cloned().collect();
    assert_eq!(video, said);
    assert!(record.messages.last().is_some_and(|m| m.kind == kind::VIDEO), "nothing stands inside the half message");
    drop(record);
    line.finish();
    scene.nothing_is_left((1, 0, 0));
}

#[test]
fn a_publisher_that_is_not_held_is_told_that_its_origin_closed_and_then_reset_if_it_will_not_stop() {
    let scene = Scene::new(json!({ "publish_hold": { "enabled": false } }));
    let mut client = Client::publishing(&scene.relay, "live", "cam");
    frames(&mut client, 2);
    let line = scene.origin.line_of("cam");
    line.ear.wait_count(&[kind::VIDEO], 2);
    line.finish();
    let failed = client.ear.wait_message("the failure is told", |m| m.told().is_some_and(|(code, _)| code.contains("Failed")));
    assert_eq!(failed.told().expect("told"), ("NetStream.Publish.Failed".into(), "the upstream has ended the stream".into()));
    assert_eq!(failed.stream, 1);
    // librtmp and OBS do not see a FIN: only a reset stops them.
    wait_until("writing fails", || client.try_write(&[0xC6; 1000]).is_err());
    assert_eq!(scene.relay.outcome(client.address()), "upstream upstream_closed error");
    scene.nothing_is_left((0, 1, 0));
}

/// What a player must hear last: gst-rtmp the one, ffmpeg and librtmp the other.
fn assert_told_to_stop(client: &Client, description: &str) {
    assert_eq!(client.ended(), End::Fin);
    let record = client.ear.record();
    assert_eq!(record.wrong, None);
    assert!(record.reads.last().is_some_and(|read| read.whole), "the stream ends at a message boundary");
    let [.., eof, unpublish] = &record.messages[..] else { panic!("{:?}", record.messages) };
    assert_eq!((eof.kind, &eof.body), (kind::USER_CONTROL, &user_control(1, 1)));
    assert_eq!(unpublish.told(), Some(("NetStream.Play.UnpublishNotify".into(), description.into())));
    assert_eq!(unpublish.stream, 1);
}

#[test]
fn a_player_whose_origin_closes_hears_that_the_stream_is_over() {
    // Told at 5, heard as 1.
    let scene = Scene::before(Origin::new(Script { stream_id: 5, ..Script::default() }), json!({}));
    let mut client = Client::playing(&scene.relay, "live", "cam");
    let line = scene.origin.line_of("cam");
    let said = line.say(7, 0, kind::VIDEO, &body(1, 50_000));
    line.finish();
    assert_told_to_stop(&client, "the upstream has ended the stream");
    assert_eq!(client.ear.wait_count(&[kind::VIDEO], 1)[0].body, said.body);
    client.leave();
    assert_eq!(scene.relay.outcome(client.address()), "upstream upstream_closed success");
    scene.nothing_is_left((1, 0, 0));
}

#[test]
fn a_player_whose_origin_dies_inside_a_message_hears_only_whole_ones_and_the_end() {
    let scene = Scene::new(json!({ "hold": { "max": "1s" } }));
    let mut client = Client::playing(&scene.relay, "live", "cam");
    let line = scene.origin.line_of("cam");
    let said = line.say(7, 0, kind::VIDEO, &body(1, 500));
    client.ear.wait_count(&[kind::VIDEO], 1);
    let half = Say::full(7, 40, kind::VIDEO, 1, &body(2, 3000)).bytes(4096);
    line.write(&half[..1000]);
    line.finish();
    assert_told_to_stop(&client, "the upstream has ended the stream");
    assert_eq!(client.ear.wait_count(&[kind::VIDEO], 1), [said]);
    client.leave();
    scene.nothing_is_left((1, 0, 0));
}

#[test]
fn a_player_that_was_sent_half_a_message_is_reset_when_the_rest_will_never_come() {
    let scene = Scene::new(json!({ "hold": { "max": "0s" } }));
    let mut client = Client::playing(&scene.relay, "live", "cam");
    let line = scene.origin.line_of("cam");
    let half = Say::full(7, 40, kind::VIDEO, 1, &body(2, 3000)).bytes(4096);
    line.write(&half[..1000]);
    client.ear.wait("the half is heard", |record| record.bytes.ends_with(&half[500..1000]).then_some(()));
    line.reset();
    assert_eq!(client.ended(), End::Reset, "inside a message only a reset is true");
    client.leave();
    assert_eq!(scene.relay.outcome(client.address()), "upstream upstream_reset error");
    scene.nothing_is_left((0, 1, 0));
}

#[test]
fn an_origin_that_resets_is_a_fault_of_the_origin() {
    let scene = Scene::new(json!({ "publish_hold": { "enabled": false } }));
    let mut client = Client::publishing(&scene.relay, "live", "cam");
    let line = scene.origin.line_of("cam");
    line.reset();
    let told = client.ear.wait_message("the failure is told", |m| m.told().is_some_and(|(code, _)| code.contains("Failed")));
    assert_eq!(told.told().expect("told").1, "the connection to the upstream was lost");
    client.leave();
    assert_eq!(scene.relay.outcome(client.address()), "upstream upstream_reset error");
    assert_eq!(scene.relay.metric("rtmp_relay_upstream_errors_total{error_type=\"lost\"}"), 1);
    scene.nothing_is_left((0, 1, 0));
}

#[test]
fn an_origin_that_takes_nothing_more_is_given_up_after_the_write_timeout() {
    let more = json!({ "write_timeout": "1s", "tcp": { "send_buffer": 65536 }, "publish_hold": { "enabled": false } });
    let scene = Scene::new(more);
    let mut client = Client::publishing(&scene.relay, "live", "cam");
    let line = scene.origin.line_of("cam");
    line.ear.stop_listening();
    let mut number = 0;
    client.socket.set_write_timeout(Some(Duration::from_millis(100))).expect("a socket takes a timeout");
    wait_until("the origin is given up", || {
        number += 1;
        let _ = client.try_write(&Say::full(6, 40, kind::VIDEO, 1, &body(number, 100_000)).bytes(128));
        scene.relay.ended("upstream", "upstream_not_reading") == 1
    });
    client.leave();
    assert_eq!(scene.relay.outcome(client.address()), "upstream upstream_not_reading error");
    scene.nothing_is_left((0, 1, 0));
}

#[test]
fn a_publisher_that_falls_silent_is_told_so_and_closed() {
    let scene = Scene::new(json!({ "idle_timeout": "1s" }));
    let mut client = Client::publishing(&scene.relay, "live", "cam");
    let mut player = Client::playing(&scene.relay, "live", "other");
    let told = client.ear.wait_message("the end is told", |m| m.told().is_some_and(|(code, _)| code.contains("Failed")));
    assert_eq!(told.told().expect("told").1, "nothing was sent for too long");
    client.leave();
    let line = scene.origin.line_of("cam");
    line.ear.wait_command("deleteStream");
    assert_eq!(line.ear.wait_end(), End::Fin);
    assert_eq!(scene.relay.outcome(client.address()), "client idle_timeout success");
    // A player may wait for as long as it likes.
    assert_eq!(scene.relay.row(player.address())["state"], "relaying");
    player.leave();
    scene.origin.line_of("other").finish();
    scene.nothing_is_left((2, 0, 0));
}

#[test]
fn a_player_is_ended_for_silence_only_where_the_operator_said_so() {
    let scene = Scene::new(json!({ "player_idle_timeout": "1s" }));
    let mut client = Client::playing(&scene.relay, "live", "cam");
    assert_told_to_stop(&client, "the stream was silent for too long");
    client.leave();
    assert_eq!(scene.relay.outcome(client.address()), "client player_idle_timeout success");
    scene.nothing_is_left((1, 0, 0));
}

#[test]
fn a_client_that_leaves_at_any_phase_leaves_nothing_behind() {
    let scene = Scene::new(json!({}));
    let steps: [fn(&mut Client); 5] = [
        |client| client.write(&hello()[..700]),
        |client| client.write(&hello()[700..]),
        |client| _ = client.connect("live"),
        |client| _ = client.create_stream(),
        |client| {
            let publish = amf::command("publish", 3.0, &[Amf::Null, s("cam"), s("live")]);
            client.write(&Say::full(8, 0, kind::COMMAND, 1, &publish).bytes(128)[..20]);
        },
    ];
    for reset in [false, true] {
        for count in 0..=steps.len() {
            let mut client = Client::to(&scene.relay);
            let address = client.address();
            steps[..count].iter().for_each(|step| step(&mut client));
            if reset {
                client.reset()
            } else {
                client.leave()
            }
            let want = if count == 0 { "client empty empty" } else { "client client_left error" };
            assert_eq!(scene.relay.outcome(address), want, "after {count} steps");
        }
    }
    assert_eq!(scene.relay.metric("rtmp_relay_empty_connections_total"), 2);
    scene.nothing_is_left((0, 10, 0));
    // The look, and nobody else: no client had asked for anything.
    assert_eq!(scene.origin.count(), 1);
}

#[test]
fn a_client_that_leaves_while_its_upstream_is_dialled_takes_the_dial_with_it() {
    for at in [At::Accept, At::Connect, At::CreateStream, At::Request] {
        let scene = Scene::before(Origin::new(Script::doing(at, Deed::Stall)), json!({ "dial_timeout": "60s" }));
        for reset in [false, true] {
            let mut client = Client::asking_to_publish(&scene.relay, "live", "cam");
            let address = client.address();
            let line = scene.origin.line(usize::from(reset));
            if at != At::Accept {
                line.ear.wait_command(["connect", "createStream", "publish"][at as usize - At::Connect as usize]);
            }
            if reset {
                client.reset()
            } else {
                client.leave()
            }
            line.ear.wait_end();
            assert_eq!(scene.relay.outcome(address), "client client_left error", "{at:?}");
        }
        scene.nothing_is_left((0, 2, 0));
        let circuit = &scene.relay.status()["circuit_breaker"]["targets"][0];
        assert_eq!((&circuit["state"], &circuit["failures"]), (&json!("closed"), &json!(0)), "that was no fault of the origin");
    }
}

#[test]
fn an_origin_that_ends_at_any_phase_leaves_nothing_behind_and_the_client_knows_why() {
    let once = json!({ "retry": { "enabled": false }, "circuit_breaker": { "enabled": false }, "dial_timeout": "500ms" });
    for at in [At::Accept, At::Handshake, At::Connect, At::CreateStream, At::Request] {
        let origin = Origin::scripted(move |number| match number % 3 {
            // The first is the look.
            1 => Script::doing(at, Deed::Close),
            2 => Script::doing(at, Deed::Reset),
            _ => Script::doing(at, Deed::Stall),
        });
        let scene = Scene::before(origin, once.clone());
        for way in ["closed", "reset", "stalled"] {
            let mut client = Client::asking_to_publish(&scene.relay, "live", "cam");
            let (code, text) = client.refused();
            let context = format!("{way} at {at:?}: {text}");
            assert_eq!(code, "NetStream.Publish.Failed", "{context}");
            let outcome = scene.relay.outcome(client.address());
            let refuses = way != "stalled" && at != At::Accept && at != At::Handshake;
            if refuses {
                assert_eq!(outcome, "upstream upstream_refused error", "{context}");
                assert_eq!(text, "the upstream refused the stream by closing the connection");
            } else {
                assert!(outcome.starts_with("upstream ") && outcome.ends_with(" error"), "{context}: {outcome}");
                assert_eq!(text, "the upstream cannot be reached, try again later");
            }
        }
        scene.nothing_is_left((0, 3, 0));
    }
}
