//! Pure: what has one player yet to be sent? Bounded: who does not keep up goes on at the next key frame.

use std::collections::VecDeque;

use super::gop::Gop;
use super::media::{Packet, Role};

/// See the module. Invariant: what waits weighs at most `limit`, or it is the start that the player was given.
#[derive(Debug)]
pub(super) struct Queue {
    packets: VecDeque<Packet>,
    weight: usize,
    limit: usize,
    /// Frames are left out until a key frame comes.
    awaits_key: bool,
}

impl Queue {
    /// For a player that joins a stream. `limit`: most bytes that may wait.
    pub(super) fn new(gop: &Gop, limit: usize) -> Self {
        let mut queue = Self { packets: VecDeque::new(), weight: 0, limit, awaits_key: gop.awaits_key() };
        gop.start().into_iter().for_each(|packet| queue.append(packet));
        queue
    }

    /// Puts `packet` at the end. When the queue is full, all that waits is dropped, and the player goes on with the headers of
    /// `gop` and the next key frame (sound goes on at once).
    pub(super) fn push(&mut self, packet: &Packet, role: Role, gop: &Gop) {
        if self.weight + packet.weight() > self.limit {
            self.packets.clear();
            self.weight = 0;
            gop.lasting(packet.timestamp).for_each(|lasting| self.append(lasting));
            self.awaits_key = gop.has_video();
        }
        match role {
            Role::Key(_) => self.awaits_key = false,
            Role::Inter if self.awaits_key => return,
            _ => {}
        }
        self.append(packet.clone());
    }

    /// Takes packets from the front: all, or as many as hold `most` bytes.
    pub(super) fn take(&mut self, most: usize) -> Vec<Packet> {
        let mut taken = Vec::new();
        let mut weight = 0;
        while weight < most
            && let Some(packet) = self.packets.pop_front()
        {
            weight += packet.weight();
            taken.push(packet);
        }
        self.weight -= weight;
        taken
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn append(&mut self, packet: Packet) {
        self.weight += packet.weight();
        self.packets.push_back(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::gop::tests::{AVC, INTER, KEY, META, SOUND, packet};

    struct Stream {
        gop: Gop,
        queue: Queue,
    }

    impl Stream {
        fn new(limit: usize) -> Self {
            let gop = Gop::new(1 << 20);
            let queue = Queue::new(&gop, limit);
            Self { gop, queue }
        }

        fn push(&mut self, kind: u8, timestamp: u32, payload: &'static [u8]) {
            let packet = packet(kind, timestamp, payload);
            self.gop.push(&packet, packet.role());
            self.queue.push(&packet, packet.role(), &self.gop);
        }

        fn taken(&mut self) -> Vec<(u32, Vec<u8>)> {
            self.queue.take(usize::MAX).into_iter().map(|p| (p.timestamp, p.payload.to_vec())).collect()
        }
    }

    #[test]
    fn who_keeps_up_gets_everything_in_order() {
        let mut stream = Stream::new(1000);
        for second in 0..100 {
            stream.push(9, second, if second == 0 { KEY } else { INTER });
            assert_eq!(stream.taken().len(), 1);
        }
        assert!(stream.queue.is_empty());
    }

    #[test]
    fn who_does_not_goes_on_with_headers_and_the_next_key_frame() {
        let mut stream = Stream::new(400);
        stream.push(18, 0, META);
        stream.push(9, 0, AVC);
        stream.push(9, 0, KEY);
        for time in 1..5 {
            stream.push(9, time, INTER);
        }
        stream.push(8, 5, SOUND);
        stream.push(9, 6, KEY);
        stream.push(9, 7, INTER);
        let times: Vec<u32> = stream.taken().iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [3, 3, 5, 6, 7], "metadata, header, sound, key frame, frame");
    }

    #[test]
    fn a_player_that_joins_without_a_group_waits_for_a_key_frame() {
        let mut stream = Stream::new(1000);
        stream.push(9, 0, INTER);
        stream.queue = Queue::new(&stream.gop, 1000);
        stream.push(9, 1, INTER);
        stream.push(8, 2, SOUND);
        stream.push(9, 3, KEY);
        assert_eq!(stream.taken(), [(2, SOUND.to_vec()), (3, KEY.to_vec())]);
    }

    #[test]
    fn taking_stops_at_the_bytes_wanted() {
        let mut stream = Stream::new(1000);
        for time in 0..4 {
            stream.push(8, time, SOUND);
        }
        assert_eq!(stream.queue.take(100).len(), 2);
        assert_eq!(stream.queue.take(1).len(), 1);
        assert_eq!(stream.taken().len(), 1);
    }
}
