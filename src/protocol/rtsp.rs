//! Pure: the RTSP wire (RFC 2326) as a relay needs it: what stands between two bytes of a connection, and whose name is whose.
//!
//! `framing` finds requests, responses and interleaved frames in a stream of bytes, `message` reads and writes a head. `front` is the
//! relay towards a client that has named no stream yet, `dialogue` the relay between that client and an upstream, over `tracks`, `url`,
//! `sdp`, `transport` and `headers`, which say in one side's names what the other said in its own. `credentials` is what a client shows,
//! `login` what the relay shows to an upstream.

pub mod credentials;
pub mod dialogue;
mod digest;
pub mod framing;
pub mod front;
mod headers;
pub mod login;
pub mod message;
pub mod sdp;
pub mod tracks;
pub mod transport;
pub mod url;
