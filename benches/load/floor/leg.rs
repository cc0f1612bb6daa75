//! One connection of two, and what passes from it to the other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::follow::{Follow, Followed};
use super::sockopt::set_receive_low_water;

/// Longest mark, as the relay's.
const MAX_MARK: u32 = 48 * 1024;

/// See the module.
pub struct Leg {
    socket: TcpStream,
    follow: Follow,
    /// Read and not passed on: so many bytes were followed already.
    held: Vec<u8>,
    scanned: usize,
    mark: u32,
    /// What this socket did not take yet.
    unsent: Vec<u8>,
    /// This socket has said its last.
    ended: bool,
    /// What epoll watches for.
    interest: EventFlags,
}

impl Leg {
    /// Watched for input.
    pub fn new(socket: TcpStream, follow: Follow) -> Self {
        Self { socket, follow, held: Vec::new(), scanned: 0, mark: 1, unsent: Vec::new(), ended: false, interest: EventFlags::IN }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether it has ended and taken everything.
    pub fn is_over(&self) -> bool {
        self.ended && self.unsent.is_empty()
    }

    fn watch(&mut self, epoll: &OwnedFd, token: usize, interest: EventFlags) -> io::Result<()> {
        if interest != self.interest {
            epoll::modify(epoll, &self.socket, EventData::new_u64(token as u64), interest)?;
            self.interest = interest;
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = match if self.unsent.is_empty() { self.socket.write(bytes) } else { Ok(0) } {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            sent => sent?,
        };
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }
}

/// Reads once from `source`, the leg at `side` of session `at`, and passes on what may leave.
pub fn pump(source: &mut Leg, sink: &mut Leg, epoll: &OwnedFd, at: usize, side: usize, buffer: &mut [u8]) -> io::Result<()> {
    let held = source.held.len();
    buffer[..held].copy_from_slice(&source.held);
    let room = buffer.len() - held;
    let read = match source.socket.read(&mut buffer[held..]) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        read => read?,
    };
    if read == 0 {
        sink.send(&buffer[..held])?;
        (source.ended, source.held) = (true, Vec::new());
        source.watch(epoll, 2 * at + side, EventFlags::empty())?;
        let _ = sink.socket.shutdown(Shutdown::Write);
        return Ok(());
    }
    source.held = Vec::new();
    pass(source, sink, epoll, at, side, &mut buffer[..held + read], read < room)
}

/// Passes on what may leave of `bytes`, of which the first were held before. `drained`: no more has arrived.
pub fn pass(
    source: &mut Leg,
    sink: &mut Leg,
    epoll: &OwnedFd,
    at: usize,
    side: usize,
    bytes: &mut [u8],
    drained: bool,
) -> io::Result<()> {
    let before = source.scanned;
    let Followed { taken, whole, out } = source.follow.follow(&bytes[before..]).ok_or(io::ErrorKind::InvalidData)?;
    let missing = u32::try_from(source.follow.missing()).unwrap_or(u32::MAX);
    let taken = before + taken;
    let mut keep = taken;
    if let Some(out) = out {
        sink.send(&bytes[..before + out.pass])?;
        sink.send(&out.patched)?;
    } else {
        let holds = drained && missing > 0 && missing <= MAX_MARK;
        // Without a boundary in what was read, what was held before stays held.
        keep = if !holds {
            taken
        } else if whole > 0 {
            before + whole
        } else {
            0
        };
        sink.send(&bytes[..keep])?;
    }
    source.held.extend_from_slice(&bytes[keep..]);
    source.scanned = taken - keep;
    let mark = if drained { missing.clamp(1, MAX_MARK) } else { 1 };
    if mark != source.mark {
        set_receive_low_water(source.socket.as_fd(), mark)?;
        source.mark = mark;
    }
    if !sink.unsent.is_empty() {
        source.watch(epoll, 2 * at + side, source.interest - EventFlags::IN)?;
        sink.watch(epoll, 2 * at + 1 - side, sink.interest | EventFlags::OUT)?;
    }
    Ok(())
}

/// `sink`, the leg at `side` of session `at`, takes more.
pub fn flush(sink: &mut Leg, source: &mut Leg, epoll: &OwnedFd, at: usize, side: usize) -> io::Result<()> {
    let sent = match sink.socket.write(&sink.unsent) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
        sent => sent?,
    };
    sink.unsent.drain(..sent);
    if !sink.unsent.is_empty() {
        return Ok(());
    }
    sink.unsent = Vec::new();
    sink.watch(epoll, 2 * at + side, sink.interest - EventFlags::OUT)?;
    if source.ended {
        let _ = sink.socket.shutdown(Shutdown::Write);
        return Ok(());
    }
    source.watch(epoll, 2 * at + 1 - side, source.interest | EventFlags::IN)
}
