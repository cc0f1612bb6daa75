//! What do a connection's first bytes say it speaks? An answer stays when more bytes come, and comes within [`ENOUGH`].

use super::cuts::assert_is_a_word_of_ours;
use relay::protocol::proxy;
use relay::protocol::sniff::{ENOUGH, Guess, guess};

/// Judges every beginning of `data`.
pub fn run(data: &[u8]) {
    let mut known = Guess::More;
    for length in 0..=data.len().min(3 * ENOUGH) {
        let now = guess(&data[..length]);
        match known {
            Guess::More => {}
            // Its headers say so later.
            Guess::Http => assert!(matches!(now, Guess::Http | Guess::RtspTunnel), "{now:?} behind HTTP"),
            said => assert_eq!(now, said, "with byte {length}"),
        }
        assert!(now != Guess::More || length < ENOUGH, "{length} bytes are enough");
        assert_eq!(now == Guess::Proxy, proxy::begins(&data[..length]) == Some(true));
        known = now;
        if !matches!(now, Guess::Rtmp | Guess::Rtsp | Guess::More) {
            assert_is_a_word_of_ours(now.reason());
        }
    }
}
