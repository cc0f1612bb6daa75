//! A stream on its way: what is left of the message in progress, and when the next ones are due.

use std::io::{self, Write};
use std::net::TcpStream;

use tokio_rustls::rustls::{ClientConnection, Error};

use super::gauges::Gauges;
use super::media::Media;

/// A TCP segment on an Ethernet path.
const SEGMENT: usize = 1448;
/// Written at a time where nothing is paced, in frames.
const UNPACED_FRAMES: usize = 16;

/// A socket that a stream is written to.
pub struct Source {
    /// Handshakes are over.
    pub socket: TcpStream,
    /// TLS, where there is one.
    pub tls: Option<Box<ClientConnection>>,
    /// What to send; `None`: as much as is taken.
    pub media: Option<Media>,
}

/// When a stream wants to be asked again.
pub enum Next {
    /// At this time, µs.
    At(u64),
    /// When it is to flow again: its message is complete.
    Whole(u64),
    /// Never.
    End,
}

/// See the module.
pub struct Stream {
    source: Source,
    video: Vec<u8>,
    audio: Vec<u8>,
    message: Vec<u8>,
    sent: usize,
    next_frame: u64,
    next_audio: u64,
    step: u64,
    is_video: bool,
    blocked: bool,
}

impl Stream {
    /// Silent until [`Self::restart`].
    pub fn new(source: Source) -> Self {
        let _ = source.socket.set_nonblocking(true);
        let media = source.media.unwrap_or(Media::live(0));
        let video = if source.media.is_some() { media.video() } else { media.video().repeat(UNPACED_FRAMES) };
        Self {
            source,
            video,
            audio: media.audio_message(),
            message: Vec::new(),
            sent: 0,
            next_frame: 0,
            next_audio: 0,
            step: 0,
            is_video: false,
            blocked: false,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.source.socket
    }

    /// Whether it waits for its times.
    pub fn is_paced(&self) -> bool {
        self.source.media.is_some()
    }

    /// Flows from `now`, µs, on. Phases are spread by `number`, so that frames of different streams do not come together.
    pub fn restart(&mut self, now: u64, number: u64) -> u64 {
        let media = self.source.media.unwrap_or(Media::live(0));
        self.next_frame = now + (number * 7_919) % media.frame_step();
        self.next_audio = if media.audio { self.next_frame + 5_000 } else { u64::MAX };
        self.next_frame
    }

    /// Sends the segment that is due at `due`.
    pub fn send(&mut self, due: u64, gauges: &Gauges) -> Next {
        if self.sent == self.message.len() && self.begin(due).is_err() {
            return Next::End;
        }
        let end = (self.sent + SEGMENT).min(self.message.len());
        let last = end == self.message.len();
        if last && self.is_video && !self.blocked {
            gauges.sent(due);
        }
        match self.source.socket.write(&self.message[self.sent..end]) {
            Ok(sent) => self.sent += sent,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                return Next::At(due.max(gauges.now_us()) + 1_000);
            }
            Err(_) => return Next::End,
        }
        self.blocked = false;
        if self.sent < self.message.len() {
            return Next::At(due + self.step);
        }
        Next::Whole(self.next_frame.min(self.next_audio))
    }

    /// Writes whole frames until nothing more is taken; whether the socket still lives.
    pub fn pour(&mut self) -> bool {
        loop {
            match self.source.socket.write(&self.video[self.sent..]) {
                Ok(sent) => self.sent = (self.sent + sent) % self.video.len(),
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn begin(&mut self, due: u64) -> Result<(), Error> {
        let media = self.source.media.unwrap_or(Media::live(0));
        self.is_video = self.next_frame <= self.next_audio;
        let message = if self.is_video { &mut self.video } else { &mut self.audio };
        media.set_timestamp(message, due / 1000);
        let segments = message.len().div_ceil(SEGMENT) as u64;
        self.step = media.spread.as_micros() as u64 / (segments - 1).max(1);
        if self.is_video {
            let last = due + self.step * (segments - 1);
            let at = message.len() - 8;
            message[at..].copy_from_slice(&last.to_be_bytes());
            self.next_frame += media.frame_step();
        } else {
            self.next_audio += media.audio_step();
        }
        self.message.clear();
        self.sent = 0;
        match &mut self.source.tls {
            None => self.message.extend_from_slice(message),
            Some(tls) => seal(tls, message, &mut self.message)?,
        }
        Ok(())
    }
}

/// Appends `message` to `out` as TLS records.
fn seal(tls: &mut ClientConnection, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let failed = |e: io::Error| Error::General(e.to_string());
    tls.writer().write_all(message).map_err(failed)?;
    while tls.wants_write() {
        tls.write_tls(out).map_err(failed)?;
    }
    Ok(())
}
