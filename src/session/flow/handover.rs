//! What goes over from a flow whose source or sink is gone to one that takes its place.

use super::Flow;
use crate::protocol::rtmp::joiner::Sender;

/// What is left of a flow without its sink.
pub(in crate::session) struct Left {
    /// The source's side.
    pub(in crate::session) sender: Sender,
    /// What was read and not followed yet: the start of a header.
    pub(in crate::session) rest: Vec<u8>,
    /// What was still to leave.
    pub(in crate::session) pending: Vec<u8>,
    /// Whether that ends with a message.
    pub(in crate::session) ends_whole: bool,
    /// The chunk size that the sink expects, bytes.
    pub(in crate::session) chunk_size: u32,
}

impl Flow {
    /// Keeps what lasts of the stream, so that it can be taken up by another sink.
    pub(in crate::session) fn keep(&mut self) {
        self.joiner.keep(Box::default());
    }

    /// Whether the source goes on, and enough of its stream is kept for another sink to take it up.
    pub(in crate::session) fn may_be_taken_up(&self) -> bool {
        !self.eof && self.failure.is_none() && self.joiner.kept().is_some_and(|keep| keep.is_complete())
    }

    /// Whether a message of our own may follow what has left and may leave.
    pub(in crate::session) fn leaves_whole(&self) -> bool {
        self.leaves_whole
    }

    /// Takes the flow apart.
    pub(in crate::session) fn into_left(self) -> Left {
        let (rest, mut pending) = match &self.buffer {
            Some(buffer) => (buffer[self.scanned..self.end].to_vec(), buffer[self.start..self.leave].to_vec()),
            None => (self.stash[..self.stashed].to_vec(), Vec::new()),
        };
        pending.extend_from_slice(&self.patched[self.patched_sent..]);
        let (ends_whole, chunk_size) = (self.leaves_whole, self.joiner.chunk_size());
        Left { sender: self.joiner.into_sender(), rest, pending, ends_whole, chunk_size }
    }

    /// Lets `bytes`, which end with a message, leave before all else. Only before anything was fed.
    pub(in crate::session) fn lead_with(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.patched.is_empty(), "a flow that has begun");
        self.patched = bytes;
        self.differs = true;
    }
}
