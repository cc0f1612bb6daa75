//! A publisher of the origin: its messages become packets of the hub.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::flv;
use super::hub::Busy;
use super::media::Packet;
use super::serve::{Asked, CONTROL, STATUS, Shared, see_off};
use crate::protocol::rtmp::chunk::{Message, Reader, Writer};
use crate::protocol::rtmp::command::{self, Command, kind};

/// Longest message, bytes: a key frame of 8K video is some 4 MiB.
const MAX_MESSAGE: u32 = 8 << 20;
/// Read at a time, bytes.
const PIECE: usize = 64 * 1024;
/// A publisher that sends nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// How often received bytes are acknowledged: what the session announced as its peer's bandwidth.
const ACK_EVERY: u64 = 2_500_000;

/// Serves a publisher to its end.
pub(super) async fn publish(mut asked: Asked, shared: &Shared) -> io::Result<()> {
    let name = std::mem::take(&mut asked.name);
    let Ok(stream) = Published::begin(shared, name) else {
        return asked.refuse("NetStream.Publish.BadName", &Busy.to_string()).await;
    };
    asked.accept(shared, &[("NetStream.Publish.Start", "Publishing.")]).await?;
    let Asked { stream: socket, session, stream_id, .. } = asked;
    let (mut reader, rest, writer) = session.into_reader();
    reader.allow_media(MAX_MESSAGE);
    let mut publisher = Publisher { socket, reader, writer, input: rest, stream_id, received: 0, acknowledged: 0 };
    let end = publisher.run(shared, &stream).await;
    // Before the farewell: the players need not wait for it.
    drop(stream);
    if end? {
        publisher.say_unpublished().await?;
    }
    see_off(publisher.socket).await
}

/// A stream of the hub, ended when dropped.
struct Published<'a> {
    shared: &'a Shared,
    name: Vec<u8>,
}

impl<'a> Published<'a> {
    fn begin(shared: &'a Shared, name: Vec<u8>) -> Result<Self, Busy> {
        shared.hub().publish(&name)?;
        Ok(Self { shared, name })
    }

    fn push(&self, kind: u8, timestamp: u32, payload: &[u8]) {
        if !payload.is_empty() {
            let packet = Packet { kind, timestamp, payload: Bytes::copy_from_slice(payload) };
            self.shared.hub().push(&self.name, &packet);
        }
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        self.shared.hub().unpublish(&self.name);
    }
}

struct Publisher {
    socket: TcpStream,
    reader: Reader,
    writer: Writer,
    input: Vec<u8>,
    stream_id: u32,
    received: u64,
    acknowledged: u64,
}

impl Publisher {
    /// Reads until the peer unpublishes (true) or closes (false).
    async fn run(&mut self, shared: &Shared, stream: &Published<'_>) -> io::Result<bool> {
        let mut piece = vec![0; PIECE];
        loop {
            if self.messages(stream)? {
                return Ok(true);
            }
            let Ok(read) = timeout(IDLE, self.socket.read(&mut piece)).await else { return Ok(false) };
            let read = read?;
            if read == 0 {
                return Ok(false);
            }
            self.input.extend_from_slice(&piece[..read]);
            self.received += read as u64;
            shared.received.fetch_add(read as u64, Relaxed);
            self.acknowledge().await?;
        }
    }

    /// Handles every whole message. True: the peer unpublished.
    fn messages(&mut self, stream: &Published<'_>) -> io::Result<bool> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        loop {
            let (taken, message) = self.reader.read(&input[at..]).map_err(io::Error::other)?;
            at += taken;
            match message {
                Some(message) if self.message(&message, stream) => return Ok(true),
                Some(_) => {}
                None => break,
            }
        }
        self.input.extend_from_slice(&input[at..]);
        Ok(false)
    }

    fn message(&self, message: &Message, stream: &Published<'_>) -> bool {
        let Message { header, payload } = message;
        let time = header.timestamp;
        match header.kind {
            kind::COMMAND | kind::COMMAND_AMF3 => return unpublishes(header.kind, payload),
            _ if header.stream_id != self.stream_id => {}
            kind::AUDIO | kind::VIDEO => stream.push(header.kind, time, payload),
            kind::DATA => stream.push(kind::DATA, time, without_envelope(payload)),
            // A selector byte, then AMF0 in practice.
            kind::DATA_AMF3 => stream.push(kind::DATA, time, without_envelope(payload.get(1..).unwrap_or_default())),
            kind::AGGREGATE => {
                let tags = flv::tags(payload, 0).unwrap_or_default();
                // Their times are those of the sender; the message says what the first one means (7.1.6).
                let shift = tags.first().map_or(0, |first| time.wrapping_sub(first.timestamp));
                for tag in tags {
                    stream.push(tag.kind, tag.timestamp.wrapping_add(shift), tag.payload);
                }
            }
            _ => {}
        }
        false
    }

    async fn acknowledge(&mut self) -> io::Result<()> {
        if self.received - self.acknowledged < ACK_EVERY {
            return Ok(());
        }
        self.acknowledged = self.received;
        // The field wraps (5.4.3).
        let sequence = (self.received & u64::from(u32::MAX)) as u32;
        let mut out = Vec::new();
        self.writer.write(&mut out, CONTROL, 0, kind::ACK, 0, &sequence.to_be_bytes());
        self.socket.write_all(&out).await
    }

    async fn say_unpublished(&mut self) -> io::Result<()> {
        let status = command::on_status("status", "NetStream.Unpublish.Success", "Stream is unpublished.");
        let mut out = Vec::new();
        self.writer.write(&mut out, STATUS, 0, status.kind(), self.stream_id, &status.encode());
        self.socket.write_all(&out).await
    }
}

fn unpublishes(kind: u8, payload: &[u8]) -> bool {
    let command = Command::decode(kind, payload);
    command.is_ok_and(|command| matches!(&command.name[..], b"FCUnpublish" | b"deleteStream" | b"closeStream"))
}

/// Data as players are to have it: publishers wrap it into an order to the server.
fn without_envelope(payload: &[u8]) -> &[u8] {
    payload.strip_prefix(b"\x02\x00\x0d@setDataFrame").unwrap_or(payload)
}
