//! A TCP connection, in private or not.

use std::cell::RefCell;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use super::record::Records;

/// Bytes that a [`Wire`] reads at a time: one record of the greatest length, and the beginning of the next.
const AHEAD: usize = 20 * 1024;
/// Read-ahead buffers that a thread keeps for the next use.
const SPARE: usize = 16;

thread_local! {
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// See the module.
#[derive(Debug)]
pub enum Stream {
    /// For everyone to read.
    Plain(TcpStream),
    /// TLS; the peer is a client of ours.
    Server(Box<server::TlsStream<Wire>>),
    /// TLS; the peer is a server.
    Client(Box<client::TlsStream<Wire>>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl Stream {
    /// The socket, for its options and addresses.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Server(tls) => &tls.get_ref().0.tcp,
            Self::Client(tls) => &tls.get_ref().0.tcp,
        }
    }

    /// Lets the runtime of this thread wake whoever waits for it: a socket belongs to the one in which it was opened. To be called
    /// while nobody reads or writes.
    ///
    /// # Errors
    /// No descriptor is left, or there is no runtime here.
    pub fn rehome(&mut self) -> io::Result<()> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Server(tls) => &mut tls.get_mut().0.tcp,
            Self::Client(tls) => &mut tls.get_mut().0.tcp,
        };
        // The same socket by another descriptor: the old one leaves its runtime as it is dropped.
        *tcp = TcpStream::from_std(tcp.as_fd().try_clone_to_owned()?.into())?;
        Ok(())
    }

    /// Whether the peer is there and has said nothing, besides what TLS has to say for itself behind a handshake (tickets, RFC 8446 4.6).
    /// What TLS has taken in already, and nobody has read, is not looked at.
    pub fn is_quiet(&mut self) -> bool {
        loop {
            match SockRef::from(self.tcp()).peek(&mut [MaybeUninit::uninit()]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Ok(1..) if self.is_private() => {}
                _ => return false,
            }
            let Some(wire) = self.wire_mut() else { return false };
            if wire.refill_at_once().is_err() {
                return false;
            }
            // Nobody is woken by this: whoever reads later looks first.
            let mut byte = [0];
            let mut room = ReadBuf::new(&mut byte);
            if Pin::new(&mut *self).poll_read(&mut Context::from_waker(Waker::noop()), &mut room).is_ready() {
                return false;
            }
        }
    }

    /// Whether TLS protects it.
    pub fn is_private(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Behind a read that did not fill its buffer: whether that was all that has arrived.
    pub fn drained(&self) -> bool {
        self.wire().is_none_or(|wire| wire.drained && wire.ahead.is_none())
    }

    /// Fewest bytes that the socket must still receive before `plain` more bytes can be read, or any where `plain` is 0, once what has
    /// arrived was read. A low-water mark of so many never waits for more than what is needed.
    pub fn wire_bytes_for(&self, plain: u64) -> u64 {
        self.wire().map_or(plain.max(1), |wire| wire.records.bytes_for(plain))
    }

    fn wire(&self) -> Option<&Wire> {
        match self {
            Self::Plain(_) => None,
            Self::Server(tls) => Some(tls.get_ref().0),
            Self::Client(tls) => Some(tls.get_ref().0),
        }
    }

    fn wire_mut(&mut self) -> Option<&mut Wire> {
        match self {
            Self::Plain(_) => None,
            Self::Server(tls) => Some(tls.get_mut().0),
            Self::Client(tls) => Some(tls.get_mut().0),
        }
    }
}

/// Hands a call on to whichever connection there is.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Plain(tcp) => {
                let $inner = Pin::new(tcp);
                $call
            }
            Stream::Server(tls) => {
                let $inner = Pin::new(tls.as_mut());
                $call
            }
            Stream::Client(tls) => {
                let $inner = Pin::new(tls.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let private = self.is_private();
        match each!(self, inner => inner.poll_read(cx, buf)) {
            // Without close_notify. RTMP and RTSP say themselves where a stream ends, and many clients just leave.
            Poll::Ready(Err(e)) if private && e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            result => result,
        }
    }
}

/// What was written leaves by [`AsyncWrite::poll_flush`] only; on a plain connection that does nothing.
impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => inner.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_flush(cx))
    }

    /// Says close_notify where there is TLS (RFC 8446 6.1), then sends FIN.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_shutdown(cx))
    }
}

/// The socket below rustls. It reads ahead, since rustls asks for small pieces, and follows the records that come.
#[derive(Debug)]
pub struct Wire {
    tcp: TcpStream,
    records: Records,
    /// Bytes that were read and that rustls has not taken: there only within a poll, or while nobody reads.
    ahead: Option<Ahead>,
    /// The last read of the socket took all there was.
    drained: bool,
}

#[derive(Debug)]
struct Ahead {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Wire {
    /// The socket of a connection that TLS begins on.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, records: Records::default(), ahead: None, drained: false }
    }

    fn poll_refill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = lend();
        let mut room = ReadBuf::new(&mut buffer);
        let result = Pin::new(&mut self.tcp).poll_read(cx, &mut room);
        let read = room.filled().len();
        self.refilled(buffer, read);
        result
    }

    /// The same of what has arrived, whatever the runtime knows of it.
    fn refill_at_once(&mut self) -> io::Result<()> {
        if self.ahead.is_some() {
            return Ok(());
        }
        let mut buffer = lend();
        let result = (&*SockRef::from(&self.tcp)).read(&mut buffer);
        self.refilled(buffer, result.as_ref().map_or(0, |&read| read));
        result.map(drop)
    }

    fn refilled(&mut self, buffer: Box<[u8]>, read: usize) {
        self.drained = read < AHEAD;
        self.records.advance(&buffer[..read]);
        if read > 0 {
            self.ahead = Some(Ahead { buffer, start: 0, end: read });
        } else {
            take_back(buffer);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_none() {
            ready!(self.poll_refill(cx))?;
        }
        let Some(mut ahead) = self.ahead.take() else { return Poll::Ready(Ok(())) };
        let taken = buf.remaining().min(ahead.end - ahead.start);
        buf.put_slice(&ahead.buffer[ahead.start..ahead.start + taken]);
        ahead.start += taken;
        if ahead.start < ahead.end {
            self.ahead = Some(ahead);
        } else {
            take_back(ahead.buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            take_back(ahead.buffer);
        }
    }
}

fn lend() -> Box<[u8]> {
    SPARES.try_with(|spares| spares.borrow_mut().pop()).ok().flatten().unwrap_or_else(|| vec![0; AHEAD].into_boxed_slice())
}

fn take_back(buffer: Box<[u8]>) {
    // Where the thread is ending there is nobody to keep it for.
    let _ = SPARES.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() < SPARE {
            spares.push(buffer);
        }
    });
}
