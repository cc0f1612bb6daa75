//! What do the demonstration and the tests publish to? An RTMP origin in one value.
//!
//! One publisher a stream, many players. A player is first given the metadata, the sequence headers and the last group of
//! pictures, then what comes; one that comes before the publisher waits. When the publisher leaves, its players are told
//! (Stream EOF, `NetStream.Play.UnpublishNotify`) and closed. A player that does not keep up loses what it has not taken and
//! goes on at the next key frame.
//!
//! It has no tokens and no limits an address: it stands on a loopback address behind the relay. `hub` and what it is made of
//! (`gop`, `queue`, `media`) hold the state, the rest are the sockets.

pub mod flv;
mod gop;
mod hub;
pub mod media;
mod playing;
mod publishing;
mod queue;
pub mod script;
mod serve;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime;
use tokio_util::sync::CancellationToken;

use hub::Limits;
use serve::Shared;

/// How an origin differs from the usual one.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of a chunk, as it announces; 1 to 0xFFFFFF.
    pub chunk_size: u32,
    /// Bytes that one player may have waiting; beyond it the player goes on at the next key frame.
    pub queue: usize,
    /// Bytes of the last group of pictures that a stream keeps; a longer group is not kept.
    pub group: usize,
    /// Connections at the same time; further ones are closed at once.
    pub connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { chunk_size: 4096, queue: 16 << 20, group: 8 << 20, connections: 1024 }
    }
}

/// What goes on in an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Streams that are being published.
    pub streams: usize,
    /// Players, those waiting for a stream included.
    pub players: usize,
    /// Bytes that publishers have sent since the start.
    pub received: u64,
    /// Bytes that players have been sent since the start.
    pub sent: u64,
}

/// A running origin, on a thread of its own. Ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts one at `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be listened on, or the system has no thread to give.
    pub fn start(addr: SocketAddr) -> io::Result<Self> {
        Self::start_with(addr, Options::default())
    }

    /// The same with other [`Options`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(addr: SocketAddr, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let Options { queue, group, .. } = options;
        let shared = Arc::new(Shared::new(options, Limits { queue, group }));
        let stop = CancellationToken::new();
        let run = serve::accept(listener, Arc::clone(&shared), stop.clone());
        // With the runtime its tasks end, and with them every connection.
        let thread = std::thread::Builder::new().name("origin".into()).spawn(move || runtime.block_on(run))?;
        Ok(Self { addr, shared, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What goes on in it at the moment.
    pub fn figures(&self) -> Figures {
        self.shared.figures()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It can only fail by a panic on that thread, which has been printed.
            let _ = thread.join();
        }
    }
}
