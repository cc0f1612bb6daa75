//! Publishers, players and their origin, in one process.
//!
//! Two threads: one sends segments at their times from a heap, the other receives everything and does the handshakes. A stream's source is
//! the publisher's socket, or for players the origin's.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay::protocol::rtmp::amf0::Value;
use relay::protocol::rtmp::chunk::Writer;
use relay::protocol::rtmp::client::{Answer, ClientSession};
use relay::protocol::rtmp::command::{self, Command, kind};
use relay::protocol::rtmp::server::{Progress, ServerSession};
use relay::protocol::rtmp::tracker::{Limits, Step, Tracker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};

/// A TCP segment on an Ethernet path.
const SEGMENT: usize = 1448;
/// Larger than any frame: a frame is one chunk.
const CHUNK_SIZE: u32 = 1 << 20;
/// One AAC message, with its header.
const AUDIO: usize = 340;

/// How a stream's bytes come.
#[derive(Clone, Copy)]
pub struct Flow {
    /// Payload of a video message, bytes.
    pub frame: usize,
    /// Frames a second.
    pub fps: u32,
    /// Time from a frame's first segment to its last.
    pub spread: Duration,
    /// AAC between the frames, 47 messages a second.
    pub audio: bool,
}

/// Which way the stream goes through the target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Client to origin.
    Publish,
    /// Origin to client.
    Play,
}

struct Shared {
    start: Instant,
    measuring: AtomicBool,
    bytes: AtomicU64,
    latencies: Mutex<Vec<u32>>,
    end: AtomicBool,
    /// Sources of played streams: the origin's sockets go here.
    sources: Mutex<Option<(Sender<Source>, Flow)>>,
}

impl Shared {
    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

/// A socket that streams are written to.
struct Source {
    socket: std::net::TcpStream,
    flow: Flow,
}

/// See the module.
pub struct Load {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    origin: SocketAddr,
    send: Sender<Source>,
    sender: Option<JoinHandle<()>>,
    kept: Mutex<Vec<TcpStream>>,
}

fn text(e: impl ToString) -> String {
    e.to_string()
}

impl Load {
    /// Starts the origin and the sender.
    pub fn start() -> Result<Self, String> {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            measuring: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            latencies: Mutex::default(),
            end: AtomicBool::new(false),
            sources: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(text)?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(text)?;
        socket2::SockRef::from(&listener).listen(4096).map_err(text)?;
        listener.set_nonblocking(true).map_err(text)?;
        let origin = listener.local_addr().map_err(text)?;
        runtime.spawn(serve_origin(listener, Arc::clone(&shared)));
        let (send, receive) = channel();
        let sender = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || send_all(&receive, &shared)
        });
        Ok(Self { shared, runtime: Some(runtime), origin, send, sender: Some(sender), kept: Mutex::default() })
    }

    /// Where targets connect to.
    pub fn origin(&self) -> SocketAddr {
        self.origin
    }

    /// Starts `count` streams through `target`.
    pub fn streams(&self, target: SocketAddr, count: usize, flow: Flow, side: Side) -> Result<(), String> {
        *self.shared.sources.lock().map_err(text)? = Some((self.send.clone(), flow));
        for i in 0..count {
            let action = if side == Side::Publish { "publish" } else { "play" };
            let (socket, rest) = self.handle().block_on(introduce(target, action, i)).map_err(text)?;
            if side == Side::Publish {
                let socket = socket.into_std().map_err(text)?;
                self.send.send(Source { socket, flow }).map_err(text)?;
            } else {
                self.handle().spawn(receive(socket, Tracker::new(Limits::MEDIA), rest, Arc::clone(&self.shared), true));
            }
        }
        Ok(())
    }

    /// Starts `count` publishers that send as fast as they are taken.
    pub fn unpaced(&self, target: SocketAddr, count: usize) -> Result<(), String> {
        let shared = &self.shared;
        for i in 0..count {
            let (mut socket, _) = self.handle().block_on(introduce(target, "publish", i)).map_err(text)?;
            let shared = Arc::clone(shared);
            self.handle().spawn(async move {
                let frame: Vec<u8> = (0..16).flat_map(|_| video(10_124, 0)).collect();
                while !shared.end.load(Relaxed) {
                    if socket.write_all(&frame).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(())
    }

    /// Opens, publishes a frame and closes, `at_once` at a time, for `time`. The number, and the set-up times in µs.
    pub fn sessions(&self, target: SocketAddr, at_once: usize, time: Duration) -> Result<(usize, Vec<u32>), String> {
        let until = Instant::now() + time;
        let one = move |i: usize| async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let start = Instant::now();
                let Ok((mut socket, _)) = introduce(target, "publish", i).await else { continue };
                times.push(start.elapsed().as_micros() as u32);
                let _ = socket.write_all(&video(1000, 0)).await;
                let _ = socket.shutdown().await;
                let mut rest = [0; 256];
                while matches!(socket.read(&mut rest).await, Ok(n) if n > 0) {}
            }
            times
        };
        let tasks: Vec<_> = (0..at_once).map(|i| self.handle().spawn(one(i))).collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(self.handle().block_on(task).map_err(text)?);
        }
        if times.is_empty() { Err("no session".to_owned()) } else { Ok((times.len(), times)) }
    }

    /// Opens published sessions that stay silent.
    pub fn idle(&self, target: SocketAddr, count: usize) -> Result<(), String> {
        for i in 0..count {
            let (mut socket, _) = self.handle().block_on(introduce(target, "publish", i)).map_err(text)?;
            self.handle().block_on(socket.write_all(&video(5000, 0))).map_err(text)?;
            self.kept.lock().map_err(text)?.push(socket);
        }
        Ok(())
    }

    /// Counts from now.
    pub fn begin(&self) {
        self.shared.bytes.store(0, Relaxed);
        if let Ok(mut latencies) = self.shared.latencies.lock() {
            latencies.clear();
        }
        self.shared.measuring.store(true, Relaxed);
    }

    /// Bytes received, and latencies in µs.
    pub fn end(&self) -> (u64, Vec<u32>) {
        self.shared.measuring.store(false, Relaxed);
        let latencies = self.shared.latencies.lock().map(|mut l| std::mem::take(&mut *l)).unwrap_or_default();
        (self.shared.bytes.load(Relaxed), latencies)
    }

    fn handle(&self) -> &Handle {
        self.runtime.as_ref().map(Runtime::handle).expect("there until it is dropped")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.end.store(true, Relaxed);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
        self.sender.take().map(JoinHandle::join);
    }
}

fn script(action: &str, number: usize) -> Vec<relay::protocol::rtmp::chunk::Message> {
    let message = |stream_id, command: &Command| relay::protocol::rtmp::chunk::Message {
        header: relay::protocol::rtmp::tracker::Header { csid: 3, kind: kind::COMMAND, stream_id, ..Default::default() },
        payload: command.encode(),
    };
    let size = relay::protocol::rtmp::chunk::Message {
        header: relay::protocol::rtmp::tracker::Header { csid: 2, kind: kind::SET_CHUNK_SIZE, ..Default::default() },
        payload: CHUNK_SIZE.to_be_bytes().to_vec(),
    };
    let object = [("app", "live"), ("tcUrl", "rtmp://127.0.0.1/live")].map(|(k, v)| (k.as_bytes().to_vec(), Value::string(v)));
    let name = Value::string(format!("s{number}?token=bench"));
    vec![
        message(0, &Command::new("connect", 1.0, vec![Value::Object(object.to_vec())])),
        size,
        message(0, &Command::new("createStream", 2.0, vec![Value::Null])),
        message(1, &Command::new(action, 3.0, vec![Value::Null, name, Value::string("live")])),
    ]
}

/// Connects and publishes or plays; the socket, and what came behind the answer.
async fn introduce(target: SocketAddr, action: &str, number: usize) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut socket = TcpStream::connect(target).await?;
    socket.set_nodelay(true)?;
    let mut session = ClientSession::new(script(action, number), 1, &mut |bytes| bytes.fill(1));
    let mut piece = [0; 4096];
    loop {
        socket.write_all(&session.take_output()).await?;
        let read = socket.read(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match session.handle_input(&piece[..read]).map_err(io::Error::other)? {
            Answer::More => {}
            Answer::Started => return Ok((socket, session.into_parts().rest)),
            Answer::Refused { code, .. } => return Err(io::Error::other(code)),
        }
    }
}

async fn serve_origin(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve_one(socket, Arc::clone(&shared)));
    }
}

async fn serve_one(mut socket: TcpStream, shared: Arc<Shared>) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut session = ServerSession::new(&mut |bytes| bytes.fill(2));
    let mut piece = [0; 4096];
    let request = loop {
        let read = socket.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        let progress = session.handle_input(&piece[..read]).ok()?;
        socket.write_all(&session.take_output()).await.ok()?;
        if let Progress::Requested(request) = progress {
            break request;
        }
    };
    let play = request.action.as_str() == "play";
    let code = if play { "NetStream.Play.Start" } else { "NetStream.Publish.Start" };
    session.send_command(5, 1, &command::on_status("status", code, "go"));
    socket.write_all(&session.take_output()).await.ok()?;
    if play {
        let mut writer = Writer::default();
        let mut size = Vec::new();
        writer.write(&mut size, 2, 0, kind::SET_CHUNK_SIZE, 0, &CHUNK_SIZE.to_be_bytes());
        socket.write_all(&size).await.ok()?;
        let (send, flow) = shared.sources.lock().ok()?.clone()?;
        let socket = socket.into_std().ok()?;
        return send.send(Source { socket, flow }).ok();
    }
    let parts = session.into_parts();
    receive(socket, parts.sender.0, parts.rest, shared, false).await;
    Some(())
}

/// Reads a stream to its end; each frame's last 8 bytes say when its last segment was sent.
async fn receive(mut socket: TcpStream, mut tracker: Tracker, rest: Vec<u8>, shared: Arc<Shared>, _play: bool) {
    tracker.set_limits(Limits::MEDIA);
    let mut buffer = vec![0; 256 * 1024];
    let mut held = rest.len();
    buffer[..held].copy_from_slice(&rest);
    let mut tail = [0u8; 8];
    loop {
        let mut at = 0;
        while let Ok(step) = tracker.next(&buffer[at..held]) {
            match step {
                Step::NeedMore => break,
                Step::Header { length, .. } => at += length,
                Step::Payload { slot, length, last } => {
                    let payload = &buffer[at..at + length];
                    for &byte in &payload[length.saturating_sub(8)..] {
                        tail.rotate_left(1);
                        tail[7] = byte;
                    }
                    at += length;
                    if last && tracker.header(slot).kind == kind::VIDEO && shared.measuring.load(Relaxed) {
                        let sent = u64::from_be_bytes(tail);
                        let latency = shared.now_us().saturating_sub(sent);
                        if let Ok(mut latencies) = shared.latencies.lock() {
                            latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
                        }
                    }
                }
            }
        }
        buffer.copy_within(at..held, 0);
        held -= at;
        match socket.read(&mut buffer[held..]).await {
            Ok(read) if read > 0 => {
                held += read;
                if shared.measuring.load(Relaxed) {
                    shared.bytes.fetch_add(read as u64, Relaxed);
                }
            }
            _ => return,
        }
    }
}

fn video(length: usize, timestamp: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.set_chunk_size(CHUNK_SIZE);
    let mut out = Vec::new();
    writer.write(&mut out, 6, timestamp, kind::VIDEO, 1, &vec![0x27; length]);
    out
}

fn audio(timestamp: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.set_chunk_size(CHUNK_SIZE);
    let mut out = Vec::new();
    writer.write(&mut out, 4, timestamp, kind::AUDIO, 1, &[0xAF; AUDIO - 12]);
    out
}

/// A stream on its way: what is left of the message in progress, and when the next ones are due.
struct Stream {
    socket: std::net::TcpStream,
    flow: Flow,
    message: Vec<u8>,
    sent: usize,
    next_frame: u64,
    next_audio: u64,
    step: u64,
    is_video: bool,
}

impl Stream {
    fn new(source: Source, now: u64, number: u64) -> Self {
        let Source { socket, flow } = source;
        let _ = socket.set_nonblocking(true);
        // Phases are spread, so that frames of different streams do not come together.
        let phase = now + (number * 7_919) % 33_333;
        Self {
            socket,
            flow,
            message: Vec::new(),
            sent: 0,
            next_frame: phase,
            next_audio: phase + 5_000,
            step: 0,
            is_video: false,
        }
    }

    /// Sends the segment that is due at `due`; when the next one is, or `None` at the end.
    fn send(&mut self, due: u64, shared: &Shared) -> Option<u64> {
        if self.sent == self.message.len() {
            self.begin(due);
        }
        let end = (self.sent + SEGMENT).min(self.message.len());
        if end == self.message.len() && self.is_video {
            let stamp = shared.now_us().to_be_bytes();
            self.message[end - 8..].copy_from_slice(&stamp);
        }
        match self.socket.write(&self.message[self.sent..end]) {
            Ok(sent) => self.sent += sent,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Some(due + 1_000),
            Err(_) => return None,
        }
        if self.sent < self.message.len() {
            return Some(due + self.step);
        }
        Some(self.next_frame.min(if self.flow.audio { self.next_audio } else { u64::MAX }).max(due))
    }

    fn begin(&mut self, due: u64) {
        self.sent = 0;
        let timestamp = (due / 1000) as u32;
        self.is_video = !self.flow.audio || self.next_frame <= self.next_audio;
        if self.is_video {
            self.message = video(self.flow.frame, timestamp);
            let segments = self.message.len().div_ceil(SEGMENT) as u64;
            self.step = self.flow.spread.as_micros() as u64 / (segments - 1).max(1);
            self.next_frame += 1_000_000 / u64::from(self.flow.fps);
        } else {
            self.message = audio(timestamp);
            self.next_audio += 1_000_000 / 47;
        }
    }
}

fn send_all(receive: &Receiver<Source>, shared: &Shared) {
    let mut streams: Vec<Stream> = Vec::new();
    let mut due: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    while !shared.end.load(Relaxed) {
        while let Ok(source) = receive.try_recv() {
            let stream = Stream::new(source, shared.now_us(), streams.len() as u64);
            due.push(Reverse((stream.next_frame, streams.len())));
            streams.push(stream);
        }
        let now = shared.now_us();
        match due.peek() {
            Some(&Reverse((at, index))) if at <= now => {
                due.pop();
                if let Some(next) = streams[index].send(at, shared) {
                    due.push(Reverse((next, index)));
                }
            }
            next => {
                let wait = next.map_or(5_000, |Reverse((at, _))| (at - now).min(5_000));
                std::thread::sleep(Duration::from_micros(wait));
            }
        }
    }
}
