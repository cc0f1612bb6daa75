//! What can a relay of this shape not go below? One thread, one epoll set, no runtime, no actors, no timers, no limits.
//!
//! `pass` hands the client's connection to the origin and follows both chunk streams by their headers: what ends at a message boundary leaves
//! at once, the rest is held and the socket's SO_RCVLOWAT set to what is missing. `speak` does what the relay does on top of that: it is
//! the server of its client and a client of the origin until both have agreed, and joins the two chunk streams.
//!
//! It is a measure, not a relay: nothing here is authenticated, bounded or timed out.

mod follow;
mod leg;
#[allow(dead_code, unused_imports, reason = "the relay's own, of which some is for others")]
#[path = "../../src/tls/record.rs"]
mod record;
#[path = "../../src/session/sockopt.rs"]
mod sockopt;
mod speak;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{Domain, Socket, Type};
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

use follow::Follow;
use leg::{Leg, pump};
use speak::Speaking;

/// Read at a time.
const BUFFER: usize = 256 * 1024;
const LISTENER: u64 = u64::MAX;

/// One client's two connections: the client's at 0, the origin's at 1.
enum Session {
    Speaking(Box<Speaking>),
    Relaying(Box<[Leg; 2]>),
}

struct Floor {
    epoll: OwnedFd,
    listener: TcpListener,
    origin: SocketAddr,
    manner: Manner,
    tls: Option<Arc<ServerConfig>>,
    sessions: Vec<Option<Session>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

/// What it does with a client.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Passes RTMP.
    Pass,
    /// Passes RTSP.
    PassRtsp,
    /// Answers it.
    Speak,
}

/// `pass`, `pass-rtsp` or `speak`, where to listen, and the origin; behind them certificate and key, where clients speak TLS. Runs until it
/// is killed.
pub fn run(args: &[String]) -> Result<(), String> {
    let [word, listen, origin, papers @ ..] = args else { return Err("--floor WORD LISTEN ORIGIN [CERT KEY]".to_owned()) };
    let manner = match word.as_str() {
        "speak" => Manner::Speak,
        "pass-rtsp" => Manner::PassRtsp,
        _ => Manner::Pass,
    };
    let tls = match papers {
        [cert, key] => Some(super::papers::server(cert.as_ref(), key.as_ref())?),
        _ => None,
    };
    super::machine::raise_descriptor_limit();
    let address = |text: &str| text.parse::<SocketAddr>().map_err(|e| format!("{text}: {e}"));
    let (listen, origin) = (address(listen)?, address(origin)?);
    serve(listen, origin, manner, tls).map_err(|e| e.to_string())
}

fn serve(listen: SocketAddr, origin: SocketAddr, manner: Manner, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&listen.into())?;
    socket.listen(4096)?;
    let listener: TcpListener = socket.into();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut floor =
        Floor { epoll, listener, origin, manner, tls, sessions: Vec::new(), free: Vec::new(), buffer: vec![0; BUFFER] };
    let mut events = Vec::with_capacity(256);
    loop {
        match epoll::wait(&floor.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                LISTENER => floor.accept()?,
                token => floor.session((token / 2) as usize, (token % 2) as usize, event.flags),
            }
        }
    }
}

/// Begins to connect; the socket is writable once it has.
fn connect(origin: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(origin), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&origin.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(socket.into()),
    }
}

impl Floor {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            client.set_nonblocking(true)?;
            let at = self.free.pop().unwrap_or(self.sessions.len());
            let session = self.begin(at, client)?;
            if at == self.sessions.len() {
                self.sessions.push(Some(session));
            } else {
                self.sessions[at] = Some(session);
            }
        }
    }

    fn begin(&self, at: usize, client: TcpStream) -> io::Result<Session> {
        if self.manner == Manner::Speak {
            self.watch(at, 0, &client)?;
            return Ok(Session::Speaking(Box::new(Speaking::new(client))));
        }
        let origin = connect(self.origin)?;
        let rtsp = self.manner == Manner::PassRtsp;
        let follow = || if rtsp { Follow::interleaved() } else { Follow::from_the_start() };
        let [mut client, origin] = [client, origin].map(|socket| Leg::new(socket, follow()));
        if let Some(tls) = &self.tls {
            client = client.in_private(ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?);
        }
        let legs = [client, origin];
        for (side, leg) in legs.iter().enumerate() {
            self.watch(at, side, leg.socket())?;
        }
        Ok(Session::Relaying(Box::new(legs)))
    }

    fn watch(&self, at: usize, side: usize, socket: &TcpStream) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64((2 * at + side) as u64), EventFlags::IN)?)
    }

    fn session(&mut self, at: usize, side: usize, flags: EventFlags) {
        let Some(session) = self.sessions.get_mut(at).and_then(Option::take) else { return };
        match self.step(session, at, side, flags) {
            Ok(Some(session)) => self.sessions[at] = Some(session),
            // Its sockets are closed with it.
            Ok(None) | Err(_) => self.free.push(at),
        }
    }

    fn step(&mut self, session: Session, at: usize, side: usize, flags: EventFlags) -> io::Result<Option<Session>> {
        match session {
            Session::Speaking(speaking) => self.speak(speaking, at, side),
            Session::Relaying(mut legs) => {
                if flags.contains(EventFlags::OUT) {
                    let (sink, source) = both(&mut legs, side);
                    leg::flush(sink, source, &self.epoll, at, side)?;
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    let (source, sink) = both(&mut legs, side);
                    pump(source, sink, &self.epoll, at, side, &mut self.buffer)?;
                }
                let over = legs.iter().all(Leg::is_over);
                Ok((!over).then_some(Session::Relaying(legs)))
            }
        }
    }

    fn speak(&mut self, mut speaking: Box<Speaking>, at: usize, side: usize) -> io::Result<Option<Session>> {
        let asked = speaking.step(side, &mut self.buffer)?;
        if asked {
            let origin = connect(self.origin)?;
            // Writable once connected; that it is readable first is the answer to what is sent then.
            epoll::add(&self.epoll, &origin, EventData::new_u64((2 * at + 1) as u64), EventFlags::OUT)?;
            speaking.dial(origin);
        } else if let Some(origin) = speaking.just_connected() {
            let token = EventData::new_u64((2 * at + 1) as u64);
            epoll::modify(&self.epoll, origin, token, EventFlags::IN)?;
        }
        if !speaking.agreed() {
            return Ok(Some(Session::Speaking(speaking)));
        }
        let (mut legs, rests) = speaking.join();
        for (side, rest) in rests.iter().enumerate() {
            self.buffer[..rest.len()].copy_from_slice(rest);
            let (source, sink) = both(&mut legs, side);
            leg::pass(source, sink, &self.epoll, at, side, &mut self.buffer[..rest.len()], true)?;
        }
        Ok(Some(Session::Relaying(legs)))
    }
}

/// The leg at `side`, and the other.
fn both(legs: &mut [Leg; 2], side: usize) -> (&mut Leg, &mut Leg) {
    let [client, origin] = legs;
    if side == 0 { (client, origin) } else { (origin, client) }
}
