//! Pure: who publishes and who plays which stream?

use std::collections::HashMap;
use std::fmt;

use super::gop::Gop;
use super::media::Packet;
use super::queue::Queue;

/// Bounds on bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of what one player has waiting.
    pub(super) queue: usize,
    /// Of the group of pictures that a stream keeps.
    pub(super) group: usize,
}

/// Somebody publishes the stream already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is being published already")]
pub(super) struct Busy;

/// One player, among all of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlayerId(u64);

/// Tells a player's task that there is something to take. Must not block.
pub(super) type Wake = Box<dyn Fn() + Send>;

/// What a player is to be sent next.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// In order.
    pub(super) packets: Vec<Packet>,
    /// The stream has ended, and nothing is left.
    pub(super) ended: bool,
}

/// See the module. As many streams and players as there are connections, which the shell bounds.
#[derive(Debug)]
pub(super) struct Hub {
    streams: HashMap<Vec<u8>, Stream>,
    limits: Limits,
    players: u64,
}

#[derive(Debug)]
struct Stream {
    published: bool,
    gop: Gop,
    players: Vec<Player>,
}

struct Player {
    id: PlayerId,
    queue: Queue,
    wake: Wake,
    /// Its publisher has left: what waits is all that comes.
    ended: bool,
}

impl Hub {
    /// Without streams.
    pub(super) fn new(limits: Limits) -> Self {
        Self { streams: HashMap::new(), limits, players: 0 }
    }

    /// Begins a stream.
    pub(super) fn publish(&mut self, name: &[u8]) -> Result<(), Busy> {
        let stream = self.stream(name);
        if stream.published {
            return Err(Busy);
        }
        stream.published = true;
        Ok(())
    }

    /// Gives a packet to every player of the stream.
    pub(super) fn push(&mut self, name: &[u8], packet: &Packet) {
        let Some(Stream { gop, players, .. }) = self.streams.get_mut(name) else { return };
        let role = packet.role();
        gop.push(packet, role);
        for player in players.iter_mut().filter(|player| !player.ended) {
            player.queue.push(packet, role, gop);
            (player.wake)();
        }
    }

    /// Ends a stream. Its players take what waits and are done; those who come now wait for the next publisher.
    pub(super) fn unpublish(&mut self, name: &[u8]) {
        let Some(stream) = self.streams.get_mut(name) else { return };
        stream.published = false;
        stream.gop = Gop::new(self.limits.group);
        for player in &mut stream.players {
            player.ended = true;
            (player.wake)();
        }
        self.forget(name);
    }

    /// A player joins, before the publisher or after it.
    pub(super) fn play(&mut self, name: &[u8], wake: Wake) -> PlayerId {
        self.players += 1;
        let id = PlayerId(self.players);
        let limit = self.limits.queue;
        let stream = self.stream(name);
        let queue = Queue::new(&stream.gop, limit);
        stream.players.push(Player { id, queue, wake, ended: false });
        id
    }

    /// What the player is to be sent next, about `most` bytes of it.
    pub(super) fn take(&mut self, name: &[u8], id: PlayerId, most: usize) -> Taken {
        let player = self.streams.get_mut(name).and_then(|stream| stream.players.iter_mut().find(|player| player.id == id));
        let Some(player) = player else { return Taken { ended: true, ..Taken::default() } };
        let packets = player.queue.take(most);
        Taken { packets, ended: player.ended && player.queue.is_empty() }
    }

    /// A player goes.
    pub(super) fn leave(&mut self, name: &[u8], id: PlayerId) {
        if let Some(stream) = self.streams.get_mut(name) {
            stream.players.retain(|player| player.id != id);
            self.forget(name);
        }
    }

    /// Streams that are being published, and players.
    pub(super) fn count(&self) -> (usize, usize) {
        let published = self.streams.values().filter(|stream| stream.published).count();
        (published, self.streams.values().map(|stream| stream.players.len()).sum())
    }

    fn stream(&mut self, name: &[u8]) -> &mut Stream {
        let group = self.limits.group;
        self.streams.entry(name.to_vec()).or_insert_with(|| Stream {
            published: false,
            gop: Gop::new(group),
            players: Vec::new(),
        })
    }

    fn forget(&mut self, name: &[u8]) {
        if self.streams.get(name).is_some_and(|stream| !stream.published && stream.players.is_empty()) {
            self.streams.remove(name);
        }
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player").field("id", &self.id).field("ended", &self.ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::origin::gop::tests::{AVC, INTER, KEY, packet};

    const LIMITS: Limits = Limits { queue: 10_000, group: 10_000 };

    fn quiet() -> Wake {
        Box::new(|| {})
    }

    fn taken(hub: &mut Hub, id: PlayerId) -> (Vec<u32>, bool) {
        let Taken { packets, ended } = hub.take(b"live/cam", id, usize::MAX);
        (packets.iter().map(|packet| packet.timestamp).collect(), ended)
    }

    #[test]
    fn one_publisher_a_stream() {
        let mut hub = Hub::new(LIMITS);
        assert_eq!(hub.publish(b"live/cam"), Ok(()));
        assert_eq!(hub.publish(b"live/cam"), Err(Busy));
        assert_eq!(hub.publish(b"live/other"), Ok(()));
        hub.unpublish(b"live/cam");
        assert_eq!(hub.publish(b"live/cam"), Ok(()));
        assert_eq!(hub.count(), (2, 0));
    }

    #[test]
    fn every_player_gets_every_packet_and_a_late_one_the_group() {
        let mut hub = Hub::new(LIMITS);
        let early = hub.play(b"live/cam", quiet());
        assert_eq!(hub.publish(b"live/cam"), Ok(()));
        for (time, payload) in [(0, AVC), (1, KEY), (2, INTER), (3, KEY), (4, INTER)] {
            hub.push(b"live/cam", &packet(9, time, payload));
        }
        let late = hub.play(b"live/cam", quiet());
        hub.push(b"live/cam", &packet(9, 5, INTER));
        hub.push(b"live/other", &packet(9, 6, INTER));
        assert_eq!(taken(&mut hub, early), (vec![0, 1, 2, 3, 4, 5], false));
        assert_eq!(taken(&mut hub, late), (vec![3, 3, 4, 5], false));
        assert_eq!(hub.count(), (1, 2));
    }

    #[test]
    fn the_end_comes_behind_the_last_packet_and_does_not_touch_the_next_stream_of_the_name() {
        let mut hub = Hub::new(LIMITS);
        assert_eq!(hub.publish(b"live/cam"), Ok(()));
        let old = hub.play(b"live/cam", quiet());
        hub.push(b"live/cam", &packet(9, 1, KEY));
        hub.unpublish(b"live/cam");
        assert_eq!(hub.publish(b"live/cam"), Ok(()));
        let new = hub.play(b"live/cam", quiet());
        hub.push(b"live/cam", &packet(9, 7, KEY));
        assert_eq!(taken(&mut hub, old), (vec![1], true));
        assert_eq!(taken(&mut hub, new), (vec![7], false), "nothing of the stream before");
    }

    #[test]
    fn players_are_woken_by_packets_and_by_the_end() {
        let mut hub = Hub::new(LIMITS);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        assert_eq!(hub.publish(b"live/cam"), Ok(()));
        hub.play(b"live/cam", Box::new(move || _ = counter.fetch_add(1, Relaxed)));
        hub.push(b"live/cam", &packet(9, 1, KEY));
        hub.unpublish(b"live/cam");
        assert_eq!(woken.load(Relaxed), 2);
    }

    #[test]
    fn nothing_is_left_of_a_stream_that_everyone_has_left() {
        let mut hub = Hub::new(LIMITS);
        assert_eq!(hub.publish(b"live/cam"), Ok(()));
        let player = hub.play(b"live/cam", quiet());
        hub.unpublish(b"live/cam");
        hub.leave(b"live/cam", player);
        hub.leave(b"live/cam", player);
        assert!(hub.streams.is_empty());
        assert!(taken(&mut hub, player).1, "who has left has nothing to wait for");
    }
}
