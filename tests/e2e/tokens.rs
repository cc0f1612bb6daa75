//! Who may come in? Tokens as real clients send them: accepted, refused in words, and never passed on.

use crate::callbacks::Callbacks;
use crate::clip;
use crate::compare::{PLAYER_TAIL, identical, played};
use crate::flv;
use crate::peers::{Nginx, NginxOptions, Player, Publisher, Receiver, Sender, Take};
use crate::relay::Relay;
use crate::route::direct;
use crate::tap::Tap;
use crate::wait::SOON;

const TOKEN: &str = "Xq7-tOkEn_93zKw";

/// Short enough to stand within one chunk wherever the token does.
const PART_OF_IT: &str = "tOkEn_93z";

/// An origin that asks a back-end, with a tap before it.
struct Watched {
    callbacks: Callbacks,
    origin: Nginx,
    tap: Tap,
}

impl Watched {
    fn start() -> Self {
        let callbacks = Callbacks::start();
        let origin = Nginx::start(&NginxOptions { callbacks: Some(callbacks.url()), ..NginxOptions::default() });
        let tap = Tap::start(origin.address());
        Watched { callbacks, origin, tap }
    }

    /// Everything that shows where the token has been seen.
    fn traces(&self) -> Vec<String> {
        let calls = self.callbacks.calls();
        let told = calls.iter().filter(|call| call.body.contains(TOKEN)).map(|call| call.name.clone());
        let on_the_wire = self.tap.saw(PART_OF_IT).then(|| "the wire".to_owned());
        told.chain(self.origin.files_with(TOKEN)).chain(on_the_wire).collect()
    }
}

/// Publishes and plays `url`'s streams with the token; nothing behind the relay may ever see it.
fn the_token_stays_here(sender: Sender, path: &str) {
    if direct() {
        return;
    }
    let watched = Watched::start();
    let relay = Relay::with_tokens(&watched.tap.address(), &["another-token", TOKEN]);
    let url = format!("rtmp://{}/{path}", relay.address());
    let mut players = Player::start_all(&url);
    watched.origin.wait_for_clients("cam", players.len());
    Publisher::start(sender, &url, Take::unpaced()).succeed();
    let recorded = watched.origin.recorded("cam", SOON);
    if sender == Sender::Ffmpeg {
        identical(&flv::read(clip::normal()), &recorded).expect("the recording is what was sent");
    }
    for player in &mut players {
        let receiver = player.receiver;
        if let Err(problem) = played(&recorded, &player.played(SOON), PLAYER_TAIL) {
            panic!("{receiver:?} got something else: {problem}");
        }
    }
    for name in ["on_connect", "on_publish", "on_play", "on_publish_done", "on_play_done", "on_disconnect"] {
        watched.callbacks.wait_for(name);
    }
    assert!(watched.tap.saw("FCUnpublish"), "the publisher said good-bye through the tap");
    assert_eq!(watched.traces(), Vec::<String>::new(), "the token went on to the origin");
    assert!(!relay.log().contains(PART_OF_IT), "the relay logged the token:\n{}", relay.log());
    assert!(!relay.status().to_string().contains(PART_OF_IT), "/status shows the token");
    let calls = watched.callbacks.calls();
    let room = calls.iter().any(|call| call.body.contains("room=7"));
    assert!(room, "the other argument did not travel on: {calls:?}");
}

#[test]
fn the_token_of_an_ffmpeg_stream_key_never_reaches_the_origin() {
    the_token_stays_here(Sender::Ffmpeg, &format!("live/cam?token={TOKEN}&room=7"));
}

#[test]
fn the_token_of_an_rtmp2sink_stream_key_never_reaches_the_origin() {
    the_token_stays_here(Sender::Rtmp2Sink, &format!("live/cam?room=7&token={TOKEN}"));
}

#[test]
fn the_token_of_a_librtmp_stream_key_never_reaches_the_origin() {
    the_token_stays_here(Sender::RtmpSink, &format!("live/cam?token={TOKEN}&room=7"));
}

#[test]
fn a_token_behind_the_app_never_reaches_the_origin() {
    the_token_stays_here(Sender::Ffmpeg, &format!("live?token={TOKEN}&room=7/cam"));
}

#[test]
fn the_watch_for_tokens_notices_one() {
    let watched = Watched::start();
    let url = format!("rtmp://{}/live/cam?token={TOKEN}", watched.tap.address());
    Publisher::start(Sender::Ffmpeg, &url, Take::unpaced()).succeed();
    watched.origin.recorded("cam", SOON);
    watched.callbacks.wait_for("on_publish_done");
    let traces = watched.traces();
    for place in ["on_publish", "on_publish_done", "the wire"] {
        assert!(traces.iter().any(|trace| trace == place), "not seen in {place}: {traces:?}");
    }
    assert!(traces.iter().any(|trace| trace.ends_with("access.log")), "not seen in the access log: {traces:?}");
}

/// A refusal as its user reads it: the sentence names the token, apart from any URL that is printed too.
fn explains(output: &str) -> bool {
    output.replace("token=", "").contains("token")
}

#[test]
fn a_publisher_with_a_wrong_token_is_told_so() {
    if direct() {
        return;
    }
    let origin = Nginx::start(&NginxOptions::default());
    let relay = Relay::with_tokens(&origin.address(), &[TOKEN]);
    for sender in [Sender::Ffmpeg, Sender::Rtmp2Sink, Sender::RtmpSink] {
        let url = format!("rtmp://{}/live/cam?token=wr0ng-one", relay.address());
        let mut publisher = Publisher::start(sender, &url, Take::live());
        let status = publisher.finish(SOON);
        let said = publisher.output();
        assert!(!status.success(), "{sender:?} thinks that all went well: {said}");
        match sender {
            Sender::Ffmpeg => assert!(said.contains("Server error: ") && explains(&said), "{said}"),
            Sender::Rtmp2Sink => assert!(said.contains("Not authorized") && explains(&said), "{said}"),
            // librtmp keeps the sentence for its debug log.
            _ => (),
        }
    }
    nobody_came_in(&relay, &origin, 3.0);
}

#[test]
fn a_player_with_a_wrong_token_is_told_so() {
    if direct() {
        return;
    }
    let origin = Nginx::start(&NginxOptions::default());
    let relay = Relay::with_tokens(&origin.address(), &[TOKEN]);
    for receiver in Receiver::ALL {
        let url = format!("rtmp://{}/live/cam?token=wr0ng-one", relay.address());
        let mut player = Player::start(receiver, &url);
        let status = player.finish(SOON);
        let said = player.output();
        assert!(!status.success(), "{receiver:?} thinks that all went well: {said}");
        match receiver {
            Receiver::Ffmpeg => assert!(said.contains("Server error: ") && explains(&said), "{said}"),
            Receiver::Rtmp2Src => assert!(explains(&said), "{said}"),
            // librtmp keeps the sentence for its debug log.
            _ => (),
        }
    }
    nobody_came_in(&relay, &origin, 3.0);
}

#[test]
fn clients_without_a_token_are_told_so() {
    if direct() {
        return;
    }
    let origin = Nginx::start(&NginxOptions::default());
    let relay = Relay::with_tokens(&origin.address(), &[TOKEN]);
    let url = format!("rtmp://{}/live/cam", relay.address());
    let mut publisher = Publisher::start(Sender::Ffmpeg, &url, Take::live());
    let mut player = Player::start(Receiver::Ffmpeg, &url);
    assert!(!publisher.finish(SOON).success());
    assert!(!player.finish(SOON).success());
    for said in [publisher.output(), player.output()] {
        assert!(said.contains("Server error: ") && explains(&said), "{said}");
    }
    nobody_came_in(&relay, &origin, 2.0);
}

fn nobody_came_in(relay: &Relay, origin: &Nginx, failures: f64) {
    relay.wait_for_active(0);
    assert_eq!(origin.heard(), 0, "the origin was dialled for somebody unknown");
    assert_eq!(relay.metric("rtmp_relay_auth_failures_total"), Some(failures));
    assert!(!relay.log().contains("wr0ng") && !relay.log().contains(PART_OF_IT), "a token was logged:\n{}", relay.log());
}
