//! Every publisher, every player, every kind of origin: does what was sent arrive, byte for byte?

use crate::callbacks::Callbacks;
use crate::clip;
use crate::compare::{PLAYER_TAIL, identical, played};
use crate::flv::{self, Kind, Tag};
use crate::peers::{Nginx, NginxOptions, Player, Publisher, Receiver, Sender, Take};
use crate::route::Route;
use crate::wait::{CLIP, SOON, wait_until};

/// What the origin records when this publisher comes straight to it: GStreamer muxes the clip anew, so its own direct
/// recording is what its relayed one must equal.
pub fn recorded_directly(sender: Sender, origin: &Nginx) -> Vec<Tag> {
    let route = Route::past_the_relay(origin);
    Publisher::start(sender, &route.url("direct"), Take::unpaced()).succeed();
    let recorded = origin.recorded("direct", SOON);
    if sender == Sender::Ffmpeg {
        identical(&flv::read(clip::normal()), &recorded).expect("nginx records what it is sent");
    }
    recorded
}

/// Publishes in real time with all players waiting for it; compares the recording and what each of them wrote.
fn everyone_gets(sender: Sender, options: &NginxOptions) {
    let origin = Nginx::start(options);
    let expected = recorded_directly(sender, &origin);
    let route = Route::to(&origin);
    let mut players = Player::start_all(&route.url("cam"));
    origin.wait_for_clients("cam", players.len());
    Publisher::start(sender, &route.url("cam"), Take::live()).succeed();
    identical(&expected, &origin.recorded("cam", SOON)).expect("the recording is what was sent");
    for player in &mut players {
        let receiver = player.receiver;
        if let Err(problem) = played(&expected, &player.played(SOON), PLAYER_TAIL) {
            panic!("{receiver:?} got something else: {problem}");
        }
    }
    if let Some(relay) = route.relay() {
        relay.wait_for_active(0);
    }
}

fn large_chunks() -> NginxOptions {
    NginxOptions { chunk_size: 60_000, ..NginxOptions::default() }
}

fn everyone_gets_with_callbacks(sender: Sender) {
    let callbacks = Callbacks::start();
    everyone_gets(sender, &NginxOptions { callbacks: Some(callbacks.url()), ..NginxOptions::default() });
    for name in ["on_connect", "on_publish", "on_play", "on_publish_done", "on_play_done"] {
        callbacks.wait_for(name);
    }
}

#[test]
fn every_player_gets_what_ffmpeg_publishes() {
    everyone_gets(Sender::Ffmpeg, &NginxOptions::default());
}

#[test]
fn every_player_gets_what_rtmp2sink_publishes() {
    everyone_gets(Sender::Rtmp2Sink, &NginxOptions::default());
}

#[test]
fn every_player_gets_what_librtmp_publishes() {
    everyone_gets(Sender::RtmpSink, &NginxOptions::default());
}

#[test]
fn every_player_gets_what_ffmpeg_publishes_in_large_chunks() {
    everyone_gets(Sender::Ffmpeg, &large_chunks());
}

#[test]
fn every_player_gets_what_rtmp2sink_publishes_in_large_chunks() {
    everyone_gets(Sender::Rtmp2Sink, &large_chunks());
}

#[test]
fn every_player_gets_what_librtmp_publishes_in_large_chunks() {
    everyone_gets(Sender::RtmpSink, &large_chunks());
}

#[test]
fn every_player_gets_what_ffmpeg_publishes_with_callbacks() {
    everyone_gets_with_callbacks(Sender::Ffmpeg);
}

#[test]
fn every_player_gets_what_rtmp2sink_publishes_with_callbacks() {
    everyone_gets_with_callbacks(Sender::Rtmp2Sink);
}

#[test]
fn every_player_gets_what_librtmp_publishes_with_callbacks() {
    everyone_gets_with_callbacks(Sender::RtmpSink);
}

#[test]
fn what_is_sent_faster_than_real_time_is_recorded_whole() {
    let origin = Nginx::start(&NginxOptions::default());
    let route = Route::to(&origin);
    for sender in [Sender::Ffmpeg, Sender::Rtmp2Sink, Sender::RtmpSink] {
        let (direct, relayed) = (format!("direct-{sender:?}"), format!("relayed-{sender:?}"));
        Publisher::start(sender, &Route::past_the_relay(&origin).url(&direct), Take::unpaced()).succeed();
        Publisher::start(sender, &route.url(&relayed), Take::unpaced()).succeed();
        let (direct, relayed) = (origin.recorded(&direct, SOON), origin.recorded(&relayed, SOON));
        if let Err(problem) = identical(&direct, &relayed) {
            panic!("{sender:?} was recorded as something else: {problem}");
        }
    }
}

#[test]
fn a_recording_with_one_bit_turned_is_noticed() {
    let origin = Nginx::start(&NginxOptions::default());
    recorded_directly(Sender::Ffmpeg, &origin);
    let mut bytes = std::fs::read(origin.recording("direct")).expect("the recording is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let damaged = flv::parse(&bytes).expect("the middle of a file is media");
    identical(&flv::read(clip::normal()), &damaged).expect_err("one bit differs");
}

#[test]
fn a_player_that_joins_late_misses_nothing_from_then_on() {
    let origin = Nginx::start(&NginxOptions::default());
    let route = Route::to(&origin);
    let mut publisher = Publisher::start(Sender::Ffmpeg, &route.url("cam"), Take::live());
    let half = std::fs::metadata(clip::normal()).expect("the clip is there").len() / 3;
    wait_until("a third of the clip is recorded", SOON, || {
        std::fs::metadata(origin.recording("cam")).is_ok_and(|file| file.len() > half)
    });
    let mut players = Player::start_all(&route.url("cam"));
    publisher.succeed();
    let sent = flv::read(clip::normal());
    for player in &mut players {
        let receiver = player.receiver;
        let received = player.played(CLIP);
        if let Err(problem) = played(&sent, &received, PLAYER_TAIL) {
            panic!("{receiver:?} got something else: {problem}");
        }
        assert!(received.len() < sent.len(), "{receiver:?} was not late");
    }
}

#[test]
fn metadata_reaches_players_as_it_was_sent() {
    let origin = Nginx::start(&NginxOptions::default());
    let heard = |route: &Route, stream: &str| -> Vec<Vec<u8>> {
        let mut player = Player::start(Receiver::RtmpDump, &route.url(stream));
        origin.wait_for_clients(stream, 1);
        Publisher::start(Sender::Ffmpeg, &route.url(stream), Take::unpaced()).succeed();
        player.played(SOON).into_iter().filter(|tag| tag.kind == Kind::Script).map(|tag| tag.payload).collect()
    };
    let direct = heard(&Route::past_the_relay(&origin), "direct");
    assert!(direct.iter().any(|script| script.windows(10).any(|word| word == b"onMetaData")), "there is metadata");
    assert_eq!(heard(&Route::to(&origin), "relayed"), direct);
}
