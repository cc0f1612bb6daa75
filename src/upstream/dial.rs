//! The only way to an upstream's socket: resolve, guard, refuse ourselves, connect to exactly what was judged.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnetwork::IpNetwork;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::announce::announce;
use super::guard::{self, Forbidden};
use super::race;
use super::resolve::Resolver;
use super::self_check;
use super::target::{Target, TargetId};
use crate::config::{Config, Dns};
use crate::protocol::proxy::Ends;
use crate::tls::{Client, ConnectError, Stream};

/// A quiet connection is asked for a sign of life after this long, then every [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// What bounds a dial.
#[derive(Debug, Clone)]
pub struct DialSettings {
    /// Networks that the guard lets through.
    pub allowed: Vec<IpNetwork>,
    /// For one dial, from the look-up to the connection, all addresses together. The wait in the queue is not in it.
    pub dial_timeout: Duration,
    /// Dials to one target at a time; more wait in order.
    pub max_dialing: usize,
    /// Longest wait in that queue.
    pub queue_timeout: Duration,
    /// Addresses the relay listens on.
    pub own: Vec<SocketAddr>,
    /// How long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// SO_RCVBUF; none leaves it to the kernel's autotuning.
    pub recv_buffer: Option<usize>,
    /// How long answers of the resolver are good.
    pub dns: Dns,
    /// SO_SNDBUF; none leaves it to the kernel's autotuning.
    pub send_buffer: Option<usize>,
    /// How targets whose scheme is private are met.
    pub private: HashMap<TargetId, Client>,
}

impl Default for DialSettings {
    fn default() -> Self {
        Self {
            allowed: Vec::new(),
            dial_timeout: Duration::from_secs(5),
            max_dialing: 64,
            queue_timeout: Duration::from_secs(20),
            own: Vec::new(),
            user_timeout: Some(Duration::from_secs(60)),
            recv_buffer: None,
            dns: Dns { cache_ttl: Duration::ZERO, stale_ttl: Duration::ZERO },
            send_buffer: None,
            private: HashMap::new(),
        }
    }
}

impl DialSettings {
    /// As the operator chose; `own` are the addresses the relay listens on, known once they are bound.
    pub fn of(config: &Config, own: Vec<SocketAddr>) -> Self {
        let default = Self::default();
        Self {
            allowed: config.security.upstream_allowed_networks.clone(),
            dial_timeout: config.timeouts.dial,
            max_dialing: config.upstream_max_dialing,
            queue_timeout: config.retry.map_or(default.queue_timeout, |retry| retry.total_timeout),
            own,
            user_timeout: Some(config.timeouts.write),
            recv_buffer: config.tcp.recv_buffer,
            dns: config.dns,
            send_buffer: config.tcp.send_buffer,
            private: HashMap::new(),
        }
    }
}

/// Why a dial failed. The text names addresses, never a path, key or query.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Too many dials to this target for too long.
    #[error("waited {0:?} behind other dials to the same upstream")]
    Queue(Duration),
    /// The name has no address, or none in time.
    #[error("the upstream's name does not resolve: {0}")]
    Dns(#[source] io::Error),
    /// No address may be dialled.
    #[error(transparent)]
    Guard(#[from] Forbidden),
    /// An address is one that the relay itself listens on.
    #[error("{0} is the relay itself: it does not relay to itself")]
    Own(SocketAddr),
    /// Nobody listens there.
    #[error("{0} refused the connection")]
    Refused(SocketAddr),
    /// No answer in time.
    #[error("{0} did not answer in time")]
    Timeout(SocketAddr),
    /// The client's own time ran out first.
    #[error("no connection in the {0:?} that were left")]
    Cut(Duration),
    /// Anything else the network said.
    #[error("connecting to {addr} failed: {source}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection stands, and is not private.
    #[error("{addr}: {source}")]
    Tls {
        /// The address.
        addr: SocketAddr,
        /// Which check failed.
        source: ConnectError,
    },
    /// The connection stands, and the TLS handshake did not end in time.
    #[error("{0} did not finish the TLS handshake in time: does it speak TLS on this port?")]
    TlsTimeout(SocketAddr),
    /// This machine lacks what a connection needs: descriptors, ports, memory.
    #[error("this machine cannot open another connection: {0}")]
    Local(#[source] io::Error),
}

impl DialError {
    /// The label for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Queue(_) => "dial_queue",
            Self::Dns(_) => "dns",
            Self::Guard(_) => "guard",
            Self::Own(_) => "self",
            Self::Refused(_) => "connect_refused",
            Self::Timeout(_) | Self::Cut(_) => "connect_timeout",
            Self::Other { .. } => "connect_other",
            Self::Tls { source, .. } => source.kind(),
            Self::TlsTimeout(_) => "tls_timeout",
            Self::Local(_) => "local",
        }
    }

    /// Whether the breaker counts it: it says that the upstream is unwell, not that we may not or cannot dial.
    pub fn counts(&self) -> bool {
        match self {
            Self::Dns(_) | Self::Refused(_) | Self::Timeout(_) | Self::Other { .. } | Self::Tls { .. } | Self::TlsTimeout(_) => {
                true
            }
            Self::Queue(_) | Self::Guard(_) | Self::Own(_) | Self::Cut(_) | Self::Local(_) => false,
        }
    }

    /// Whether another try may end otherwise. What policy refused stays refused.
    pub fn may_retry(&self) -> bool {
        !matches!(self, Self::Guard(_) | Self::Own(_))
    }
}

/// A connection to an upstream: nothing has been written to it but the PROXY header that it expects.
#[derive(Debug)]
pub struct Connected {
    /// The socket, with TCP_NODELAY and keep-alive.
    pub stream: Stream,
    /// The address it reached.
    pub addr: SocketAddr,
    /// From the look-up to the connection.
    pub took: Duration,
    /// From there to the end of the TLS handshake, where there was one.
    pub tls_took: Option<Duration>,
}

impl Connected {
    /// What the whole dial took.
    pub fn spent(&self) -> Duration {
        self.took + self.tls_took.unwrap_or_default()
    }
}

/// Dials targets. Cheap to clone; shared by all workers.
#[derive(Clone)]
pub struct Dialer {
    shared: Arc<Shared>,
    urgent: bool,
}

/// Who dials one target.
#[derive(Clone)]
struct Queue {
    slots: Arc<Semaphore>,
    /// Whoever is in no hurry waits for a slot one at a time, so that of them at most one stands before those who are.
    patient: Arc<Semaphore>,
}

struct Shared {
    settings: DialSettings,
    resolver: Resolver,
    /// One a target; as many as have been dialled, which the configuration bounds.
    queues: Mutex<HashMap<TargetId, Queue>>,
}

/// An address that the guard has judged: nothing else can be connected to.
#[derive(Debug, Clone, Copy)]
struct Judged(SocketAddr);

impl Queue {
    fn new(max_dialing: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(max_dialing.max(1))), patient: Arc::new(Semaphore::new(1)) }
    }

    async fn slot(self, urgent: bool) -> Result<OwnedSemaphorePermit, AcquireError> {
        let _first = if urgent { None } else { Some(self.patient.acquire().await?) };
        self.slots.acquire_owned().await
    }
}

impl Dialer {
    /// A dialer that asks the system's resolver.
    pub fn new(settings: DialSettings) -> Self {
        let resolver = Resolver::system(settings.dns);
        Self::with(settings, resolver)
    }

    /// A dialer that asks `resolver`.
    pub fn with(settings: DialSettings, resolver: Resolver) -> Self {
        Self { shared: Arc::new(Shared { settings, resolver, queues: Mutex::default() }), urgent: false }
    }

    /// The same dialer for those who go before others in the queues.
    #[must_use]
    pub fn urgent(&self) -> Self {
        Self { urgent: true, ..self.clone() }
    }

    /// Opens a connection to `target` on the relay's own behalf, to see whether somebody is there.
    ///
    /// # Errors
    /// As [`Self::connect_for`].
    pub async fn connect(&self, target: &Target) -> Result<Connected, DialError> {
        self.connect_for(target, None).await
    }

    /// Opens a connection to `target` for the client with these `ends`, of whom a PROXY header tells where the target expects one. Dropping
    /// the future gives everything back at once, its place in the queue too.
    ///
    /// # Errors
    /// [`DialError`]. Addresses of both families take turns, in the resolver's order, and the next starts before the last has failed;
    /// the last error is told.
    pub async fn connect_for(&self, target: &Target, ends: Option<Ends>) -> Result<Connected, DialError> {
        let _slot = self.queue(target.id).await?;
        self.open(target, ends).await
    }

    /// Opens a connection on the relay's own behalf without a place in the queue, for what bounds itself: checks must not fail because
    /// many dial.
    ///
    /// # Errors
    /// [`DialError`].
    pub(super) async fn connect_unqueued(&self, target: &Target) -> Result<Connected, DialError> {
        self.open(target, None).await
    }

    async fn open(&self, target: &Target, ends: Option<Ends>) -> Result<Connected, DialError> {
        let began = Instant::now();
        let deadline = began + self.shared.settings.dial_timeout;
        let (stream, addr) = self.reach(target, ends, deadline).await?;
        let took = began.elapsed();
        if !target.url.scheme().is_private() {
            return Ok(Connected { stream: stream.into(), addr, took, tls_took: None });
        }
        let shaken = timeout_at(deadline, self.shake_hands(target, stream, addr)).await;
        let stream = shaken.unwrap_or(Err(DialError::TlsTimeout(addr)))?;
        Ok(Connected { stream, addr, took, tls_took: Some(began.elapsed().saturating_sub(took)) })
    }

    /// Whether a TCP connection can be had, and nothing more.
    ///
    /// # Errors
    /// [`DialError`].
    pub(super) async fn look(&self, target: &Target) -> Result<(), DialError> {
        self.reach(target, None, Instant::now() + self.shared.settings.dial_timeout).await.map(drop)
    }

    /// Look-up, guard, TCP, and the PROXY header where the target expects one.
    async fn reach(&self, target: &Target, ends: Option<Ends>, deadline: Instant) -> Result<(TcpStream, SocketAddr), DialError> {
        let (host, port) = (target.url.host(), target.url.port());
        let addresses = timeout_at(deadline, self.shared.resolver.resolve(host, port))
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
            .map_err(DialError::Dns)?;
        let judged = self.judge(&addresses)?;
        let connected = self.connect_first(&judged, deadline).await;
        if connected.as_ref().is_err_and(DialError::counts) {
            self.shared.resolver.doubt(host, port);
        }
        let (mut stream, addr) = connected?;
        announce(&mut stream, target.proxy_protocol, ends).await.map_err(|e| classify(addr, e))?;
        Ok((stream, addr))
    }

    async fn shake_hands(&self, target: &Target, stream: TcpStream, addr: SocketAddr) -> Result<Stream, DialError> {
        let client = self.shared.settings.private.get(&target.id).zip(target.url.host().server_name());
        // Whoever makes a dialer for upstreams of such a scheme gives it the clients too.
        let (client, name) = client.ok_or_else(|| DialError::Local(io::Error::other("TLS is not set up for this upstream")))?;
        client.connect(stream, &name).await.map_err(|source| DialError::Tls { addr, source })
    }

    /// The bound on one dial.
    pub fn dial_timeout(&self) -> Duration {
        self.shared.settings.dial_timeout
    }

    async fn queue(&self, target: TargetId) -> Result<OwnedSemaphorePermit, DialError> {
        let Shared { settings, queues, .. } = &*self.shared;
        let queue = {
            let mut queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.entry(target).or_insert_with(|| Queue::new(settings.max_dialing)).clone()
        };
        match timeout(settings.queue_timeout, queue.slot(self.urgent)).await {
            Ok(Ok(slot)) => Ok(slot),
            // The semaphores are never closed; a closed one would be a full one.
            Ok(Err(_)) | Err(_) => Err(DialError::Queue(settings.queue_timeout)),
        }
    }

    /// Leaves out what the guard refuses; an answer with our own door in it is refused as a whole.
    fn judge(&self, addresses: &[SocketAddr]) -> Result<Vec<Judged>, DialError> {
        let Shared { settings, .. } = &*self.shared;
        if let Some(&own) = addresses.iter().find(|&&address| self_check::is_own(address, &settings.own)) {
            return Err(DialError::Own(own));
        }
        let mut judged = Vec::new();
        let mut refused = None;
        for &address in addresses {
            match guard::judge(address.ip(), &settings.allowed) {
                Ok(()) => judged.push(Judged(address)),
                Err(forbidden) => refused = refused.or(Some(forbidden)),
            }
        }
        match refused {
            Some(forbidden) if judged.is_empty() => Err(forbidden.into()),
            _ => Ok(judged),
        }
    }

    async fn connect_first(&self, addresses: &[Judged], deadline: Instant) -> Result<(TcpStream, SocketAddr), DialError> {
        let mut told: Option<DialError> = None;
        let failed = |Judged(addr): Judged, error: Option<io::Error>| {
            let error = error.map_or(DialError::Timeout(addr), |error| classify(addr, error));
            // What says something about the upstream is told rather than what says something about us, as that there is no IPv6 here.
            if error.counts() || !told.as_ref().is_some_and(DialError::counts) {
                told = Some(error);
            }
        };
        let order = race::alternated(addresses, |Judged(addr)| addr);
        match race::first(&order, (race::STAGGER, deadline), |judged| self.connect_one(judged), failed).await {
            Some((Judged(addr), stream)) => Ok((stream, addr)),
            None => {
                Err(told.unwrap_or_else(|| DialError::Dns(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))))
            }
        }
    }

    async fn connect_one(&self, Judged(addr): Judged) -> io::Result<TcpStream> {
        let settings = &self.shared.settings;
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_nodelay(true)?;
        let raw = SockRef::from(&socket);
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
        raw.set_tcp_keepalive(&keepalive)?;
        raw.set_tcp_user_timeout(settings.user_timeout)?;
        // Buffers must be set before the handshake, which announces the window's scale.
        if let Some(bytes) = settings.recv_buffer {
            raw.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = settings.send_buffer {
            raw.set_send_buffer_size(bytes)?;
        }
        let stream = socket.connect(addr).await?;
        // On this machine the kernel may pick the very port that it dials, and the socket is connected to itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    }
}

fn classify(addr: SocketAddr, error: io::Error) -> DialError {
    let ours = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT];
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused(addr),
        io::ErrorKind::TimedOut => DialError::Timeout(addr),
        _ if error.raw_os_error().is_some_and(|errno| ours.contains(&errno)) => DialError::Local(error),
        _ => DialError::Other { addr, source: error },
    }
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "dial_tls_tests.rs"]
mod tls_tests;
