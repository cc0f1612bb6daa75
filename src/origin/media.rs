//! Pure: one message of a stream, shared between players.

use bytes::Bytes;

use crate::protocol::rtmp::media::role;
pub use crate::protocol::rtmp::media::{Role, Slot};

/// Audio, video or data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// RTMP message type: 8, 9 or 18.
    pub kind: u8,
    /// Milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    /// Its body; shared, not copied, between players.
    pub payload: Bytes,
}

impl Packet {
    /// What it is for. Groups are counted by the first track: a player that joins may miss the beginning of another's.
    pub fn role(&self) -> Role {
        match role(self.kind, &self.payload) {
            Role::Key(tracks) if !tracks.has(0) => Role::Inter,
            role => role,
        }
    }

    /// What it weighs in a bounded buffer: an empty packet is not free.
    pub(super) fn weight(&self) -> usize {
        self.payload.len() + 64
    }
}
