//! One connection of two, and what passes from it to the other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};

use tokio_rustls::rustls::ServerConnection;

use super::follow::{Follow, Followed};
use super::record::Records;
use super::sockopt::set_receive_low_water;

/// Longest mark, as the relay's.
const MAX_MARK: u32 = 48 * 1024;
/// Read at a time where TLS protects it, as the relay does.
const AHEAD: usize = 20 * 1024;

/// What a socket's bytes stand for.
struct Private {
    tls: ServerConnection,
    records: Records,
}

/// See the module.
pub struct Leg {
    socket: TcpStream,
    private: Option<Box<Private>>,
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
        Self {
            socket,
            private: None,
            follow,
            held: Vec::new(),
            scanned: 0,
            mark: 1,
            unsent: Vec::new(),
            ended: false,
            interest: EventFlags::IN,
        }
    }

    /// The same, with a client that speaks TLS.
    pub fn in_private(mut self, tls: ServerConnection) -> Self {
        self.private = Some(Box::new(Private { tls, records: Records::default() }));
        self
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

    /// Reads once: how many bytes there are for whoever follows, and whether the socket has no more.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let Some(private) = &mut self.private else {
            let read = self.socket.read(buffer)?;
            return Ok((read, read < buffer.len()));
        };
        let (wire, plain) = buffer.split_at_mut(AHEAD);
        let read = self.socket.read(wire)?;
        if read == 0 {
            return Ok((0, true));
        }
        private.records.advance(&wire[..read]);
        let (mut ahead, mut taken) = (&wire[..read], 0);
        while !ahead.is_empty() {
            private.tls.read_tls(&mut ahead)?;
            private.tls.process_new_packets().map_err(io::Error::other)?;
            loop {
                match private.tls.reader().read(&mut plain[taken..]) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    got => taken += got?,
                }
            }
        }
        while private.tls.wants_write() {
            private.tls.write_tls(&mut self.socket)?;
        }
        // Where the caller looks for it.
        buffer.copy_within(AHEAD..AHEAD + taken, 0);
        if taken == 0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok((taken, read < AHEAD)) }
    }

    /// Fewest bytes of the socket with which `plain` more can be read.
    fn wire_bytes_for(&self, plain: u32) -> u32 {
        let bytes = self.private.as_ref().map_or(u64::from(plain.max(1)), |p| p.records.bytes_for(u64::from(plain)));
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    fn set_mark(&mut self, missing: u32) -> io::Result<()> {
        let mark = self.wire_bytes_for(missing).min(MAX_MARK);
        if mark != self.mark {
            set_receive_low_water(self.socket.as_fd(), mark)?;
            self.mark = mark;
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(private) = &mut self.private {
            // What is said to a publisher is short: it is taken.
            private.tls.writer().write_all(bytes)?;
            while private.tls.wants_write() {
                private.tls.write_tls(&mut self.socket)?;
            }
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
    let (read, drained) = match source.read(&mut buffer[held..]) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        // A part of a record, or what TLS said for itself.
        Err(e) if e.kind() == io::ErrorKind::Interrupted => return source.set_mark(0),
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
    pass(source, sink, epoll, at, side, &mut buffer[..held + read], drained)
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
        let holds = drained && (missing > 0 || source.follow.waits()) && missing <= MAX_MARK;
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
    source.set_mark(if drained { missing } else { 0 })?;
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
