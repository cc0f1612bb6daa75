//! A second publisher of a stream that is live through this relay: the same client again has it at once, anyone else is refused.

use serde_json::{Value, json};

use crate::client::Client;
use crate::ear::End;
use crate::hold::{Encoder, eager, wait_held};
use crate::origin::{At, Deed, Origin, Script};
use crate::parser::{Message, kind};
use crate::relay::{Face, Process, Relay};
use crate::wait::{wait_equal, wait_for};

const TAKEN: (&str, &str) = ("NetStream.Publish.BadName", "the stream is already being published");

fn with_tokens(mut more: Value) -> Value {
    let tokens = json!([{ "token": "one", "name": "studio" }, { "token": "two", "name": "other" }]);
    more["security"] = json!({ "auth_enabled": true, "auth_tokens": tokens });
    more
}

/// A client from another address of this machine.
fn from(ip: [u8; 4], relay: &Face, stream: &str) -> Client {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from((ip, 0)).into()).expect("every address of 127.0.0.0/8 is ours");
    socket.connect(&relay.address.into()).expect("the relay accepts");
    let mut client = Client::over(socket.into());
    client.write(&crate::client::hello());
    client.connect("live").create_stream().publish(stream);
    client
}

fn refused(mut client: Client) {
    let (code, text) = client.refused();
    assert_eq!((&code[..], &text[..]), TAKEN);
}

#[test]
fn the_same_client_again_takes_over_at_once_and_the_old_connection_is_told() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), with_tokens(json!({})));
    let mut old = Client::publishing(&relay, "live", "cam?token=one");
    old.say(6, 0, kind::VIDEO, 1, b"\x17\x01\0\0\0");
    let first = origin.line(0);
    first.ear.wait_count(&[kind::VIDEO], 1);
    // The same stream, however it is split.
    let mut new = Client::asking_to_publish(&relay, "live/cam?token=one", "");
    new.started();
    first.ear.wait_command("deleteStream");
    let commands: Vec<_> = first.ear.record().messages.iter().filter_map(Message::command).map(|(name, ..)| name).collect();
    assert!(commands.ends_with(&["FCUnpublish".into(), "deleteStream".into()]), "{commands:?}");
    assert_eq!(first.ear.wait_end(), End::Fin);
    let told = old.ear.wait_message("the old one is told", |m| m.told().is_some_and(|(code, _)| code.contains("Failed")));
    assert_eq!(told.told().expect("told").1, "another connection publishes this stream now");
    old.leave();
    assert_eq!(relay.outcome(old.address()), "relay taken_over success");
    let frame = new.say(6, 40, kind::VIDEO, 1, b"\x17\x01\0\0\0new");
    assert_eq!(origin.line(1).ear.wait_count(&[kind::VIDEO], 1), [frame]);
    assert_eq!(relay.metric("rtmp_relay_takeovers_total"), 1);
    assert_eq!(relay.events("stream_taken_over").len(), 1);
    // And once more.
    Client::publishing(&relay, "live", "cam?token=one");
}

#[test]
fn anyone_else_is_refused_and_nothing_of_that_reaches_the_origin() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), with_tokens(json!({})));
    let mut honest = Client::publishing(&relay, "live", "cam?token=one");
    honest.say(6, 0, kind::VIDEO, 1, b"\x17\x01\0\0\0");
    let before = origin.count();
    refused(Client::asking_to_publish(&relay, "live", "cam?token=two"));
    honest.say(6, 0, kind::VIDEO, 1, b"\x17\x01\0\0\0");
    refused(from([127, 0, 0, 2], &relay, "cam?token=one"));
    assert_eq!(origin.count(), before);
    assert_eq!(relay.metric("rtmp_relay_rejections_total{reason=\"already_publishing\"}"), 2);
    // Another stream is free, and playing is no publishing.
    Client::publishing(&relay, "live", "mic?token=two");
    Client::playing(&relay, "live", "cam?token=two");
    let frame = honest.say(6, 40, kind::VIDEO, 1, b"\x17\x01\0\0\0still");
    let heard = origin.line(0).ear.wait_count(&[kind::VIDEO], 3);
    assert_eq!(heard[2], frame);
}

#[test]
fn a_publisher_that_has_fallen_silent_is_replaced_without_authentication_too() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({}));
    let mut old = Client::publishing(&relay, "live", "cam");
    old.say(6, 0, kind::VIDEO, 1, b"\x17\x01\0\0\0");
    origin.line(0).ear.wait_count(&[kind::VIDEO], 1);
    refused(Client::asking_to_publish(&relay, "live", "cam"));
    // Its line is dead, and nobody says so. Who comes waits until that is plain.
    let began = std::time::Instant::now();
    let new = wait_for("the newcomer is let in", || {
        let mut client = Client::asking_to_publish(&relay, "live", "cam");
        let started = client.told().0 == "NetStream.Publish.Start";
        if !started {
            client.leave();
        }
        started.then_some(client)
    });
    assert!(began.elapsed() >= std::time::Duration::from_secs(3), "not while it may still be there");
    old.leave();
    assert_eq!(relay.outcome(old.address()), "relay taken_over success");
    drop(new);
}

#[test]
fn never_and_always_mean_what_they_say() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), with_tokens(json!({ "publish_takeover": "never" })));
    let _old = Client::publishing(&relay, "live", "cam?token=one");
    refused(Client::asking_to_publish(&relay, "live", "cam?token=one"));
    let relay = Relay::with(&origin.url(""), with_tokens(json!({ "publish_takeover": "always" })));
    let old = Client::publishing(&relay, "live", "cam?token=one");
    from([127, 0, 0, 2], &relay, "cam?token=two").started();
    old.ear.wait_message("the old one is told", |m| m.told().is_some_and(|(code, _)| code.contains("Failed")));
}

#[test]
fn an_origin_that_still_believes_in_the_old_publisher_is_asked_again() {
    let busy = Deed::Refuse("NetStream.Publish.BadName", "already publishing");
    let origin = Origin::scripted(move |number| match number {
        // The look, the old publisher, then two refusals.
        2 | 3 => Script::doing(At::Request, busy),
        _ => Script::default(),
    });
    let relay = Relay::with(&origin.url(""), with_tokens(json!({})));
    crate::wait::wait_until("the origin was looked at", || origin.count() == 1);
    let _old = Client::publishing(&relay, "live", "cam?token=one");
    Client::asking_to_publish(&relay, "live", "cam?token=one").started();
    assert_eq!(origin.count(), 5);
}

#[test]
fn a_publisher_that_is_held_gives_way_to_the_same_client() {
    let origin = Origin::willing();
    let address = origin.address;
    let relay = Process::with(&origin.url(""), with_tokens(eager(json!({}))));
    let mut old = Encoder::publishing(&relay, "cam?token=one");
    old.key();
    old.arrives(&origin.line(0), 3);
    drop(origin);
    wait_held(&relay, old.client.address());
    let new = Client::asking_to_publish(&relay, "live", "cam?token=one");
    old.client.ear.wait_message("the old one is told", |m| m.told().is_some_and(|(code, _)| code.contains("Failed")));
    old.client.leave();
    assert_eq!(relay.outcome(old.client.address()), "relay taken_over success");
    let origin = Origin::over(crate::hold::listen(address), |_| Script::default());
    new.started();
    assert_eq!(origin.line_of("cam").ear.record().wrong, None);
}

#[test]
fn a_stream_that_its_publisher_has_ended_is_free_though_the_connection_stays() {
    let origin = Origin::willing();
    let relay = Relay::with(&origin.url(""), json!({}));
    let mut old = Client::publishing(&relay, "live", "cam");
    refused(Client::asking_to_publish(&relay, "live", "cam"));
    old.command(3, 0, "deleteStream", &[crate::amf::Amf::Null, crate::amf::n(1)]);
    origin.line(0).ear.wait_command("deleteStream");
    let mut new = Client::publishing(&relay, "live", "cam");
    // On its own connection it may begin another, but not one that somebody has.
    old.create_stream().publish("cam");
    let told =
        old.ear.wait_message("the second publish is refused", |m| m.told().is_some_and(|(code, _)| code.contains("Denied")));
    assert_eq!(told.told().expect("told").1, TAKEN.1);
    new.leave();
    wait_equal("ended", &1, || relay.ended("relay", "second_publish_refused"));
}

#[test]
fn a_stream_has_one_publisher_whatever_it_is_published_by() {
    use crate::rtsp_peer::{Door, Peer};
    let (rtmp, rtsp) = (Origin::willing(), Door::open());
    let more =
        |policy: &str| json!({ "publish_takeover": policy, "upstreams": [{ "url": rtmp.url("") }, { "url": rtsp.url("") }] });
    let relay = Relay::with("", more("never"));
    let (publisher, mut origin) = crate::rtsp::publishing(&relay, &rtsp);
    refused(Client::asking_to_publish(&relay, "live", "cam"));
    let mut second = Peer::to(&relay);
    second.request("ANNOUNCE", "rtsp://relay.test/live/cam", "\n\nv=0\nm=video 0 RTP/AVP 96\n");
    assert_eq!(second.message().status(), format!("403 {}", TAKEN.1));
    drop(publisher);
    assert!(origin.message().start.starts_with("TEARDOWN "));
    origin.write("RTSP/1.0 200 OK\r\nCSeq: 4\r\n\r\n");
    drop(origin);
    relay.wait_active(0);
    let _free = Client::publishing(&relay, "live", "cam");

    let relay = Relay::with("", more("always"));
    let (_publisher, mut origin) = crate::rtsp::publishing(&relay, &rtsp);
    let newcomer = Client::asking_to_publish(&relay, "live", "cam");
    assert!(origin.message().start.starts_with("TEARDOWN "));
    drop(origin);
    newcomer.started();
    relay.wait_ended("relay", "taken_over");
}
