//! Pure: what does a new player get first? Metadata, sequence headers and the last group of pictures of one stream.

use super::media::{Packet, Role, Slot};

/// Most headers kept: eight tracks of audio and video, each with two.
const MAX_HEADERS: usize = 32;
/// Longest metadata or header that is kept; a longer one reaches only those who are there.
const MAX_LASTING: usize = 64 * 1024;

/// See the module. Invariant: the group is empty or begins with a key frame, and weighs at most `limit`.
#[derive(Debug)]
pub(super) struct Gop {
    metadata: Option<Packet>,
    headers: Vec<(Slot, Packet)>,
    group: Vec<Packet>,
    weight: usize,
    limit: usize,
    has_video: bool,
}

impl Gop {
    /// Before the first packet. `limit`: most bytes of the group.
    pub(super) fn new(limit: usize) -> Self {
        Self { metadata: None, headers: Vec::new(), group: Vec::new(), weight: 0, limit, has_video: false }
    }

    /// Keeps what a later player will need of `packet`.
    pub(super) fn push(&mut self, packet: &Packet, role: Role) {
        match role {
            Role::Metadata => self.metadata = Some(packet.clone()).filter(is_small),
            Role::Header(slot) => self.keep_header(slot, packet),
            Role::Key(_) => {
                self.has_video = true;
                self.drop_group();
                self.append(packet);
            }
            Role::Inter => {
                self.has_video = true;
                if !self.group.is_empty() {
                    self.append(packet);
                }
            }
            Role::Other if !self.group.is_empty() => self.append(packet),
            Role::Other => {}
        }
    }

    /// Whether who joins now has to wait for a key frame, because no group is kept.
    pub(super) fn awaits_key(&self) -> bool {
        self.has_video && self.group.is_empty()
    }

    /// Whether there has been video.
    pub(super) fn has_video(&self) -> bool {
        self.has_video
    }

    /// Metadata and headers, at the time `timestamp` of what follows them.
    pub(super) fn lasting(&self, timestamp: u32) -> impl Iterator<Item = Packet> {
        let headers = self.headers.iter().map(|(_, packet)| packet);
        self.metadata.iter().chain(headers).map(move |packet| Packet { timestamp, ..packet.clone() })
    }

    /// All that a new player gets first, in order.
    pub(super) fn start(&self) -> Vec<Packet> {
        let begins = self.group.first().or(self.headers.last().map(|(_, packet)| packet)).or(self.metadata.as_ref());
        let timestamp = begins.map_or(0, |packet| packet.timestamp);
        self.lasting(timestamp).chain(self.group.iter().cloned()).collect()
    }

    fn keep_header(&mut self, slot: Slot, packet: &Packet) {
        let place = self.headers.iter_mut().find(|(s, _)| *s == slot);
        if let Some((_, old)) = place {
            if old.payload == packet.payload {
                return;
            }
            // The frames so far belong to the old one.
            *old = packet.clone();
            self.drop_group();
        } else if self.headers.len() < MAX_HEADERS && is_small(packet) {
            self.headers.push((slot, packet.clone()));
        }
    }

    fn append(&mut self, packet: &Packet) {
        self.weight += packet.weight();
        if self.weight > self.limit {
            self.drop_group();
        } else {
            self.group.push(packet.clone());
        }
    }

    fn drop_group(&mut self) {
        self.group.clear();
        self.weight = 0;
    }
}

fn is_small(packet: &Packet) -> bool {
    packet.payload.len() <= MAX_LASTING
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;

    pub(in super::super) fn packet(kind: u8, timestamp: u32, payload: &'static [u8]) -> Packet {
        Packet { kind, timestamp, payload: Bytes::from_static(payload) }
    }

    pub(in super::super) const AVC: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    pub(in super::super) const AAC: &[u8] = &[0xAF, 0, 0x12, 0x10];
    pub(in super::super) const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 9];
    pub(in super::super) const INTER: &[u8] = &[0x27, 1, 0, 0, 0, 9];
    pub(in super::super) const SOUND: &[u8] = &[0xAF, 1, 9];
    pub(in super::super) const META: &[u8] = b"\x02\x00\x0aonMetaData\x08";

    fn pushed(limit: usize, packets: &[(u8, u32, &'static [u8])]) -> Gop {
        let mut gop = Gop::new(limit);
        for &(kind, timestamp, payload) in packets {
            let packet = packet(kind, timestamp, payload);
            gop.push(&packet, packet.role());
        }
        gop
    }

    fn start(gop: &Gop) -> Vec<(u8, u32, Vec<u8>)> {
        gop.start().into_iter().map(|p| (p.kind, p.timestamp, p.payload.to_vec())).collect()
    }

    #[test]
    fn a_new_player_gets_metadata_headers_and_the_last_group_only() {
        let gop = pushed(
            1 << 20,
            &[
                (18, 0, META),
                (9, 0, AVC),
                (8, 0, AAC),
                (9, 0, KEY),
                (9, 40, INTER),
                (9, 80, KEY),
                (8, 81, SOUND),
                (9, 120, INTER),
            ],
        );
        let want = [
            (18, 80, META.to_vec()),
            (9, 80, AVC.to_vec()),
            (8, 80, AAC.to_vec()),
            (9, 80, KEY.to_vec()),
            (8, 81, SOUND.to_vec()),
            (9, 120, INTER.to_vec()),
        ];
        assert_eq!(start(&gop), want);
        assert!(!gop.awaits_key());
    }

    #[test]
    fn a_group_beyond_the_limit_is_dropped_until_the_next_key_frame() {
        let mut gop = pushed(150, &[(9, 0, AVC), (9, 0, KEY), (9, 40, INTER), (9, 80, INTER), (9, 120, INTER)]);
        assert_eq!(start(&gop).len(), 1, "the header alone");
        assert!(gop.awaits_key());
        let key = packet(9, 160, KEY);
        gop.push(&key, key.role());
        assert_eq!(start(&gop).len(), 2);
    }

    #[test]
    fn a_changed_header_drops_the_frames_of_the_old_one_and_a_repeated_one_does_not() {
        let mut gop = pushed(1 << 20, &[(9, 0, AVC), (9, 0, KEY), (9, 40, AVC)]);
        assert_eq!(start(&gop).len(), 2);
        let changed = packet(9, 80, &[0x17, 0, 0, 0, 0, 2]);
        gop.push(&changed, changed.role());
        assert_eq!(start(&gop), [(9, 80, changed.payload.to_vec())]);
    }

    #[test]
    fn a_stream_of_sound_alone_keeps_no_group() {
        let gop = pushed(1 << 20, &[(8, 0, AAC), (8, 0, SOUND), (8, 23, SOUND)]);
        assert_eq!(start(&gop), [(8, 0, AAC.to_vec())]);
        assert!(!gop.awaits_key());
    }
}
