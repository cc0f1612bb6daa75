//! Who does nothing wrong, and must not lose a byte: a publisher and a player over RTMP, a publisher and a player over RTSP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::origin::Origin;
use crate::parser::{Message, kind};
use crate::relay::Face;
use crate::rtsp::{playing, publishing_to};
use crate::rtsp_peer::{Door, Heard, Peer, rtp};
use crate::siege::Honest;
use crate::speech::body;
use crate::wait::pace;

/// See the module.
pub(super) struct Everybody {
    name: String,
    stop: Arc<AtomicBool>,
    publisher: Honest,
    player: (Client, JoinHandle<Vec<Message>>),
    frames: Vec<Passed>,
}

/// Frames of an RTSP session: whose it is, what was said, what was heard.
type Passed = (&'static str, JoinHandle<Frames>, JoinHandle<Frames>);
type Frames = Vec<Vec<u8>>;

impl Everybody {
    /// How many sessions they are.
    pub(super) const SESSIONS: u64 = 4;

    /// Begins streams that the origins know by `name`.
    pub(super) fn begin(relay: &Face, name: &str, origin: &Origin, door: &Door) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let publisher = Honest::begin(relay, name);
        let player = plays(relay, name, origin, &stop);
        let (client, server) = publishing_to(relay, door, &format!("rtsp://relay.test/live/{name}-rtsp"));
        let published = ("publisher", says(client, &stop, true), hears(server));
        let (client, server) = playing(relay, door);
        let played = ("player", says(server, &stop, false), hears(client));
        Self { name: name.to_owned(), stop, publisher, player, frames: vec![published, played] }
    }

    /// Ends them all; each has had all that was said to it.
    pub(super) fn lost_nothing(self, origin: &Origin) {
        self.stop.store(true, SeqCst);
        self.publisher.lost_nothing_as(&self.name, origin);
        let (mut client, said) = self.player;
        let said = said.join().expect("the honest origin goes on");
        let heard = client.ear.wait_count(&[kind::VIDEO], said.len());
        let bodies = |messages: &[Message]| messages.iter().map(|m| (m.time, m.body.clone())).collect::<Vec<_>>();
        assert!(bodies(&heard) == bodies(&said), "the honest player was to hear {} frames", said.len());
        assert_eq!(client.ear.record().wrong, None);
        client.leave();
        client.ended();
        for (who, said, heard) in self.frames {
            let said = said.join().expect("who speaks goes on");
            let heard = heard.join().expect("who listens goes on");
            assert!(said == heard, "the honest RTSP {who}: {} frames said, {} heard", said.len(), heard.len());
        }
    }
}

fn plays(relay: &Face, name: &str, origin: &Origin, stop: &Arc<AtomicBool>) -> (Client, JoinHandle<Vec<Message>>) {
    let stream = format!("{name}-played");
    let client = Client::playing(relay, "live", &stream);
    let (line, stop) = (origin.line_of_player(&stream), Arc::clone(stop));
    let thread = std::thread::spawn(move || {
        let (mut said, mut next) = (Vec::new(), Instant::now());
        while !stop.load(SeqCst) {
            let number = said.len() as u32;
            said.push(line.say(6, number * 3, kind::VIDEO, &body(number, 500 + number as usize % 3000)));
            next += Duration::from_millis(3);
            pace(next);
        }
        said
    });
    (client, thread)
}

fn says(mut peer: Peer, stop: &Arc<AtomicBool>, publishes: bool) -> JoinHandle<Frames> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let (mut said, mut next) = (Vec::new(), Instant::now());
        while !stop.load(SeqCst) {
            let number = said.len();
            let packet = rtp(number % 4 == 3, number as u16, 20 + number % 1300);
            peer.frame(0, &packet);
            said.push(packet);
            next += Duration::from_millis(3);
            pace(next);
        }
        if publishes {
            peer.request("TEARDOWN", "rtsp://relay.test/live/any", "Session: s1");
            peer.message();
        }
        peer.finish();
        // Not closed before the other side has ended, or what is unread would become a reset.
        peer.end();
        said
    })
}

fn hears(mut peer: Peer) -> JoinHandle<Frames> {
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        loop {
            match peer.hear() {
                Heard::Frame(_, packet) => heard.push(packet),
                Heard::Message(request) => peer.answer(&request, "200 OK", "Session: s1"),
                Heard::Fin | Heard::Reset => return heard,
            }
        }
    })
}
