//! Pure: why a client's command phase ends.

use crate::protocol::rtmp::command::CommandError;
use crate::protocol::rtmp::handshake::HandshakeError;
use crate::protocol::rtmp::tracker::ChunkError;

/// Why a client's command phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Not RTMP, or RTMPE.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The chunk stream is broken or beyond its bounds.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A command that cannot be read.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A command at the wrong time.
    #[error("{0}")]
    Order(&'static str),
    /// More than [`MAX_MESSAGES`](super::MAX_MESSAGES) messages or [`MAX_RECORDED`](super::MAX_RECORDED) bytes.
    #[error("more than 100 messages or 64 KiB before publish or play")]
    TooMuch,
    /// A window so small that the upstream would acknowledge every read.
    #[error("Window Acknowledgement Size {0} is too small: 1024 or more is right")]
    TinyWindow(u32),
}

impl ServerError {
    /// One word of a bounded set, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Handshake(HandshakeError::Encrypted(_)) => "rtmpe",
            Self::Handshake(HandshakeError::Version(_)) => "not_rtmp",
            Self::Chunk(e) => e.reason(),
            Self::Command(_) => "malformed_command",
            Self::Order(_) => "command_out_of_order",
            Self::TooMuch => "too_many_commands",
            Self::TinyWindow(_) => "tiny_ack_window",
        }
    }
}
