//! One end of a connection that says its part until, at a point that was drawn, it does what no peer should.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::chance::Chance;
use crate::wait::pace;

/// How often a peer that waits looks whether the plan is over.
const LOOK: Duration = Duration::from_millis(20);
/// Most bytes that are said one by one.
const TRICKLED: usize = 300;

/// What a peer does that it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Says nothing more, and goes on reading.
    Stall,
    /// Neither says nor reads anything more.
    Deaf,
    /// Says what it has to say byte by byte, and goes on behind it.
    Trickle,
    Reset,
    /// Ends its own direction, and goes on reading.
    HalfClose,
    Close,
    /// Says something random, and waits for what comes of it.
    Garbage,
}

impl Fault {
    pub(super) const ALL: [Self; 7] =
        [Self::Stall, Self::Deaf, Self::Trickle, Self::Reset, Self::HalfClose, Self::Close, Self::Garbage];
}

/// Where in a connection's life. Not every peer comes to every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before anything is said.
    Connected,
    /// The PROXY header.
    Preface,
    /// A client's TLS hello.
    Tls,
    /// C0 and C1, or S0 to S2; over RTSP the first request.
    Hello,
    /// C2.
    Echo,
    /// connect; OPTIONS.
    Connect,
    /// createStream; SETUP.
    Create,
    /// publish or play; ANNOUNCE or DESCRIBE.
    Request,
    /// RECORD or PLAY.
    Begin,
    /// Media, or what the other direction says meanwhile.
    Media,
    Ending,
}

/// The point: in the phase, in which saying of it, and how far into that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) phase: Phase,
    pub(super) nth: usize,
    pub(super) permille: usize,
    pub(super) fault: Fault,
}

/// It is over: by the fault, by the other side, or with the plan.
pub(super) struct Over;

enum Wire {
    Plain(TcpStream),
    Private(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// See the module.
pub(super) struct Mouth {
    wire: Wire,
    cut: Option<Cut>,
    chance: Chance,
    plan_over: Arc<AtomicBool>,
}

impl Mouth {
    pub(super) fn new(socket: TcpStream, cut: Option<Cut>, chance: Chance, plan_over: &Arc<AtomicBool>) -> Self {
        socket.set_nodelay(true).expect("a socket takes no-delay");
        socket.set_read_timeout(Some(LOOK)).expect("a socket takes a timeout");
        socket.set_write_timeout(Some(LOOK)).expect("a socket takes a timeout");
        if cut.is_some_and(|cut| cut.fault == Fault::Deaf) {
            // What it does not read must not fit into its socket.
            let _ = SockRef::from(&socket).set_recv_buffer_size(8192);
        }
        Self { wire: Wire::Plain(socket), cut, chance, plan_over: Arc::clone(plan_over) }
    }

    /// Goes behind TLS.
    pub(super) fn private(self, mut tls: ClientConnection) -> Result<Self, Over> {
        let Self { wire: Wire::Plain(mut socket), cut, chance, plan_over } = self else { return Err(Over) };
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).map_err(|_| Over)?;
        let mut bare = Self { wire: Wire::Plain(socket.try_clone().map_err(|_| Over)?), cut, chance, plan_over };
        bare.say(Phase::Tls, &hello)?;
        while tls.is_handshaking() {
            match tls.complete_io(&mut socket) {
                Ok(_) => {}
                Err(e) if is_later(&e) && !bare.plan_over.load(SeqCst) => {}
                Err(_) => return Err(Over),
            }
        }
        let Self { cut, chance, plan_over, .. } = bare;
        Ok(Self { wire: Wire::Private(Box::new(StreamOwned::new(tls, socket))), cut, chance, plan_over })
    }

    /// Says `bytes`, as far as this peer is to.
    pub(super) fn say(&mut self, phase: Phase, bytes: &[u8]) -> Result<(), Over> {
        let Some(cut) = &mut self.cut else { return self.write(bytes) };
        if cut.phase != phase {
            return self.write(bytes);
        }
        if cut.nth > 0 {
            cut.nth -= 1;
            return self.write(bytes);
        }
        let cut = *cut;
        self.cut = None;
        let (first, rest) = bytes.split_at(bytes.len() * cut.permille / 1000);
        self.write(first)?;
        self.commit(cut.fault, rest)
    }

    fn commit(&mut self, fault: Fault, rest: &[u8]) -> Result<(), Over> {
        match fault {
            Fault::Trickle => {
                let (slow, rest) = rest.split_at(rest.len().min(TRICKLED));
                for byte in slow {
                    pace(Instant::now() + Duration::from_millis(3));
                    self.write(std::slice::from_ref(byte))?;
                }
                return self.write(rest);
            }
            Fault::Stall => self.listen(),
            Fault::Deaf => {
                while !self.plan_over.load(SeqCst) {
                    std::thread::park_timeout(LOOK);
                }
            }
            Fault::Reset => drop(SockRef::from(self.socket()).set_linger(Some(Duration::ZERO))),
            Fault::HalfClose => {
                let _ = self.socket().shutdown(Shutdown::Write);
                self.listen();
            }
            Fault::Close => {}
            Fault::Garbage => {
                let count = 1 + self.chance.below(5000);
                let noise = self.chance.bytes(count);
                // In private: one time into the records, one time in their place.
                let raw = self.chance.percent(50).then(|| self.socket().try_clone().ok()).flatten();
                match raw {
                    Some(mut socket) => drop(socket.write_all(&noise)),
                    None => drop(self.write(&noise)),
                }
                self.listen();
            }
        }
        Err(Over)
    }

    /// From now on it waits but a moment for what it may hear.
    pub(super) fn hurry(&self) {
        let _ = self.socket().set_read_timeout(Some(Duration::from_millis(1)));
    }

    /// Hears until it is over.
    pub(super) fn listen(&mut self) {
        let mut piece = [0; 16_384];
        while self.hear(&mut piece).is_ok() {}
    }

    /// Hears for so long.
    pub(super) fn listen_for(&mut self, time: Duration) -> Result<(), Over> {
        let (until, mut piece) = (Instant::now() + time, [0; 16_384]);
        while Instant::now() < until {
            self.hear(&mut piece)?;
        }
        Ok(())
    }

    /// Bytes that came; none within a moment is zero.
    pub(super) fn hear(&mut self, piece: &mut [u8]) -> Result<usize, Over> {
        let read = match &mut self.wire {
            Wire::Plain(socket) => socket.read(piece),
            Wire::Private(stream) => stream.read(piece),
        };
        match read {
            Ok(0) => Err(Over),
            Ok(count) => Ok(count),
            Err(e) if is_later(&e) && !self.plan_over.load(SeqCst) => Ok(0),
            Err(_) => Err(Over),
        }
    }

    /// Ends its own direction, in order.
    pub(super) fn finish(&mut self) {
        if let Wire::Private(stream) = &mut self.wire {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Over> {
        while !bytes.is_empty() {
            let written = match &mut self.wire {
                Wire::Plain(socket) => socket.write(bytes),
                Wire::Private(stream) => stream.write(bytes),
            };
            match written {
                Ok(count) => bytes = &bytes[count..],
                Err(e) if is_later(&e) && !self.plan_over.load(SeqCst) => {}
                Err(_) => return Err(Over),
            }
        }
        if let Wire::Private(stream) = &mut self.wire {
            // What does not leave now leaves with the next.
            let _ = stream.flush();
        }
        Ok(())
    }

    fn socket(&self) -> &TcpStream {
        match &self.wire {
            Wire::Plain(socket) => socket,
            Wire::Private(stream) => &stream.sock,
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
