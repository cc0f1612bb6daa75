//! What a stream is made of: messages with the time of their last segment inside.
//!
//! The last eight bytes of a video message say when its last segment is due, in µs of the generator's clock: the receiver needs nothing else to
//! know how late the whole frame is, and a target that stops reading cannot hide it.

use std::time::Duration;

use relay::protocol::rtmp::chunk::Writer;
use relay::protocol::rtmp::command::kind;

/// Larger than any frame: a frame is one chunk.
pub const CHUNK_SIZE: u32 = 1 << 20;
/// One AAC message, with its header.
const AUDIO: usize = 340;
/// AAC messages a second: 48 kHz, 1024 samples each.
const AUDIO_RATE: u64 = 47;
/// Payload of a video message of 2.5 Mb/s at 30 frames a second: seven segments.
const LIVE_FRAME: usize = 10_124;
/// Payload of an RTP packet, so that each is one segment with its headers.
const RTP_PAYLOAD: usize = 1388;

/// How a stream's bytes come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Media {
    /// Payload of a video message, bytes.
    pub frame: usize,
    /// Frames a second.
    pub fps: u32,
    /// Time from a frame's first segment to its last.
    pub spread: Duration,
    /// AAC between the frames.
    pub audio: bool,
    /// In which packets.
    pub wire: Wire,
}

/// What cuts a stream into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// RTMP chunks.
    Rtmp,
    /// RTP packets behind `$` (RFC 2326 section 10.12); a marker bit ends a frame.
    Rtsp,
}

impl Media {
    /// 2.5 Mb/s with AAC, each frame's segments spread over so many ms.
    pub fn live(spread_ms: u64) -> Self {
        Self { frame: LIVE_FRAME, fps: 30, spread: Duration::from_millis(spread_ms), audio: true, wire: Wire::Rtmp }
    }

    /// 20 Mb/s with AAC.
    pub fn heavy() -> Self {
        Self { frame: 83_000, ..Self::live(20) }
    }

    /// 0.5 Mb/s, 15 frames a second of three segments, without audio: a thousand of these fit on one core.
    pub fn light() -> Self {
        Self { frame: 4_000, fps: 15, audio: false, ..Self::live(20) }
    }

    /// The same over RTSP.
    pub fn over_rtsp(self) -> Self {
        Self { wire: Wire::Rtsp, ..self }
    }

    /// Bytes a second of one stream.
    pub fn rate(&self) -> f64 {
        let video = self.video().len() as f64 * f64::from(self.fps);
        video + if self.audio { self.audio_message().len() as f64 * AUDIO_RATE as f64 } else { 0.0 }
    }

    /// µs from frame to frame.
    pub fn frame_step(&self) -> u64 {
        1_000_000 / u64::from(self.fps)
    }

    /// µs from one AAC message to the next.
    pub fn audio_step(&self) -> u64 {
        1_000_000 / AUDIO_RATE
    }

    /// A video message, with headers.
    pub fn video(&self) -> Vec<u8> {
        match self.wire {
            Wire::Rtmp => rtmp(6, kind::VIDEO, &vec![0x27; self.frame]),
            Wire::Rtsp => rtp(0, &vec![0x27; self.frame]),
        }
    }

    /// An audio message, with headers.
    pub fn audio_message(&self) -> Vec<u8> {
        match self.wire {
            Wire::Rtmp => rtmp(4, kind::AUDIO, &[0xAF; AUDIO - 12]),
            Wire::Rtsp => rtp(2, &[0xAF; AUDIO - 16]),
        }
    }

    /// Puts `timestamp`, ms, into a message's header.
    pub fn set_timestamp(&self, message: &mut [u8], timestamp: u64) {
        match self.wire {
            // One byte of basic header, then three of time: a run lasts less than 4.6 hours.
            Wire::Rtmp => message[1..4].copy_from_slice(&timestamp.to_be_bytes()[5..]),
            Wire::Rtsp => {}
        }
    }
}

/// A message in one chunk with a full header.
pub fn rtmp(csid: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.set_chunk_size(CHUNK_SIZE);
    let mut out = Vec::new();
    writer.write(&mut out, csid, 0, kind, 1, payload);
    out
}

/// Packets of one frame on `channel`; the last has the marker bit (RFC 3550 section 5.1).
fn rtp(channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let packets = payload.len().div_ceil(RTP_PAYLOAD);
    for (i, piece) in payload.chunks(RTP_PAYLOAD).enumerate() {
        let length = u16::try_from(12 + piece.len()).unwrap_or(u16::MAX);
        let marker = if i + 1 == packets { 0x80 } else { 0 };
        out.extend_from_slice(&[b'$', channel]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[0x80, marker | (96 + channel / 2), 0, i as u8, 0, 0, 0, 0, 0, 0, 0, 1 + channel]);
        out.extend_from_slice(piece);
    }
    out
}
