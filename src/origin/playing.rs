//! A player of the origin: what waits for it in the hub is sent to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::hub::{PlayerId, Taken};
use super::media::Packet;
use super::serve::{Asked, CONTROL, STATUS, Shared, farewell, see_off};
use crate::protocol::rtmp::chunk::{Reader, Writer};
use crate::protocol::rtmp::command::{self, Command, event, kind};

/// Longest message of a player, bytes: they only send commands.
const MAX_MESSAGE: u32 = 64 * 1024;
/// Sent at a time, about, bytes.
const BATCH: usize = 256 * 1024;
/// Read at a time, bytes.
const PIECE: usize = 4096;
/// A player that takes nothing for so long is closed.
const STUCK: Duration = Duration::from_secs(60);

/// Serves a player to its end.
pub(super) async fn play(mut asked: Asked, shared: &Shared) -> io::Result<()> {
    // Before the answer: who has been told that it plays misses nothing.
    let seat = Seat::join(shared, std::mem::take(&mut asked.name));
    asked.accept(shared, &[("NetStream.Play.Reset", "Playing and resetting."), ("NetStream.Play.Start", "Playing.")]).await?;
    let Asked { stream: socket, session, stream_id, .. } = asked;
    let (mut reader, rest, writer) = session.into_reader();
    reader.allow_media(MAX_MESSAGE);
    let mut player = Player { socket, reader, writer, input: rest, stream_id };
    let ended = player.run(shared, &seat).await?;
    drop(seat);
    if ended {
        player.say_ended().await?;
        farewell(player.socket).await
    } else {
        see_off(player.socket).await
    }
}

/// A player's place in the hub, left when dropped.
struct Seat<'a> {
    shared: &'a Shared,
    name: Vec<u8>,
    id: PlayerId,
    more: Arc<Notify>,
}

impl<'a> Seat<'a> {
    fn join(shared: &'a Shared, name: Vec<u8>) -> Self {
        let more = Arc::new(Notify::new());
        let wake = Arc::clone(&more);
        let id = shared.hub().play(&name, Box::new(move || wake.notify_one()));
        // The start is there at once.
        more.notify_one();
        Self { shared, name, id, more }
    }

    fn take(&self) -> Taken {
        self.shared.hub().take(&self.name, self.id, BATCH)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.shared.hub().leave(&self.name, self.id);
    }
}

struct Player {
    socket: TcpStream,
    reader: Reader,
    writer: Writer,
    input: Vec<u8>,
    stream_id: u32,
}

impl Player {
    /// Sends until the stream ends (true) or the player leaves (false).
    async fn run(&mut self, shared: &Shared, seat: &Seat<'_>) -> io::Result<bool> {
        let mut piece = [0; PIECE];
        loop {
            if self.leaves()? {
                return Ok(false);
            }
            tokio::select! {
                read = self.socket.read(&mut piece) => match read? {
                    0 => return Ok(false),
                    read => self.input.extend_from_slice(&piece[..read]),
                },
                () = seat.more.notified() => if self.send(shared, seat).await? {
                    return Ok(true);
                },
            }
        }
    }

    /// Sends all that waits. True: the stream has ended.
    async fn send(&mut self, shared: &Shared, seat: &Seat<'_>) -> io::Result<bool> {
        loop {
            let Taken { packets, ended } = seat.take();
            if !packets.is_empty() {
                let out = self.encode(&packets);
                timeout(STUCK, self.socket.write_all(&out)).await??;
                shared.sent.fetch_add(out.len() as u64, Relaxed);
            }
            if ended || packets.is_empty() {
                return Ok(ended);
            }
        }
    }

    fn encode(&mut self, packets: &[Packet]) -> Vec<u8> {
        let mut out = Vec::with_capacity(packets.iter().map(Packet::weight).sum());
        for Packet { kind, timestamp, payload } in packets {
            self.writer.write(&mut out, chunk_stream(*kind), *timestamp, *kind, self.stream_id, payload);
        }
        out
    }

    /// Reads the player's messages. True: it is done with the stream. Pause and seek are not answered: the stream is live.
    fn leaves(&mut self) -> io::Result<bool> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        loop {
            let (taken, message) = self.reader.read(&input[at..]).map_err(io::Error::other)?;
            at += taken;
            let Some(message) = message else { break };
            if matches!(message.header.kind, kind::COMMAND | kind::COMMAND_AMF3) {
                let command = Command::decode(message.header.kind, &message.payload);
                if command.is_ok_and(|command| matches!(&command.name[..], b"deleteStream" | b"closeStream")) {
                    return Ok(true);
                }
            }
        }
        self.input.extend_from_slice(&input[at..]);
        Ok(false)
    }

    async fn say_ended(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        let eof = command::user_control(event::STREAM_EOF, self.stream_id);
        self.writer.write(&mut out, CONTROL, 0, kind::USER_CONTROL, 0, &eof);
        let status = command::on_status("status", "NetStream.Play.UnpublishNotify", "The publisher has left.");
        self.writer.write(&mut out, STATUS, 0, status.kind(), self.stream_id, &status.encode());
        timeout(STUCK, self.socket.write_all(&out)).await?
    }
}

/// Audio and video each on their own, as everybody does.
fn chunk_stream(kind: u8) -> u32 {
    match kind {
        kind::AUDIO => 6,
        kind::VIDEO => 7,
        _ => 8,
    }
}
