//! What a publisher sends while no upstream takes it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use tokio::io::{AsyncRead, ReadBuf};

use super::filter::ClientFilter;
use super::hold::Over;
use super::life::Place;
use super::seat::Direction;
use crate::config::PublishHold;
use crate::protocol::rtmp::chunk::{Message, Reader, Writer};
use crate::protocol::rtmp::command::kind;
use crate::protocol::rtmp::held::{Held, Resumed};
use crate::protocol::rtmp::joiner::{Filter, JoinError, MAX_FORWARD_CHUNK, StreamIds, Verdict};
use crate::protocol::rtmp::keep::Keep;
use crate::protocol::rtmp::tracker::Tracker;
use crate::tls::Stream;

/// Bytes that all publishers hold together.
#[derive(Debug, Default)]
pub struct HeldBytes(AtomicUsize);

impl HeldBytes {
    /// Now.
    pub fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// One publisher's part of them, given back when this is dropped.
pub(super) struct Share {
    all: Arc<HeldBytes>,
    settings: PublishHold,
    bytes: usize,
}

impl Share {
    /// Nothing yet.
    pub(super) fn new(all: Arc<HeldBytes>, settings: PublishHold) -> Self {
        Self { all, settings, bytes: 0 }
    }

    /// Most that this publisher may hold now.
    fn room(&self) -> usize {
        let others = self.all.get().saturating_sub(self.bytes);
        self.settings.max_total.saturating_sub(others).min(self.settings.max_bytes)
    }

    fn set(&mut self, bytes: usize) {
        self.all.0.fetch_add(bytes, Relaxed);
        self.all.0.fetch_sub(self.bytes, Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A chunk stream's sender, as a reader or joiner goes on with it.
type Sender = (Tracker, Vec<(usize, Vec<u8>)>);

/// See the module.
pub(super) struct Collector {
    reader: Reader,
    held: Held,
    /// The start of a header.
    rest: Vec<u8>,
    share: Share,
}

/// What an upstream is told that takes the stream up, and how it goes on.
pub(super) struct Said {
    pub(super) bytes: Vec<u8>,
    pub(super) sender: Sender,
    pub(super) writer: Writer,
    pub(super) rest: Vec<u8>,
    pub(super) resumed: Resumed,
}

impl Collector {
    /// Goes on with the chunk stream of `sender`, of whose stream `keep` is kept, where `rest` is read but not followed.
    pub(super) fn new(sender: Sender, keep: Keep, rest: Vec<u8>, share: Share) -> Self {
        Self { reader: Reader::resume(sender, share.settings.max_bytes), held: Held::new(keep), rest, share }
    }

    /// What is held.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Takes what the client sent.
    fn take(&mut self, bytes: &[u8], filter: &mut ClientFilter, place: &Place) -> Result<(), Over> {
        let joined;
        let input = if self.rest.is_empty() {
            bytes
        } else {
            joined = [&self.rest[..], bytes].concat();
            &joined
        };
        let mut at = 0;
        loop {
            let (taken, message) = self.reader.read(&input[at..]).map_err(|e| Over::ClientBroke(e.into()))?;
            at += taken;
            let Some(message) = message else { break };
            self.message(message, filter, place)?;
        }
        self.rest = input[at..].to_vec();
        // A message in progress takes its room from those that are held.
        self.held.shrink(self.room());
        self.share.set(self.held.bytes() + self.reader.partial_bytes());
        if self.held.is_complete() { Ok(()) } else { Err(Over::Unkept) }
    }

    fn message(&mut self, message: Message, filter: &mut ClientFilter, place: &Place) -> Result<(), Over> {
        match message.header.kind {
            kind::COMMAND | kind::COMMAND_AMF3 | kind::WINDOW_ACK_SIZE => {
                let verdict = filter.message(&message.header, &message.payload);
                if verdict == Verdict::End {
                    return Err(Over::ClientBroke(JoinError::Ended));
                }
                if filter.is_over() { Err(Over::ClientClosed) } else { Ok(()) }
            }
            kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 | kind::AGGREGATE => {
                place.cell.to_upstream.messages.add(1);
                let room = self.room();
                self.held.take(message, room);
                Ok(())
            }
            // About a connection that is no more.
            _ => Ok(()),
        }
    }

    fn room(&self) -> usize {
        self.share.room().saturating_sub(self.reader.partial_bytes())
    }

    /// Says to an upstream, over what `writer` has said to it, all that it must know and all that is held.
    pub(super) fn say(self, mut writer: Writer, stream_ids: StreamIds) -> Said {
        let mut bytes = Vec::with_capacity(self.held.bytes() + self.held.bytes() / 64 + 1024);
        let chunk_size = self.reader.chunk_size().min(MAX_FORWARD_CHUNK);
        if chunk_size != writer.chunk_size() {
            writer.write(&mut bytes, 2, 0, kind::SET_CHUNK_SIZE, 0, &chunk_size.to_be_bytes());
            writer.set_chunk_size(chunk_size);
        }
        let resumed = self.held.resume(&mut writer, &mut bytes, stream_ids);
        Said { bytes, sender: self.reader.into_parts(), writer, rest: self.rest, resumed }
    }
}

/// Reads what the client sends, until it ends.
pub(super) async fn collect(stream: &mut Stream, collector: &mut Collector, filter: &mut ClientFilter, place: &Place) -> Over {
    loop {
        let read = std::future::poll_fn(|cx| {
            let mut buffer = place.worker.pool.lend(place.shared.buffers.read);
            let mut room = ReadBuf::new(&mut buffer);
            let result = Pin::new(&mut *stream).poll_read(cx, &mut room);
            result.map_ok(|()| match room.filled() {
                [] => Some(Over::ClientClosed),
                bytes => {
                    let now = Instant::now();
                    place.cell.to_upstream.reads.add(1);
                    place.seat.touch(Direction::Up, now);
                    place.cell.touch(now);
                    place.cell.hear(now);
                    collector.take(bytes, filter, place).err()
                }
            })
        });
        match read.await {
            Ok(None) => {}
            Ok(Some(over)) => return over,
            Err(e) => return Over::ClientLost(e),
        }
    }
}
