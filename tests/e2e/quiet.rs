//! Players of a stream that nobody publishes yet: does everybody keep waiting, and are pings answered?

use crate::clip;
use crate::compare::{PLAYER_TAIL, played};
use crate::flv;
use crate::peers::{Nginx, NginxOptions, Player, Publisher, Sender, Take};
use crate::route::Route;
use crate::wait::{SOON, wait_until};

#[test]
fn a_waiting_player_answers_pings_and_gets_the_stream_when_it_comes() {
    // The origin pings after a quiet second or two and closes on whoever has not answered a second later.
    let origin = Nginx::start(&NginxOptions { ping: Some(1), ..NginxOptions::default() });
    let route = Route::to(&origin);
    let mut players = Player::start_all(&route.url("later"));
    origin.wait_for_clients("later", players.len());
    wait_until("all have outlived several pings", SOON, || {
        assert_eq!(origin.clients("later"), players.len(), "one was given up by the origin");
        origin.youngest_client("later") > 6_000
    });
    Publisher::start(Sender::Ffmpeg, &route.url("later"), Take::unpaced()).succeed();
    for player in &mut players {
        let receiver = player.receiver;
        if let Err(problem) = played(&flv::read(clip::normal()), &player.played(SOON), PLAYER_TAIL) {
            panic!("{receiver:?} got something else: {problem}");
        }
    }
}
