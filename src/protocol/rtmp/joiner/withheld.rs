//! Pure: messages that are joined before they pass, or do not: who judges them, and how they are written.

use super::{Filter, JoinError, Joiner, MAX_AWAITED, MAX_FORWARD_CHUNK, Outgoing, Verdict, is_media};
use crate::protocol::rtmp::chunk::{Seen, Written, write_header, write_payload};
use crate::protocol::rtmp::command::{event, kind};
use crate::protocol::rtmp::media::lasts;
use crate::protocol::rtmp::tracker::{ChunkError, Header};

impl Joiner {
    /// Takes a piece of a withheld message on `slot`; once it is whole it is judged, and written where it passes.
    pub(super) fn collect(
        &mut self,
        slot: usize,
        bytes: &[u8],
        last: bool,
        filter: &mut dyn Filter,
        out: &mut Outgoing,
    ) -> Result<(), JoinError> {
        out.differ();
        let Some(at) = self.withheld.iter().position(|(s, _)| *s == slot) else { return Ok(()) };
        self.withheld[at].1.extend_from_slice(bytes);
        if !last {
            let bytes: usize = self.withheld.iter().map(|(_, p)| p.len()).sum();
            let most = self.max_partial;
            return if bytes > most { Err(ChunkError::TooMuchPartial(most).into()) } else { Ok(()) };
        }
        let (_, payload) = self.withheld.swap_remove(at);
        let header = *self.tracker.header(slot);
        let verdict = match header.kind {
            kind::SET_CHUNK_SIZE | kind::ABORT if self.cuts_anew => Verdict::Drop,
            kind::SET_CHUNK_SIZE => Verdict::Replace(clamped_chunk_size(&payload)),
            kind::USER_CONTROL => Verdict::Replace(self.mapped_user_control(&payload)),
            media if is_media(media) => self.media_withheld(&header, &payload),
            _ => filter.message(&header, &payload),
        };
        match verdict {
            Verdict::Drop => self.lane(slot).clean = false,
            Verdict::End => return Err(JoinError::Ended),
            Verdict::Pass => self.emit(slot, &payload, out.differ()),
            Verdict::Replace(payload) => self.emit(slot, &payload, out.differ()),
        }
        if header.kind == kind::SET_CHUNK_SIZE && !self.cuts_anew {
            self.chunk_size = self.tracker.chunk_size().min(MAX_FORWARD_CHUNK);
        }
        Ok(())
    }

    /// Judges media that was withheld: it was waited for, or had come in part when the receiver was not there yet.
    fn media_withheld(&mut self, header: &Header, payload: &[u8]) -> Verdict {
        self.media += 1;
        let Some(keep) = &mut self.keep else { return Verdict::Pass };
        let lasts = lasts(header.kind, payload) == Some(true);
        let since = *self.awaits_since.get_or_insert(header.timestamp);
        let waited = header.timestamp.wrapping_sub(since);
        // Timestamps that go back are no sign of time.
        let enough = (MAX_AWAITED..u32::MAX / 2).contains(&waited) && header.kind == kind::VIDEO;
        self.awaits_begin &= !(keep.may_begin(header, payload) || enough);
        keep.note(header, payload);
        if self.awaits_begin && !lasts { Verdict::Drop } else { Verdict::Pass }
    }

    /// Writes a message that was withheld.
    fn emit(&mut self, slot: usize, payload: &[u8], out: &mut Vec<u8>) {
        let header = *self.tracker.header(slot);
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let written = match self.plan(slot, length) {
            Some(written) => written,
            None => {
                let fmt = header.fmt.min(2);
                let time = if fmt == 0 { header.timestamp } else { header.delta };
                let stream_id = self.mapped(header.stream_id);
                let seen = Seen { csid: header.csid, timestamp: header.timestamp, length, kind: header.kind, stream_id };
                Written { fmt, time, seen }
            }
        };
        if header.fmt == 3 || header.extended != written.extended() {
            self.lane(slot).clean = false;
        }
        write_header(out, &written);
        write_payload(out, &written, self.chunk_size, payload);
    }

    fn mapped_user_control(&self, payload: &[u8]) -> Vec<u8> {
        let mut mapped = payload.to_vec();
        let about_stream = payload.first_chunk::<2>().is_some_and(|e| {
            matches!(
                u16::from_be_bytes(*e),
                event::STREAM_BEGIN
                    | event::STREAM_EOF
                    | event::STREAM_DRY
                    | event::SET_BUFFER_LENGTH
                    | event::STREAM_IS_RECORDED
            )
        });
        if let (true, Some(id)) = (about_stream, payload.get(2..6).and_then(<[u8]>::first_chunk::<4>)) {
            mapped[2..6].copy_from_slice(&self.mapped(u32::from_be_bytes(*id)).to_be_bytes());
        }
        mapped
    }
}

/// The payload of a Set Chunk Size as it is passed on. The tracker has refused 0 and fewer than 4 bytes before.
pub(in super::super) fn clamped_chunk_size(payload: &[u8]) -> Vec<u8> {
    let mut out = payload.to_vec();
    if let Some(bytes) = payload.first_chunk::<4>() {
        let size = (u32::from_be_bytes(*bytes) & 0x7FFF_FFFF).min(MAX_FORWARD_CHUNK);
        out[..4].copy_from_slice(&size.to_be_bytes());
    }
    out
}
