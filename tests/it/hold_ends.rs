//! Where a publisher is not held, or held in vain: who is told what.

use serde_json::json;

use crate::amf::{self, Amf, obj, s};
use crate::client::Client;
use crate::ear::End;
use crate::hold::{Encoder, between, eager, listen, wait_held};
use crate::origin::{At, Deed, Line, Origin, Script};
use crate::parser::{Message, kind};
use crate::relay::Process;
use crate::wait::wait_until;

fn failed(client: &Client) -> (String, String) {
    let is = |m: &Message| m.told().is_some_and(|(code, _)| code != "NetStream.Publish.Start");
    client.ear.wait_message("the failure is told", is).told().expect("told")
}

#[test]
fn when_the_time_is_over_the_publisher_is_told_and_closed() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), eager(json!({ "publish_hold": { "max_time": "500ms" } })));
    let mut encoder = Encoder::publishing(&relay, "cam?key=S3CRET");
    encoder.group();
    encoder.arrives(&origin.line_of("cam?key=S3CRET"), 3);
    drop(origin);
    let told = failed(&encoder.client);
    assert_eq!(told.0, "NetStream.Publish.Failed");
    assert_eq!(told.1, "the upstream went away, and none took the stream within 500ms");
    encoder.client.leave();
    assert_eq!(relay.outcome(encoder.client.address()), "upstream hold_expired error");
    let [held] = &relay.events("publisher_held")[..] else { panic!("one line when it begins") };
    assert_eq!((held["session"].as_u64(), held["level"].as_str()), (Some(1), Some("WARN")));
    let [over] = &relay.events("publish_hold_over")[..] else { panic!("one line when it is over") };
    assert_eq!((over["result"].as_str(), over["after_ms"].as_u64().is_some_and(|ms| ms >= 500)), (Some("expired"), true));
    assert_eq!(relay.events("upstream_lost").len(), 0, "it was said when it began");
    assert_eq!(relay.metric("rtmp_relay_publish_holds_over_total{result=\"expired\"}"), 1);
    assert!(!relay.log().iter().any(|line| line.contains("S3CRET")));
    relay.wait_empty();
}

#[test]
fn an_origin_that_ends_the_stream_on_purpose_is_not_replaced() {
    let status = |level: &str, code: &str| {
        let info = obj(&[("level", s(level)), ("code", s(code)), ("description", s("for a reason"))]);
        amf::command("onStatus", 0.0, &[Amf::Null, info])
    };
    for (level, code) in [("status", "NetStream.Unpublish.Success"), ("error", "NetStream.Publish.Denied")] {
        for end in [Line::finish, Line::reset] {
            let (a, b) = (Origin::willing(), Origin::willing());
            let relay = between(&a, &b, json!({}));
            let mut client = Client::publishing(&relay, "live", "cam");
            client.say(6, 0, kind::VIDEO, 1, b"\x17\x01\0\0\0");
            let line = a.line_of("cam");
            line.ear.wait_count(&[kind::VIDEO], 1);
            line.say(5, 0, kind::COMMAND, &status(level, code));
            let theirs = client.ear.wait_message("the status is passed on", |m| m.told().is_some_and(|(c, _)| c == code));
            assert_eq!(theirs.told().expect("told").1, "for a reason");
            end(&line);
            client.ear.wait_message("the end is told", |m| m.told().is_some_and(|(c, _)| c == "NetStream.Publish.Failed"));
            client.leave();
            wait_until("it is over", || relay.connections() == (0, 1, 0));
            assert_eq!(relay.metric("rtmp_relay_publish_holds_total"), 0);
        }
    }
}

#[test]
fn a_client_that_has_said_that_its_stream_is_over_needs_no_other_upstream() {
    let (a, b) = (Origin::willing(), Origin::willing());
    let relay = between(&a, &b, json!({}));
    let mut client = Client::publishing(&relay, "live", "cam");
    client.say(6, 0, kind::VIDEO, 1, b"\x17\x01\0\0\0");
    client.command(3, 0, "FCUnpublish", &[Amf::Null, s("cam")]);
    let line = a.line_of("cam");
    line.ear.wait_command("FCUnpublish");
    line.finish();
    client.ended();
    client.leave();
    relay.wait_ended("upstream", "upstream_closed");
    assert_eq!(relay.metric("rtmp_relay_publish_holds_total"), 0);
}

#[test]
fn a_client_that_ends_while_it_is_held_ends_in_order() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), eager(json!({})));
    let mut leaver = Encoder::publishing(&relay, "cam");
    let mut unpublisher = Encoder::publishing(&relay, "mic");
    let resetter = Encoder::publishing(&relay, "pic");
    let breaker = Encoder::publishing(&relay, "bad");
    let mut clients =
        [leaver.client.address(), unpublisher.client.address(), resetter.client.address(), breaker.client.address()];
    for stream in ["cam", "mic", "pic", "bad"] {
        origin.line_of(stream).ear.wait_count(&[kind::AUDIO], 1);
    }
    drop(origin);
    clients.iter().for_each(|client| wait_held(&relay, *client));
    leaver.client.leave();
    unpublisher.client.command(3, 0, "deleteStream", &[Amf::Null, Amf::Num(1.0)]);
    assert_eq!(unpublisher.client.ended(), End::Fin);
    unpublisher.client.leave();
    resetter.client.reset();
    let mut breaker = breaker.client;
    breaker.command(3, 0, "connect", &[Amf::Null]);
    assert_eq!(failed(&breaker), ("NetStream.Publish.Denied".into(), "connect came twice".into()));
    breaker.leave();
    let ends = [
        "client client_closed success",
        "client client_closed success",
        "client client_reset success",
        "client command_out_of_order success",
    ];
    for (client, end) in clients.iter_mut().zip(ends) {
        assert_eq!(relay.outcome(*client), end);
    }
    assert_eq!(relay.metric("rtmp_relay_publish_holds_over_total{result=\"ended\"}"), 4);
    relay.wait_empty();
}

#[test]
fn our_own_ghost_at_the_origin_is_waited_out() {
    for deed in [Deed::Refuse("NetStream.Publish.BadName", "already publishing"), Deed::Close] {
        let a = Origin::willing();
        let address = a.address;
        let relay = crate::relay::Relay::with(&a.url(""), eager(json!({})));
        let mut encoder = Encoder::publishing(&relay, "cam");
        encoder.key();
        encoder.arrives(&a.line_of("cam"), 3);
        drop(a);
        wait_held(&relay, encoder.client.address());
        let b = Origin::over(
            listen(address),
            move |number| {
                if number < 3 { Script::doing(At::Request, deed) } else { Script::default() }
            },
        );
        wait_until("the ghost is gone", || relay.row(encoder.client.address())["state"] == "relaying");
        assert_eq!(b.count(), 4, "{deed:?}");
        let next = encoder.said.len();
        encoder.group();
        encoder.arrives(&b.line(3), next);
    }
}

#[test]
fn an_origin_that_never_had_the_stream_and_refuses_it_is_believed() {
    let a = Origin::willing();
    let b = Origin::new(Script::doing(At::Request, Deed::Refuse("NetStream.Publish.BadName", "somebody is cam here")));
    let relay = between(&a, &b, json!({}));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.key();
    let line = a.line_of("cam");
    encoder.arrives(&line, 3);
    line.reset();
    assert_eq!(failed(&encoder.client), ("NetStream.Publish.BadName".into(), "somebody is cam here".into()));
    encoder.client.leave();
    relay.wait_ended("upstream", "upstream_refused");
    assert_eq!(relay.metric("rtmp_relay_publish_holds_over_total{result=\"refused\"}"), 1);
}

#[test]
fn a_relay_that_shuts_down_ends_publishers_that_are_held() {
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), eager(json!({ "shutdown_timeout": "0s" })));
    let mut encoder = Encoder::publishing(&relay, "cam");
    encoder.key();
    encoder.arrives(&origin.line_of("cam"), 3);
    drop(origin);
    wait_held(&relay, encoder.client.address());
    relay.signal(rustix::process::Signal::TERM);
    assert_eq!(failed(&encoder.client), ("NetStream.Publish.Failed".into(), "the relay is shutting down".into()));
    encoder.client.leave();
    assert!(relay.exit().success());
}

#[test]
fn an_open_circuit_does_not_keep_publishers_from_an_origin_that_is_back() {
    let a = Origin::willing();
    let address = a.address;
    let breaker = json!({ "circuit_breaker": { "max_failures": 3, "reset_timeout_sec": 60.0 } });
    let relay = crate::relay::Relay::with(&a.url(""), breaker);
    let mut encoders: Vec<_> = (0..6).map(|number| Encoder::publishing(&relay, &format!("cam{number}"))).collect();
    for (number, encoder) in encoders.iter_mut().enumerate() {
        encoder.key();
        encoder.arrives(&a.line_of(&format!("cam{number}")), 3);
    }
    drop(a);
    encoders.iter().for_each(|encoder| wait_held(&relay, encoder.client.address()));
    let circuit = || relay.status()["circuit_breaker"]["targets"][0]["state"].clone();
    wait_until("the circuit is open", || circuit() == "open");
    let b = Origin::over(listen(address), |_| Script::default());
    for (number, encoder) in encoders.iter_mut().enumerate() {
        let next = encoder.said.len();
        encoder.group();
        encoder.arrives(&b.line_of(&format!("cam{number}")), next);
    }
    assert_eq!(circuit(), "closed");
}
