//! A connection of the origin, from accept to publish or play, and what both need.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::hub::{Hub, Limits};
use super::{Figures, Options, playing, publishing};
use crate::protocol::name::{Action, StreamName};
use crate::protocol::rtmp::chunk::Message;
use crate::protocol::rtmp::command::{self, event, kind};
use crate::protocol::rtmp::server::{Progress, Request, ServerSession};
use crate::protocol::rtmp::tracker::Header;

/// From accept to publish or play.
const PREFACE: Duration = Duration::from_secs(10);
/// Wait when the system has no descriptor for a connection.
const NO_ACCEPT: Duration = Duration::from_millis(100);
/// How long a peer may take to take its last message.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a peer that is done may take to close.
const SEE_OFF: Duration = Duration::from_secs(10);
/// Read at a time before publish or play, bytes.
const PIECE: usize = 4096;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    hub: Mutex<Hub>,
    options: Options,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl Shared {
    pub(super) fn new(options: Options, limits: Limits) -> Self {
        let hub = Mutex::new(Hub::new(limits));
        Self { hub, options, received: AtomicU64::new(0), sent: AtomicU64::new(0) }
    }

    /// The streams; held for one call only.
    pub(super) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> Figures {
        let (streams, players) = self.hub().count();
        Figures { streams, players, received: self.received.load(Relaxed), sent: self.sent.load(Relaxed) }
    }
}

/// Accepts until `stop`; every connection is a task of the runtime that runs this.
pub(super) async fn accept(listener: StdListener, shared: Arc<Shared>, stop: CancellationToken) {
    // Fails only outside a runtime.
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let seats = Arc::new(Semaphore::new(shared.options.connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&seats).try_acquire_owned()) {
            (Ok((stream, _)), Ok(seat)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A peer that goes away ends its own connection, and there is nobody to tell.
                    let _ = connection(stream, &shared).await;
                    drop(seat);
                });
            }
            (Ok(_), Err(_)) => {}
            (Err(_), _) => sleep(NO_ACCEPT).await,
        }
    }
}

/// A peer that has asked for a stream.
pub(super) struct Asked {
    pub(super) stream: TcpStream,
    pub(super) session: ServerSession,
    /// The name everybody knows the stream by, however they split it.
    pub(super) name: Vec<u8>,
    /// Message stream id of the publish or play.
    pub(super) stream_id: u32,
}

async fn connection(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = ServerSession::new(&mut |bytes| rand::fill(bytes));
    let Ok(request) = timeout(PREFACE, negotiate(&mut stream, &mut session)).await else { return Ok(()) };
    let Some(request) = request? else { return farewell(stream).await };
    let name = StreamName::of_rtmp(&request.app, &request.stream).and_then(|name| name.identity());
    let name = match name {
        Ok(name) => name.joined(),
        Err(error) => {
            session.refuse("NetStream.Failed", &error.to_string());
            stream.write_all(&session.take_output()).await?;
            return farewell(stream).await;
        }
    };
    let asked = Asked { stream, session, name, stream_id: request.stream_id };
    match request.action {
        Action::Publish => publishing::publish(asked, shared).await,
        Action::Play => playing::play(asked, shared).await,
    }
}

/// Talks until publish or play is complete. `None`: the peer does not speak RTMP as it should, and has been told.
async fn negotiate(stream: &mut TcpStream, session: &mut ServerSession) -> io::Result<Option<Box<Request>>> {
    let mut piece = [0; PIECE];
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let progress = session.handle_input(&piece[..read]);
        stream.write_all(&session.take_output()).await?;
        match progress {
            Ok(Progress::Requested(request)) => return Ok(Some(request)),
            // It never pauses at connect.
            Ok(Progress::More | Progress::Connecting) => {}
            Ok(Progress::Refused) | Err(_) => return Ok(None),
        }
    }
}

impl Asked {
    /// Says yes: our chunk size, Stream Begin, and each of `codes` as `onStatus`.
    pub(super) async fn accept(&mut self, shared: &Shared, codes: &[(&str, &str)]) -> io::Result<()> {
        let size = shared.options.chunk_size.clamp(1, 0xFF_FFFF);
        self.control(kind::SET_CHUNK_SIZE, &size.to_be_bytes());
        self.control(kind::USER_CONTROL, &command::user_control(event::STREAM_BEGIN, self.stream_id));
        for (code, description) in codes {
            self.session.send_command(STATUS, self.stream_id, &command::on_status("status", code, description));
        }
        self.stream.write_all(&self.session.take_output()).await
    }

    /// Says no, and closes.
    pub(super) async fn refuse(mut self, code: &str, text: &str) -> io::Result<()> {
        self.session.refuse(code, text);
        self.stream.write_all(&self.session.take_output()).await?;
        farewell(self.stream).await
    }

    fn control(&mut self, kind: u8, payload: &[u8]) {
        let header = Header { csid: CONTROL, kind, ..Header::default() };
        self.session.forward(&Message { header, payload: payload.to_vec() });
    }
}

/// Chunk stream of protocol and user control messages (5.4).
pub(super) const CONTROL: u32 = 2;
/// Chunk stream of `onStatus`.
pub(super) const STATUS: u32 = 5;

/// Lets a peer that is done close first: to one that still says goodbye, a close from here is a fault.
pub(super) async fn see_off(mut stream: TcpStream) -> io::Result<()> {
    if timeout(SEE_OFF, discard(&mut stream)).await.is_err() {
        return farewell(stream).await;
    }
    Ok(())
}

/// Closes so that what was sent last arrives: a close with unread data would destroy it.
pub(super) async fn farewell(mut stream: TcpStream) -> io::Result<()> {
    let rest = async {
        stream.shutdown().await?;
        discard(&mut stream).await
    };
    timeout(FAREWELL, rest).await.unwrap_or(Ok(()))
}

async fn discard(stream: &mut TcpStream) -> io::Result<()> {
    let mut piece = [0; PIECE];
    while stream.read(&mut piece).await? > 0 {}
    Ok(())
}
