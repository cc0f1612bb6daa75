//! Every publisher and every player with the embedded origin: does what was sent arrive there and back?

use std::net::{Ipv4Addr, SocketAddr};

use relay::origin::{Figures, Options, Origin};

use crate::clip;
use crate::compare::{PLAYER_TAIL, played};
use crate::flv;
use crate::matrix::recorded_directly;
use crate::peers::{Nginx, NginxOptions, Player, Publisher, Receiver, Sender, Take};
use crate::route::Route;
use crate::wait::{CLIP, SOON, wait_until};

fn origin(chunk_size: u32) -> Origin {
    let options = Options { chunk_size, ..Options::default() };
    Origin::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options).expect("loopback has a free port")
}

fn wait_for(origin: &Origin, what: &str, is: impl Fn(Figures) -> bool) {
    wait_until(what, SOON, || is(origin.figures()));
}

/// Publishes in real time with all players waiting for it; compares what each of them wrote with what nginx records when
/// the same publisher comes straight to it.
fn everyone_gets(sender: Sender, chunk_size: u32) {
    let expected = recorded_directly(sender, &Nginx::start(&NginxOptions::default()));
    let origin = origin(chunk_size);
    let route = Route::to_embedded(&origin);
    let mut players = Player::start_all(&route.url("cam"));
    wait_for(&origin, "all players wait", |figures| figures.players == players.len());
    Publisher::start(sender, &route.url("cam"), Take::live()).succeed();
    for player in &mut players {
        let receiver = player.receiver;
        if let Err(problem) = played(&expected, &player.played(SOON), PLAYER_TAIL) {
            panic!("{receiver:?} got something else: {problem}");
        }
    }
    wait_for(&origin, "nobody is left", |figures| (figures.streams, figures.players) == (0, 0));
    if let Some(relay) = route.relay() {
        relay.wait_for_active(0);
    }
}

#[test]
fn every_player_gets_what_ffmpeg_publishes_to_the_embedded_origin() {
    everyone_gets(Sender::Ffmpeg, 4096);
}

#[test]
fn every_player_gets_what_rtmp2sink_publishes_to_the_embedded_origin() {
    everyone_gets(Sender::Rtmp2Sink, 4096);
}

#[test]
fn every_player_gets_what_librtmp_publishes_to_the_embedded_origin() {
    everyone_gets(Sender::RtmpSink, 4096);
}

#[test]
fn every_player_gets_what_ffmpeg_publishes_to_the_embedded_origin_in_large_chunks() {
    everyone_gets(Sender::Ffmpeg, 60_000);
}

#[test]
fn every_player_gets_what_rtmp2sink_publishes_to_the_embedded_origin_in_large_chunks() {
    everyone_gets(Sender::Rtmp2Sink, 60_000);
}

#[test]
fn every_player_gets_what_librtmp_publishes_to_the_embedded_origin_in_large_chunks() {
    everyone_gets(Sender::RtmpSink, 60_000);
}

#[test]
fn players_that_join_the_embedded_origin_late_begin_with_the_last_group_of_pictures() {
    let origin = origin(4096);
    let route = Route::to_embedded(&origin);
    let mut publisher = Publisher::start(Sender::Ffmpeg, &route.url("cam"), Take::live());
    let third = std::fs::metadata(clip::normal()).expect("the clip is there").len() / 3;
    wait_for(&origin, "a third of the clip is there", |figures| figures.received > third);
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
fn a_second_publisher_is_told_that_there_is_one_and_the_first_goes_on() {
    let origin = origin(4096);
    let route = Route::to_embedded(&origin);
    let mut player = Player::start(Receiver::Ffmpeg, &route.url("cam"));
    wait_for(&origin, "the player waits", |figures| figures.players == 1);
    let mut first = Publisher::start(Sender::Ffmpeg, &route.url("cam"), Take::live());
    wait_for(&origin, "the first is there", |figures| figures.streams == 1);
    let mut second = Publisher::start(Sender::Ffmpeg, &route.url("cam"), Take::unpaced());
    assert!(!second.finish(SOON).success(), "the second publisher was let in");
    assert!(second.output().contains("already being published"), "it was not told why:\n{}", second.output());
    first.succeed();
    played(&flv::read(clip::normal()), &player.played(SOON), PLAYER_TAIL).expect("the first was not disturbed");
}
