//! An hour of stream time, sent as fast as it goes: is a byte lost?

use std::time::Duration;

use crate::clip;
use crate::compare::{PLAYER_TAIL, frames, identical, played};
use crate::flv::{self, Kind, Tag};
use crate::peers::{Nginx, NginxOptions, Player, Publisher, Receiver, Sender, Take};
use crate::route::Route;

const AN_HOUR: u32 = 3_600_000;
const LONG: Duration = Duration::from_secs(120);

fn hour() -> Take {
    Take { clip: clip::small(), times: AN_HOUR / clip::LENGTH, ..Take::unpaced() }
}

/// How many frames of this kind, and how many bytes they are.
fn amount(tags: &[Tag], kind: Kind) -> (usize, usize) {
    let all = frames(tags).into_iter();
    // ffmpeg drops the marks between the repetitions and keeps the last.
    let of_kind = all.filter(|tag| tag.kind == kind && !tag.is_end_of_sequence());
    of_kind.fold((0, 0), |(count, bytes), tag| (count + 1, bytes + tag.payload.len()))
}

#[test]
fn an_hour_of_stream_passes_without_a_byte_lost() {
    let origin = Nginx::start(&NginxOptions::default());
    let directly = Route::past_the_relay(&origin);
    Publisher::start(Sender::Ffmpeg, &directly.url("direct"), hour()).succeed();
    let expected = origin.recorded("direct", LONG);
    let once = flv::read(clip::small());
    for kind in [Kind::Audio, Kind::Video] {
        let ((frames, bytes), times) = (amount(&once, kind), hour().times as usize);
        assert_eq!(amount(&expected, kind), (frames * times, bytes * times), "{kind:?} of an hour");
    }

    let route = Route::to(&origin);
    let players = [Receiver::Ffmpeg, Receiver::RtmpDump].map(|receiver| Player::start(receiver, &route.url("cam")));
    origin.wait_for_clients("cam", players.len());
    Publisher::start(Sender::Ffmpeg, &route.url("cam"), hour()).finish(LONG);
    identical(&expected, &origin.recorded("cam", LONG)).expect("the recording is what was sent");
    for mut player in players {
        let receiver = player.receiver;
        if let Err(problem) = played(&expected, &player.played(LONG), PLAYER_TAIL) {
            panic!("{receiver:?} got something else: {problem}");
        }
    }
}
