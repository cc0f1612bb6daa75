//! The end of a stream: follows what arrives and notes when each frame is whole.

use std::io::{self, Read};
use std::net::TcpStream;

use relay::protocol::rtmp::command::kind;
use relay::protocol::rtmp::tracker::{Limits, Step, Tracker};

use super::gauges::Gauges;

/// A socket that a stream is read from.
pub struct Sink {
    socket: TcpStream,
    reader: Reader,
    /// The start of a header that is not whole.
    left: Vec<u8>,
    tail: [u8; 8],
}

/// How messages are told apart.
pub enum Reader {
    /// RTMP chunks.
    Rtmp(Box<Tracker>),
    /// Packets behind `$`; of the one in progress what is still to come, and whether it ends a frame.
    Rtsp {
        /// Bytes of the packet that are still to come.
        missing: usize,
        /// Whether it ends a frame.
        marker: bool,
    },
}

impl Reader {
    /// Goes on from `tracker`.
    pub fn rtmp(mut tracker: Tracker) -> Self {
        tracker.set_limits(Limits::MEDIA);
        Self::Rtmp(Box::new(tracker))
    }

    /// At a packet's boundary.
    pub fn rtsp() -> Self {
        Self::Rtsp { missing: 0, marker: false }
    }
}

impl Sink {
    /// `rest` was read before.
    pub fn new(socket: TcpStream, reader: Reader, rest: Vec<u8>) -> Self {
        let _ = socket.set_nonblocking(true);
        Self { socket, reader, left: rest, tail: [0; 8] }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Takes what is there; whether more may come.
    pub fn read(&mut self, buffer: &mut [u8], gauges: &Gauges) -> bool {
        let held = self.left.len();
        buffer[..held].copy_from_slice(&self.left);
        let read = match self.socket.read(&mut buffer[held..]) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        };
        gauges.received(read);
        let input = &buffer[..held + read];
        let taken = match &mut self.reader {
            Reader::Rtmp(tracker) => follow_rtmp(tracker, input, &mut self.tail, gauges),
            Reader::Rtsp { missing, marker } => Some(follow_rtsp(missing, marker, input, &mut self.tail, gauges)),
        };
        self.left.clear();
        taken.inspect(|&taken| self.left.extend_from_slice(&input[taken..])).is_some()
    }
}

/// The last bytes of what has passed.
fn keep_tail(tail: &mut [u8; 8], bytes: &[u8]) {
    if let Some(last) = bytes.last_chunk::<8>() {
        *tail = *last;
        return;
    }
    for &byte in bytes {
        tail.rotate_left(1);
        tail[7] = byte;
    }
}

fn follow_rtmp(tracker: &mut Tracker, input: &[u8], tail: &mut [u8; 8], gauges: &Gauges) -> Option<usize> {
    let mut at = 0;
    loop {
        match tracker.next(&input[at..]) {
            Err(_) => return None,
            Ok(Step::NeedMore) => return Some(at),
            Ok(Step::Header { length, .. }) => at += length,
            Ok(Step::Payload { slot, length, last, .. }) => {
                keep_tail(tail, &input[at..at + length]);
                at += length;
                if last && tracker.header(slot).kind == kind::VIDEO {
                    gauges.frame(u64::from_be_bytes(*tail));
                }
            }
        }
    }
}

/// Magic, channel, length, and the RTP header up to the marker bit.
const RTP_START: usize = 6;

fn follow_rtsp(missing: &mut usize, marker: &mut bool, input: &[u8], tail: &mut [u8; 8], gauges: &Gauges) -> usize {
    let mut at = 0;
    loop {
        if *missing == 0 {
            let Some(head) = input[at..].first_chunk::<RTP_START>() else { return at };
            // Requests between the packets are not answered: whoever asks goes without.
            if head[0] != b'$' {
                let Some(end) = input[at..].windows(4).position(|w| w == b"\r\n\r\n") else { return at };
                at += end + 4;
                continue;
            }
            *missing = 4 + usize::from(u16::from_be_bytes([head[2], head[3]]));
            *marker = head[1] == 0 && head[5] & 0x80 != 0;
        }
        let length = (*missing).min(input.len() - at);
        keep_tail(tail, &input[at..at + length]);
        at += length;
        *missing -= length;
        if *missing > 0 {
            return at;
        }
        if *marker {
            gauges.frame(u64::from_be_bytes(*tail));
        }
    }
}
