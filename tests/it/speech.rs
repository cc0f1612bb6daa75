//! Messages cut into chunks, with whatever header a sender may choose. Knows no state: the test says each header itself.

use crate::parser::kind;

/// One message to be written: its header's format decides which of the fields are said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say<'a> {
    pub(crate) fmt: u8,
    pub(crate) csid: u32,
    /// The time field: absolute in format 0, else the delta. In format 3 only whether it is extended matters.
    pub(crate) time: u32,
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) body: &'a [u8],
}

impl<'a> Say<'a> {
    /// With a full header.
    pub(crate) fn full(csid: u32, time: u32, kind: u8, stream: u32, body: &'a [u8]) -> Self {
        Self { fmt: 0, csid, time, kind, stream, body }
    }

    /// With the header of another format.
    pub(crate) fn fmt(self, fmt: u8) -> Self {
        Self { fmt, ..self }
    }

    /// The chunks, in one piece.
    pub(crate) fn bytes(&self, chunk_size: usize) -> Vec<u8> {
        self.chunks(chunk_size).concat()
    }

    /// The chunks one by one, so that others can be put between them.
    pub(crate) fn chunks(&self, chunk_size: usize) -> Vec<Vec<u8>> {
        let mut pieces = self.body.chunks(chunk_size);
        let mut chunks = vec![[self.header(), pieces.next().unwrap_or_default().to_vec()].concat()];
        chunks.extend(pieces.map(|piece| [self.continuation(), piece.to_vec()].concat()));
        chunks
    }

    /// The header of its first chunk.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut out = basic(self.fmt, self.csid);
        let field = if self.extended() { 0xFF_FFFF } else { self.time };
        let length = self.body.len() as u32;
        if self.fmt < 3 {
            out.extend(&field.to_be_bytes()[1..]);
        }
        if self.fmt < 2 {
            out.extend(&length.to_be_bytes()[1..]);
            out.push(self.kind);
        }
        if self.fmt == 0 {
            out.extend(self.stream.to_le_bytes());
        }
        if self.extended() {
            out.extend(self.time.to_be_bytes());
        }
        out
    }

    fn continuation(&self) -> Vec<u8> {
        let mut out = basic(3, self.csid);
        if self.extended() {
            out.extend(self.time.to_be_bytes());
        }
        out
    }

    fn extended(&self) -> bool {
        self.time >= 0xFF_FFFF
    }
}

fn basic(fmt: u8, csid: u32) -> Vec<u8> {
    match csid {
        0..64 => vec![fmt << 6 | csid as u8],
        64..320 => vec![fmt << 6, (csid - 64) as u8],
        _ => vec![fmt << 6 | 1, ((csid - 64) & 255) as u8, ((csid - 64) >> 8) as u8],
    }
}

/// Set Chunk Size, with a full header.
pub(crate) fn set_chunk_size(size: u32) -> Vec<u8> {
    Say::full(2, 0, kind::SET_CHUNK_SIZE, 0, &size.to_be_bytes()).bytes(128)
}

/// A user control message about a message stream.
pub(crate) fn user_control(event: u16, stream: u32) -> Vec<u8> {
    [&event.to_be_bytes()[..], &stream.to_be_bytes()].concat()
}

/// A body of `length` bytes that differs from that of any other number.
pub(crate) fn body(number: u32, length: usize) -> Vec<u8> {
    let seed = number.wrapping_mul(0x9E37_79B9);
    let mut body: Vec<u8> = (0..length as u32).map(|i| (seed ^ i.wrapping_mul(0x85EB_CA6B)).to_be_bytes()[1]).collect();
    for (to, from) in body.iter_mut().zip(number.to_be_bytes()) {
        *to = from;
    }
    body
}
