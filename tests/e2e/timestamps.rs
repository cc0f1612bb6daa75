//! Streams that have run for days: do times that need more than 24 bits arrive?

use crate::clip;
use crate::compare::{PLAYER_TAIL, frames, identical, played};
use crate::flv;
use crate::peers::{Nginx, NginxOptions, Player, Publisher, Sender, Take};
use crate::route::Route;
use crate::wait::SOON;

/// Publishes from this second of stream time on; every time must come out as it went in.
fn everyone_gets_from(starts_at: u32) {
    let origin = Nginx::start(&NginxOptions::default());
    let route = Route::to(&origin);
    let mut players = Player::start_all(&route.url("old"));
    origin.wait_for_clients("old", players.len());
    Publisher::start(Sender::Ffmpeg, &route.url("old"), Take { starts_at, ..Take::live() }).succeed();
    let sent = flv::read(clip::normal());
    let recorded = origin.recorded("old", SOON);
    identical(&sent, &recorded).expect("the recording is what was sent");
    assert_eq!(frames(&recorded)[0].time, starts_at * 1000 + frames(&sent)[0].time);
    for player in &mut players {
        let receiver = player.receiver;
        let received = player.played(SOON);
        if let Err(problem) = played(&sent, &received, PLAYER_TAIL) {
            panic!("{receiver:?} got something else: {problem}");
        }
        assert_eq!(frames(&received)[0].time, starts_at * 1000 + frames(&sent)[0].time, "{receiver:?}");
    }
}

#[test]
fn times_beyond_24_bits_arrive() {
    everyone_gets_from(16_800);
}

#[test]
fn a_stream_that_crosses_24_bits_on_its_way_arrives() {
    // 0xFFFFFF ms is 16,777.215 s: in the middle of the clip.
    everyone_gets_from(16_774);
}
