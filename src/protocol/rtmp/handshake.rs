//! Pure: the RTMP handshake (RTMP 1.0 section 5.2), the simple form, both roles.
//!
//! Bytes 4..8 of our packet 1 are zero, which tells every client that no digest is to be expected. With any other value
//! ffmpeg players look for one and give up; the echo of C1 as S1 fails for the same reason.

/// Length of packets 1 and 2, in bytes.
pub const PACKET: usize = 1536;
/// Length of all that one side sends.
pub const TOTAL: usize = 1 + 2 * PACKET;
/// The only version: plain RTMP.
pub const VERSION: u8 = 3;

/// Why the first byte ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Versions 6 and 8.
    #[error("version {0} is RTMPE (encrypted RTMP), which is not supported: use rtmp:// or rtmps://")]
    Encrypted(u8),
    /// Anything else.
    #[error("version {0} is not RTMP")]
    Version(u8),
}

/// Judges C0 or S0.
///
/// # Errors
/// [`HandshakeError`] for everything but 3.
pub fn judge_version(version: u8) -> Result<(), HandshakeError> {
    match version {
        VERSION => Ok(()),
        6 | 8 => Err(HandshakeError::Encrypted(version)),
        other => Err(HandshakeError::Version(other)),
    }
}

/// Appends version and packet 1; `fill` gives 1528 random bytes.
pub fn hello(out: &mut Vec<u8>, fill: &mut dyn FnMut(&mut [u8])) {
    out.push(VERSION);
    out.extend_from_slice(&[0; 8]);
    let at = out.len();
    out.resize(at + PACKET - 8, 0);
    fill(&mut out[at..]);
}

/// Appends packet 2: the peer's packet 1, echoed.
pub fn echo(out: &mut Vec<u8>, packet_1: &[u8]) {
    out.extend_from_slice(packet_1);
}
