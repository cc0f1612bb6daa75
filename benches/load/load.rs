//! Publishers, players and their origin, in one process.
//!
//! Handshakes are tokio's; then sockets go to the [`Engine`]'s thread. A stream's source is the publisher's socket, or for players the
//! origin's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay::protocol::rtmp::command::kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use super::engine::{Engine, Order};
use super::gauges::Gauges;
use super::media::{self, Media, Wire};
use super::sink::{Reader, Sink};
use super::speech::{self, Asked};
use super::stream::Source;

/// Handshakes at a time while streams are set up.
const AT_ONCE: usize = 16;
/// Longest time until every stream has reached its other end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which way the stream goes through the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Client to origin.
    Publish,
    /// Origin to client.
    Play,
}

/// What the origin does with who has been introduced.
#[derive(Clone)]
enum Fate {
    /// It is read to its end, and forgotten.
    Drained,
    /// The engine has it; a player gets this.
    Streams(Option<Media>),
}

struct Origin {
    fate: Mutex<Fate>,
    orders: Sender<Order>,
}

/// See the module.
pub struct Load {
    /// What is counted.
    pub gauges: Arc<Gauges>,
    runtime: Option<Runtime>,
    address: SocketAddr,
    origin: Arc<Origin>,
    engine: Option<JoinHandle<io::Result<()>>>,
    kept: Mutex<Vec<TcpStream>>,
    tls: Option<Arc<ClientConfig>>,
}

fn text(e: impl ToString) -> String {
    e.to_string()
}

impl Load {
    /// Starts the origin and the engine. With `tls` clients speak TLS.
    pub fn start(sleepy: bool, tls: Option<Arc<ClientConfig>>) -> Result<Self, String> {
        let gauges = Arc::new(Gauges::new());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(text)?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(text)?;
        socket2::SockRef::from(&listener).listen(4096).map_err(text)?;
        listener.set_nonblocking(true).map_err(text)?;
        let address = listener.local_addr().map_err(text)?;
        let (orders, receive) = channel();
        let origin = Arc::new(Origin { fate: Mutex::new(Fate::Drained), orders });
        runtime.spawn(serve(listener, Arc::clone(&origin)));
        let engine = Engine::new(Arc::clone(&gauges), sleepy).map_err(text)?;
        let engine = std::thread::spawn(move || engine.run(&receive));
        Ok(Self { gauges, runtime: Some(runtime), address, origin, engine: Some(engine), kept: Mutex::default(), tls })
    }

    /// Where targets connect to.
    pub fn origin(&self) -> SocketAddr {
        self.address
    }

    /// Sets up `count` streams through `target`, and waits until each has reached its other end. They are silent until
    /// [`Self::activate`].
    pub fn streams(&self, target: SocketAddr, count: usize, media: Media, side: Side) -> Result<(), String> {
        *self.origin.fate.lock().map_err(text)? = Fate::Streams(Some(media));
        self.set_up(count, |number| one_stream(self.client(target), number, media, side))?;
        self.settle(count)
    }

    /// Starts `count` publishers that send as fast as they are taken.
    pub fn unpaced(&self, target: SocketAddr, count: usize) -> Result<(), String> {
        *self.origin.fate.lock().map_err(text)? = Fate::Streams(None);
        self.set_up(count, |number| {
            let client = self.client(target);
            async move {
                let (socket, tls) = client.publish(number, Wire::Rtmp).await?;
                client.hand_over(Order::Send(Source { socket: socket.into_std()?, tls, media: None }))
            }
        })?;
        self.gauges.active.store(count, Relaxed);
        self.settle(count)
    }

    /// Lets the first `count` streams flow, and silences the others behind their message in progress.
    pub fn activate(&self, count: usize) {
        self.gauges.active.store(count, Relaxed);
    }

    /// Opens, publishes a frame and closes, `at_once` at a time, for `time`. The set-up times, µs, sorted.
    pub fn sessions(&self, target: SocketAddr, at_once: usize, time: Duration) -> Result<Vec<u32>, String> {
        let until = Instant::now() + time;
        let tasks: Vec<_> = (0..at_once).map(|i| self.handle().spawn(sessions(target, i, until))).collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(self.handle().block_on(task).map_err(text)?);
        }
        times.sort_unstable();
        if times.is_empty() { Err("no session".to_owned()) } else { Ok(times) }
    }

    /// Opens published sessions that stay silent. No other stream has a number from `first` on.
    pub fn idle(&self, target: SocketAddr, first: usize, count: usize) -> Result<(), String> {
        self.set_up(count, |number| async move {
            let mut socket = connect(target).await?;
            speech::rtmp_client(&mut socket, "publish", first + number).await?;
            socket.write_all(&media::rtmp(6, kind::VIDEO, &[0x27; 5000])).await?;
            self.kept.lock().map_err(|e| io::Error::other(e.to_string()))?.push(socket);
            Ok(())
        })
    }

    /// Runs `one` for each number below `count`, some at a time.
    fn set_up<F: Future<Output = io::Result<()>>>(&self, count: usize, one: impl Fn(usize) -> F) -> Result<(), String> {
        use futures_util::{StreamExt, TryStreamExt};
        let all = futures_util::stream::iter((0..count).map(one)).buffer_unordered(AT_ONCE).try_collect::<()>();
        self.handle().block_on(all).map_err(text)
    }

    /// Waits until the engine has both ends of `count` streams.
    fn settle(&self, count: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let (sources, sinks) = (&self.gauges.sources, &self.gauges.sinks);
        while sources.load(Relaxed).min(sinks.load(Relaxed)) < count {
            if Instant::now() > deadline {
                let (sources, sinks) = (sources.load(Relaxed), sinks.load(Relaxed));
                return Err(format!("of {count} streams {sources} begin and {sinks} reach their end"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn client(&self, target: SocketAddr) -> Client {
        Client { target, tls: self.tls.clone(), origin: Arc::clone(&self.origin) }
    }

    fn handle(&self) -> &Handle {
        self.runtime.as_ref().map(Runtime::handle).expect("there until it is dropped")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.gauges.end.store(true, Relaxed);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
        if let Some(Ok(Err(e))) = self.engine.take().map(JoinHandle::join) {
            eprintln!("the generator stopped: {e}");
        }
    }
}

/// Who connects to the target.
struct Client {
    target: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    origin: Arc<Origin>,
}

impl Client {
    /// A publisher that has been let in, and its TLS where there is one.
    async fn publish(&self, number: usize, wire: Wire) -> io::Result<(TcpStream, Option<Box<ClientConnection>>)> {
        let mut socket = connect(self.target).await?;
        if let Some(config) = &self.tls {
            let name = ServerName::IpAddress(self.target.ip().into());
            let mut private = TlsConnector::from(Arc::clone(config)).connect(name, socket).await?;
            speech::rtmp_client(&mut private, "publish", number).await?;
            let (socket, tls) = private.into_inner();
            return Ok((socket, Some(Box::new(tls))));
        }
        match wire {
            Wire::Rtmp => speech::rtmp_client(&mut socket, "publish", number).await.map(drop)?,
            Wire::Rtsp => speech::rtsp_client(&mut socket, &self.target.to_string(), number).await?,
        }
        Ok((socket, None))
    }

    fn hand_over(&self, order: Order) -> io::Result<()> {
        self.origin.orders.send(order).map_err(|_| io::Error::other("the generator has stopped"))
    }
}

async fn one_stream(client: Client, number: usize, media: Media, side: Side) -> io::Result<()> {
    if side == Side::Publish {
        let (socket, tls) = client.publish(number, media.wire).await?;
        return client.hand_over(Order::Send(Source { socket: socket.into_std()?, tls, media: Some(media) }));
    }
    let mut socket = connect(client.target).await?;
    let (tracker, rest) = speech::rtmp_client(&mut socket, "play", number).await?;
    client.hand_over(Order::Receive(Sink::new(socket.into_std()?, Reader::rtmp(tracker), rest)))
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(target).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn sessions(target: SocketAddr, number: usize, until: Instant) -> Vec<u32> {
    let frame = media::rtmp(6, kind::VIDEO, &[0x27; 1000]);
    let mut times = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        let Ok(mut socket) = connect(target).await else { continue };
        if speech::rtmp_client(&mut socket, "publish", number).await.is_err() {
            continue;
        }
        times.push(start.elapsed().as_micros() as u32);
        let _ = socket.write_all(&frame).await;
        let _ = socket.shutdown().await;
        drain(socket).await;
    }
    times
}

async fn drain(mut socket: TcpStream) {
    let mut piece = [0; 4096];
    while matches!(socket.read(&mut piece).await, Ok(n) if n > 0) {}
}

async fn serve(listener: std::net::TcpListener, origin: Arc<Origin>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve_one(socket, Arc::clone(&origin)));
    }
}

async fn serve_one(mut socket: TcpStream, origin: Arc<Origin>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut first = Vec::with_capacity(4096);
    socket.read_buf(&mut first).await?;
    // RTMP begins with its version, 3; RTSP with a word.
    let (asked, reader, rest) = if first.first() == Some(&3) {
        let (asked, tracker, rest) = speech::rtmp_origin(&mut socket, first).await?;
        (asked, Reader::rtmp(tracker), rest)
    } else {
        let rest = speech::rtsp_origin(&mut socket, first).await?;
        (Asked::Publish, Reader::rtsp(), rest)
    };
    let fate = origin.fate.lock().map(|fate| fate.clone()).unwrap_or(Fate::Drained);
    let order = match (fate, asked) {
        (Fate::Drained, _) => {
            drain(socket).await;
            return Ok(());
        }
        (Fate::Streams(media), Asked::Play) => Order::Send(Source { socket: socket.into_std()?, tls: None, media }),
        (Fate::Streams(_), Asked::Publish) => Order::Receive(Sink::new(socket.into_std()?, reader, rest)),
    };
    let _ = origin.orders.send(order);
    Ok(())
}
