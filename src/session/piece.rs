//! What is there to read, before bytes pass? It is looked at in a buffer of the thread, so that no session that waits holds one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};

use crate::tls::Stream;

/// Read at a time, bytes.
const PIECE: usize = 4096;

thread_local! {
    static BUFFER: RefCell<[u8; PIECE]> = const { RefCell::new([0; PIECE]) };
}

/// Waits for bytes, at most 4096, and shows them to `look`; `None` at the end of what the peer sends. Cancelling it loses nothing.
///
/// # Errors
/// What the socket says, or TLS.
pub(super) async fn read<T>(stream: &mut Stream, mut look: impl FnMut(&[u8]) -> T) -> io::Result<Option<T>> {
    poll_fn(|cx| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut piece = ReadBuf::new(&mut buffer[..]);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
            let bytes = piece.filled();
            Poll::Ready(Ok((!bytes.is_empty()).then(|| look(bytes))))
        })
    })
    .await
}

/// Lets what has arrived be acknowledged at once: peers write these messages in small pieces with Nagle on, and each would wait 40 ms for it. Not
/// needed where an answer leaves now, which says it too; on its own it is a packet more.
pub(super) fn acknowledge(stream: &Stream) {
    let _ = SockRef::from(stream.tcp()).set_tcp_quickack(true);
}
