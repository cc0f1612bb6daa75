//! The Listener: accepts sockets and hands them over.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture};
use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Workers, shape_clients};
use crate::admission::Refusal;
use crate::config::Tcp;
use crate::session::{self, Accepted, Door, Shared};
use crate::telemetry::events;

/// How long accepting rests when descriptors or memory have run out.
const REST: Duration = Duration::from_millis(200);

/// See the module.
pub struct Listener {
    hall: Arc<Hall>,
    /// Until they are closed for good.
    doors: Vec<(Door, Arc<TcpListener>)>,
    accepting: Vec<SpawnHandle>,
    /// Cancelled when the actor is gone.
    gone: DropGuard,
}

/// What all doors lead to.
struct Hall {
    workers: Workers,
    /// What a session gets that begins now.
    shared: ArcSwap<Shared>,
    /// Most accepted sockets; over it they are closed without a word.
    cap: AtomicUsize,
    accepting: AtomicBool,
    accepted: AtomicUsize,
}

impl Listener {
    /// Accepts from every one of `doors` (non-blocking sockets), at most `cap` at a time, once it is started.
    pub fn new(doors: Vec<(Door, TcpListener)>, workers: Workers, shared: Arc<Shared>, cap: usize) -> Self {
        let (shared, cap, accepting) = (ArcSwap::new(shared), AtomicUsize::new(cap), AtomicBool::new(false));
        let hall = Hall { workers, shared, cap, accepting, accepted: AtomicUsize::new(0) };
        Self {
            hall: Arc::new(hall),
            doors: doors.into_iter().map(|(door, socket)| (door, Arc::new(socket))).collect(),
            accepting: Vec::new(),
            gone: CancellationToken::new().drop_guard(),
        }
    }

    /// Cancelled when the actor has ended: by its own failure, since nobody else ends it while the relay runs.
    pub fn gone(&self) -> CancellationToken {
        self.gone.token().clone()
    }

    /// How things stand, for others to ask at any time.
    pub fn watch(&self) -> impl Fn() -> Standing + Send + Sync + use<> {
        let hall = Arc::clone(&self.hall);
        let doors: Vec<Door> = self.doors.iter().map(|(door, _)| *door).collect();
        move || Standing {
            doors: doors.clone(),
            accepting: hall.accepting.load(Relaxed),
            accepted: hall.accepted.load(Relaxed),
            open: hall.workers.accepted(),
            cap: hall.cap.load(Relaxed),
        }
    }

    fn accept(&mut self, ctx: &mut Context<Self>) {
        for (door, socket) in &self.doors {
            self.hall.accepting.store(true, Relaxed);
            let accepting = Arc::clone(&self.hall).accept(*door, Arc::clone(socket)).into_actor(self);
            // One door that fails ends all: half a relay would look like a whole one.
            self.accepting.push(ctx.spawn(accepting.map(|error, listener, ctx| {
                listener.hall.shared.load().telemetry.emit(events::AcceptFailed { error: &error });
                ctx.stop();
            })));
        }
    }

    fn rest(&mut self, ctx: &mut Context<Self>) {
        self.hall.accepting.store(false, Relaxed);
        for accepting in self.accepting.drain(..) {
            ctx.cancel_future(accepting);
        }
    }
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.accept(ctx);
    }
}

impl Hall {
    /// Accepts for ever; ends only where the socket itself has failed.
    async fn accept(self: Arc<Self>, door: Door, socket: Arc<TcpListener>) -> io::Error {
        #[allow(
            deprecated,
            reason = "its successor is unsafe code, for types that lie about their descriptor; a TcpListener does not"
        )]
        let socket = match AsyncFd::new(socket) {
            Ok(socket) => socket,
            Err(e) => return e,
        };
        loop {
            let mut ready = match socket.readable().await {
                Ok(ready) => ready,
                Err(e) => return e,
            };
            while let Ok(accepted) = ready.try_io(|socket| socket.get_ref().accept()) {
                match accepted {
                    Ok((stream, peer)) => self.hand_over(stream, peer, door),
                    Err(e) if is_about_one_client(&e) => {}
                    Err(error) => {
                        // Out of descriptors or memory. The socket stays readable, so without a rest this would spin.
                        self.shared.load().telemetry.emit(events::AcceptFailed { error: &error });
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        }
    }

    fn hand_over(&self, stream: TcpStream, peer: SocketAddr, door: Door) {
        self.accepted.fetch_add(1, Relaxed);
        let peer = unmapped(peer);
        let shared = self.shared.load_full();
        let Some((worker, slot)) = self.workers.place(self.cap.load(Relaxed)) else {
            shared.gate.tally().count(&Refusal::HardCap);
            let reason = Refusal::HardCap.reason();
            // With a reset nothing of it stays in the kernel, and the peer knows at once.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return shared.telemetry.emit(events::SocketRefused { client: peer, reason });
        };
        if stream.set_nonblocking(true).is_ok() {
            let open = shared.telemetry.metrics().connection_opened();
            let accepted = Accepted { stream, peer, at: Instant::now(), door, slot: Box::new((slot, open)) };
            session::start(worker, shared, accepted);
        }
    }
}

/// Errors of accept(2) that concern the one connection, which is gone.
fn is_about_one_client(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset)
        || matches!(
            error.raw_os_error(),
            Some(libc::EPROTO | libc::EPERM | libc::ENETDOWN | libc::EHOSTUNREACH | libc::ENETUNREACH)
        )
}

/// A v4 client on a v6 socket is a v4 client, before anything judges it.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Stop accepting; the kernel keeps new connections until [`Resume`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Pause;

/// Accept again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Resume;

/// From now on, sessions begin with this. Who is in keeps what it has.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Configure {
    /// What they get.
    pub shared: Arc<Shared>,
    /// Most accepted sockets.
    pub cap: usize,
    /// Kernel buffers of their sockets.
    pub tcp: Tcp,
}

/// Close the door for good: the kernel refuses new connections.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// How things stand.
#[derive(Debug, Clone)]
pub struct Standing {
    /// What is listened on.
    pub doors: Vec<Door>,
    /// Whether new sockets are accepted.
    pub accepting: bool,
    /// Sockets accepted since start.
    pub accepted: usize,
    /// Sockets open now.
    pub open: usize,
    /// Most that may be open.
    pub cap: usize,
}

/// For tests: ends the actor as a bug of ours would.
#[doc(hidden)]
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Panic;

impl Handler<Panic> for Listener {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("a test asked for it");
    }
}

impl Handler<Pause> for Listener {
    type Result = ();

    fn handle(&mut self, _: Pause, ctx: &mut Self::Context) {
        self.rest(ctx);
    }
}

impl Handler<Resume> for Listener {
    type Result = ();

    fn handle(&mut self, _: Resume, ctx: &mut Self::Context) {
        if self.accepting.is_empty() {
            self.accept(ctx);
        }
    }
}

impl Handler<Configure> for Listener {
    type Result = ();

    fn handle(&mut self, Configure { shared, cap, tcp }: Configure, _: &mut Self::Context) {
        for (_, socket) in &self.doors {
            // The sizes are within the bounds of the configuration; a kernel that has lower ones uses those.
            let _ = shape_clients(socket, tcp, shared.timeouts.write);
        }
        self.hall.cap.store(cap, Relaxed);
        self.hall.shared.store(shared);
    }
}

impl Handler<Stop> for Listener {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.rest(ctx);
        self.doors.clear();
    }
}
