//! The RTMP handshake, both roles: cut anywhere it gives the same, nothing is said before packet 1 is there, and its echo is exact.

use super::cuts::{assert_is_a_word_of_ours, number, pieces};
use relay::protocol::rtmp::client::{Answer, ClientSession};
use relay::protocol::rtmp::handshake::{PACKET, TOTAL, VERSION};
use relay::protocol::rtmp::server::{Progress, ServerSession, Stage};

/// Control bytes: the cuts.
pub const CONTROL: usize = 2;

/// Reads the bytes as a client's and as an upstream's handshake.
pub fn run(data: &[u8]) {
    let Some((control, bytes)) = data.split_first_chunk::<CONTROL>() else { return };
    let bytes = &bytes[..bytes.len().min(TOTAL)];
    let seed = number(control, 0);
    let (as_server, as_client) = (serve(&[bytes]), connect(&[bytes]));
    assert_eq!(serve(&pieces(bytes, seed)), as_server);
    assert_eq!(connect(&pieces(bytes, seed)), as_client);
    let is_rtmp = bytes.first().is_none_or(|version| *version == VERSION);
    assert_eq!((as_server.is_some(), as_client.is_some()), (is_rtmp, is_rtmp));
    if let Some((stage, said)) = as_server {
        let want = match bytes.len() {
            TOTAL => Stage::Connect,
            n if n > PACKET => Stage::Echo,
            _ => Stage::Hello,
        };
        assert_eq!(stage, want);
        assert_eq!(said.len(), if want == Stage::Hello { 0 } else { TOTAL });
        if want != Stage::Hello {
            assert_eq!(said[..9], [VERSION, 0, 0, 0, 0, 0, 0, 0, 0], "no digest is promised");
            assert_eq!(&said[1 + PACKET..], &bytes[1..=PACKET]);
        }
    }
    if let Some((done, said)) = as_client {
        assert_eq!(done, bytes.len() == TOTAL);
        assert_eq!(said.len(), if done { TOTAL } else { 1 + PACKET });
        assert!(!done || said.ends_with(&bytes[1..=PACKET]));
    }
}

/// How far a client comes, and what it is told; `None` where it is refused.
fn serve(pieces: &[&[u8]]) -> Option<(Stage, Vec<u8>)> {
    let mut session = ServerSession::new(&mut |bytes| bytes.fill(7));
    for piece in pieces {
        match session.handle_input(piece) {
            Ok(progress) => assert!(matches!(progress, Progress::More)),
            Err(e) => {
                assert_is_a_word_of_ours(e.reason());
                assert!(session.take_output().is_empty(), "nobody would understand it");
                return None;
            }
        }
    }
    let stage = session.stage();
    let said = session.take_output();
    assert!(session.into_parts().rest.len() <= PACKET, "no more is kept than the packet in progress");
    Some((stage, said))
}

/// Whether the handshake is done, and what the upstream was told.
fn connect(pieces: &[&[u8]]) -> Option<(bool, Vec<u8>)> {
    let mut session = ClientSession::new(Vec::new(), 1, &mut |bytes| bytes.fill(7));
    for piece in pieces {
        let answer = session.handle_input(piece).ok()?;
        assert_eq!(answer, Answer::More);
    }
    Some((session.handshaken(), session.take_output()))
}
