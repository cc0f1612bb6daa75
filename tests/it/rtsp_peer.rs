//! One end of an RTSP connection, in its own words: a client of the relay, or an origin behind it. Shares no line with the relay's
//! own `protocol`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use socket2::SockRef;

use crate::relay::Face;
use crate::wait::{SOON, wait_for};

/// Something that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Message(Said),
    /// Channel and payload.
    Frame(u8, Vec<u8>),
    /// The other side has ended: by FIN, or by a reset.
    Fin,
    Reset,
}

/// A request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Said {
    /// The first value of a header.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..])
    }

    /// Status code and phrase.
    pub(crate) fn status(&self) -> &str {
        self.start.strip_prefix("RTSP/1.0 ").unwrap_or_else(|| panic!("not a response: {self:?}"))
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{}\n{headers}\n{}", self.start, self.body)
    }
}

/// A TCP server that speaks when the test says so.
pub(crate) struct Door(TcpListener);

impl Door {
    pub(crate) fn open() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// `rtsp://127.0.0.1:port` with `path` behind it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("rtsp://{}{path}", self.address())
    }

    /// The relay's next connection, once it has said something: it also knocks, to see whether the door is there.
    pub(crate) fn accept(&self) -> Peer {
        wait_for("the relay dials", || self.next())
    }

    /// Whether nobody has dialled.
    pub(crate) fn is_quiet(&self) -> bool {
        self.next().is_none()
    }

    fn next(&self) -> Option<Peer> {
        self.0.set_nonblocking(true).expect("a listener can be polled");
        while let Ok((socket, _)) = self.0.accept() {
            socket.set_nonblocking(false).expect("a socket can block");
            let peer = Peer::over(socket);
            if peer.socket.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                return Some(peer);
            }
        }
        None
    }
}

/// See the module.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    bytes: Vec<u8>,
    cseq: u32,
}

impl Peer {
    /// A client of the relay.
    pub(crate) fn to(relay: &Face) -> Self {
        Self::over(TcpStream::connect(relay.address).expect("the relay accepts"))
    }

    pub(crate) fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("a socket takes no-delay");
        socket.set_read_timeout(Some(SOON)).expect("a socket takes a timeout");
        Self { socket, bytes: Vec::new(), cseq: 0 }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a connected socket has an address")
    }

    /// Sends bytes; that the relay has ended is for the test to hear.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    /// Sends a request with the next number. `rest`: further header lines, and a body behind a blank line, with LF.
    pub(crate) fn request(&mut self, method: &str, uri: &str, rest: &str) {
        self.cseq += 1;
        let (headers, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
        let headers: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.write(format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n{headers}{length}\r\n{body}", self.cseq));
    }

    /// The same, and its answer.
    pub(crate) fn ask(&mut self, method: &str, uri: &str, rest: &str) -> Said {
        self.request(method, uri, rest);
        let answer = self.message();
        assert_eq!(answer.get("CSeq"), Some(&self.cseq.to_string()[..]), "{answer:?}");
        answer
    }

    /// Answers `request`.
    pub(crate) fn answer(&mut self, request: &Said, status: &str, rest: &str) {
        let cseq = request.get("CSeq").unwrap_or_else(|| panic!("no number: {request:?}"));
        let (headers, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
        let headers: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.write(format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{headers}{length}\r\n{body}"));
    }

    /// Hears a request that begins so, and answers it.
    pub(crate) fn serve(&mut self, begins: &str, status: &str, rest: &str) -> Said {
        let request = self.message();
        assert!(request.start.starts_with(begins), "{begins} was awaited: {request:?}");
        self.answer(&request, status, rest);
        request
    }

    /// Sends an interleaved frame.
    pub(crate) fn frame(&mut self, channel: u8, payload: &[u8]) {
        self.write(frame(channel, payload));
    }

    /// What comes next.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            if let Some((heard, len)) = first(&self.bytes) {
                self.bytes.drain(..len);
                return heard;
            }
            let mut piece = [0; 65_536];
            match self.socket.read(&mut piece) {
                Ok(0) => {
                    assert!(self.bytes.is_empty(), "it ended inside {:?}", String::from_utf8_lossy(&self.bytes));
                    return Heard::Fin;
                }
                Ok(read) => self.bytes.extend_from_slice(&piece[..read]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Heard::Reset,
                Err(e) => panic!("nothing came: {e}, after {:?}", String::from_utf8_lossy(&self.bytes)),
            }
        }
    }

    /// The next message; frames before it are passed over.
    pub(crate) fn message(&mut self) -> Said {
        loop {
            match self.hear() {
                Heard::Message(said) => return said,
                Heard::Frame(..) => {}
                end => panic!("{end:?} in place of a message"),
            }
        }
    }

    /// Hears until the end, messages and frames included.
    pub(crate) fn end(&mut self) -> Heard {
        loop {
            match self.hear() {
                end @ (Heard::Fin | Heard::Reset) => return end,
                Heard::Message(_) | Heard::Frame(..) => {}
            }
        }
    }

    /// Says that it has ended.
    pub(crate) fn finish(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends by a reset.
    pub(crate) fn reset(self) {
        let _ = SockRef::from(&self.socket).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// An interleaved frame.
pub(crate) fn frame(channel: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("a frame is short");
    [&[b'$', channel], &len.to_be_bytes()[..], payload].concat()
}

/// An RTP packet.
pub(crate) fn rtp(marker: bool, number: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x80, if marker { 0xe0 } else { 0x60 }];
    packet.extend(number.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend(std::iter::repeat_n(number as u8, payload));
    packet
}

fn first(bytes: &[u8]) -> Option<(Heard, usize)> {
    if let [b'$', channel, high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        return rest.get(..len).map(|payload| (Heard::Frame(*channel, payload.to_vec()), 4 + len));
    }
    if bytes.first() == Some(&b'$') {
        return None;
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).expect("a header")).collect();
    let mut said = Said { start, headers, body: String::new() };
    let length: usize = said.get("Content-Length").map_or(0, |text| text.parse().expect("a length"));
    let body = bytes.get(end + 4..end + 4 + length)?;
    said.body = String::from_utf8(body.to_vec()).expect("a body is text");
    Some((Heard::Message(said), end + 4 + length))
}
