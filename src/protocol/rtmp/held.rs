//! Pure: what is held of a stream while no upstream takes it: whole groups of pictures, the oldest going first.
//!
//! Invariants: what is held begins with a message that a stream can begin with (see [`Keep::may_begin`]) and goes on without a gap
//! to the newest; it weighs no more than the room that [`Held::take`] was last given.

use std::collections::VecDeque;

use super::chunk::{Message, Writer};
use super::command::kind;
use super::joiner::StreamIds;
use super::keep::Keep;
use super::media::{Role, role};

/// What a message weighs beside its payload, bytes: an empty one is not free.
const OVERHEAD: usize = 64;

#[derive(Debug, Default)]
struct Group {
    messages: Vec<Message>,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Held {
    /// As it was before the oldest group.
    before: Keep,
    /// As it is behind the newest.
    now: Keep,
    groups: VecDeque<Group>,
    bytes: usize,
    dropped: u64,
}

/// Where a stream goes on at another upstream.
#[derive(Debug)]
pub struct Resumed {
    /// What is kept of it.
    pub keep: Keep,
    /// Whether media has been said: else the first must be one that a stream can begin with.
    pub begun: bool,
}

impl Held {
    /// Nothing is held yet of the stream that `keep` knows.
    pub fn new(keep: Keep) -> Self {
        Self { before: keep.clone(), now: keep, groups: VecDeque::new(), bytes: 0, dropped: 0 }
    }

    /// Takes the next message; what does not fit into `room` bytes with it goes, whole groups, the oldest first. Until one comes
    /// that a stream can begin with, only what lasts is kept.
    pub fn take(&mut self, message: Message, room: usize) {
        let Message { header, payload } = &message;
        if !matches!(header.kind, kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 | kind::AGGREGATE) {
            return;
        }
        let role = role(header.kind, payload);
        let begins = self.now.may_begin(header, payload);
        self.now.note(header, payload);
        let is_frame = header.kind == kind::VIDEO && !matches!(role, Role::Header(_));
        // A frame needs the key frame before it; the sound that is held from the time before there was video is none.
        let headless = is_frame && self.groups.back().is_none_or(|group| group.is_sound());
        if begins {
            self.groups.push_back(Group::default());
        }
        match self.groups.back_mut() {
            Some(group) if begins || !headless => {
                let bytes = payload.len() + OVERHEAD;
                group.bytes += bytes;
                self.bytes += bytes;
                group.messages.push(message);
            }
            Some(_) => {}
            None => self.before.note(header, payload),
        }
        self.shrink(room);
    }

    /// Drops groups, the oldest first, until what is held weighs no more than `room` bytes.
    pub fn shrink(&mut self, room: usize) {
        while self.bytes > room
            && let Some(group) = self.groups.pop_front()
        {
            self.bytes -= group.bytes;
            self.dropped += 1;
            group.messages.iter().for_each(|Message { header, payload }| self.before.note(header, payload));
        }
    }

    /// What it weighs, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Groups that were dropped; in a stream without video every sound is a group.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether the stream can still be taken up elsewhere.
    pub fn is_complete(&self) -> bool {
        self.before.is_complete() && self.now.is_complete()
    }

    /// Says to an upstream that has just taken the publish what it must know, then everything held, in the client's own
    /// time.
    pub fn resume(self, writer: &mut Writer, out: &mut Vec<u8>, stream_ids: StreamIds) -> Resumed {
        let mapped = |id| if id == stream_ids.from { stream_ids.to } else { id };
        let first = self.groups.front().and_then(|group| group.messages.first());
        let timestamp = first.map_or(self.now.timestamp(), |message| message.header.timestamp);
        self.before.write(writer, out, timestamp, mapped);
        for Message { header, payload } in self.groups.iter().flat_map(|group| &group.messages) {
            writer.write(out, header.csid, header.timestamp, header.kind, mapped(header.stream_id), payload);
        }
        Resumed { begun: !self.groups.is_empty(), keep: self.now }
    }
}

impl Group {
    /// Whether it began with sound, for want of video.
    fn is_sound(&self) -> bool {
        self.messages.first().is_some_and(|message| message.header.kind == kind::AUDIO)
    }
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
