//! Is there another byte, and where does it go?
//!
//! [`start`] gives an accepted socket its [`ConnectionActor`] on a worker thread ([`WorkerHandle`]). The session negotiates,
//! authenticates and dials (`life`), and then passes bytes (`relay`, over two `flow`s) until one side ends.

mod actor;
mod buffer;
mod client;
mod collector;
mod enter;
mod filter;
mod find;
mod flow;
mod hold;
mod introduce;
mod life;
mod login;
mod opening;
pub mod outcome;
mod piece;
mod preface;
mod relay;
mod report;
mod rtsp;
mod seat;
mod sides;
mod sockopt;
mod switch;
mod takeover;
mod thread;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use actix::Actor;

pub use actor::ConnectionActor;
pub use buffer::BufferStats;
pub use collector::HeldBytes;
pub use thread::WorkerHandle;
pub use worker::{WorkerSettings, adjust_worker};

use crate::admission::{Claims, Gate};
pub use crate::config::Tls;
use crate::config::{Buffers, ForwardQuery, PublishHold, Timeouts};
use crate::telemetry::{SessionId, Telemetry};
use crate::tls;
use crate::upstream::Router;

/// A socket that has arrived. Crosses threads as a standard one.
pub struct Accepted {
    /// The socket, non-blocking.
    pub stream: std::net::TcpStream,
    /// The client's address; a v4-mapped one already as v4.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub at: Instant,
    /// The address that it came to.
    pub door: Door,
    /// Its place under the hard cap and on the worker, given back when the session ends.
    pub slot: Box<dyn Send>,
}

/// An address that clients come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// The bound address.
    pub address: SocketAddr,
    /// What must be spoken there. Never [`Tls::Only`] or [`Tls::Optional`] without [`Shared::tls`].
    pub tls: Tls,
}

/// What all sessions share that began under the same configuration.
pub struct Shared {
    /// Who may come in.
    pub gate: Gate,
    /// Where streams go.
    pub router: Router,
    /// Which query arguments travel on.
    pub forward: ForwardQuery,
    /// Meets clients in private, where a door asks for it.
    pub tls: Option<Arc<tls::Server>>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bytes in hand a direction.
    pub buffers: Buffers,
    /// Who publishes what.
    pub claims: Arc<Claims>,
    /// How a publisher outlives its upstream; `None`: it does not.
    pub publish_hold: Option<PublishHold>,
    /// What publishers hold meanwhile.
    pub held_bytes: Arc<HeldBytes>,
    /// What tells.
    pub telemetry: Telemetry,
    /// Sessions so far, whatever the configuration they began with.
    pub sessions: Arc<AtomicU64>,
}

/// Gives the socket to a new [`ConnectionActor`] on `worker`.
pub fn start(worker: &WorkerHandle, shared: Arc<Shared>, accepted: Accepted) {
    let id = SessionId(shared.sessions.fetch_add(1, Relaxed) + 1);
    // Where the thread has ended, the process is ending: the socket is closed.
    worker.run(move || drop(ConnectionActor::new(shared, accepted, id).start()));
}
