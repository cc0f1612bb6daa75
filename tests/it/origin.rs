//! An upstream that does what the test tells it to, and records every byte.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::amf::{self, Amf, n, obj, s};
use crate::ear::{self, Ear, HANDSHAKE, Heeded};
use crate::parser::{Message, kind};
use crate::speech::{Say, set_chunk_size, user_control};
use crate::wait::wait_for;

/// Where in a connection's life it does something else than to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Accept,
    Handshake,
    Connect,
    CreateStream,
    /// publish and play.
    Request,
}

/// What it does there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Says no, with this code and description, and goes on listening.
    Refuse(&'static str, &'static str),
    Close,
    Reset,
    /// Never answers.
    Stall,
}

/// How its answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// nginx-rtmp's: full headers, Set Chunk Size before the first result.
    Nginx,
    /// gortmplib's (MediaMTX): short headers on chunk streams 2 and 3, onBWDone, Set Chunk Size only behind the Start.
    Gortmplib,
}

/// What it is to do.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) style: Style,
    /// What createStream is answered with.
    pub(crate) stream_id: u32,
    /// Of what it says behind Set Chunk Size.
    pub(crate) chunk_size: u32,
    pub(crate) deeds: HashMap<At, Deed>,
    /// Who is let in.
    pub(crate) porter: Option<Porter>,
    /// In place of the answers above: what to send at each of connect, createStream and request.
    pub(crate) replay: Option<[Vec<u8>; 3]>,
}

impl Default for Script {
    fn default() -> Self {
        Self { style: Style::Nginx, stream_id: 1, chunk_size: 4096, deeds: HashMap::new(), porter: None, replay: None }
    }
}

impl Script {
    /// Does `deed` at `at`.
    pub(crate) fn doing(at: At, deed: Deed) -> Self {
        Self { deeds: [(at, deed)].into(), ..Self::default() }
    }
}

/// What an upstream with Adobe's authentication says to a connect with this app; none: it may come in. Whoever is not let in is told,
/// and its connection closed.
pub(crate) type Porter = fn(app: &str) -> Option<String>;

/// One connection to the origin.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) ear: Ear,
    mouth: Arc<Mouth>,
}

struct Mouth {
    script: Script,
    stream: Mutex<Option<TcpStream>>,
}

impl Mouth {
    fn stream(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay may be gone; the test sees that elsewhere.
    fn write(&self, bytes: &[u8]) {
        if let Some(stream) = &mut *self.stream() {
            let _ = stream.write_all(bytes);
        }
    }
}

impl Line {
    /// Sends bytes as they are.
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.mouth.write(bytes);
    }

    /// Says a message with a full header, on the chunk size that the script says.
    pub(crate) fn say(&self, csid: u32, time: u32, kind: u8, body: &[u8]) -> Message {
        let Script { chunk_size, stream_id, .. } = self.mouth.script;
        self.write(&Say::full(csid, time, kind, stream_id, body).bytes(chunk_size as usize));
        Message { csid, time, kind, stream: stream_id, body: body.to_vec(), fmt: 0, end: 0 }
    }

    /// Answers publish or play with its Start, which a stall had kept back.
    pub(crate) fn start(&self) {
        let request = self.ear.wait_message("publish or play is heard", |m| m.is("publish") || m.is("play"));
        self.write(&start(&self.mouth.script, &request));
    }

    /// FIN; it goes on listening.
    pub(crate) fn finish(&self) {
        if let Some(stream) = &*self.mouth.stream() {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// RST.
    pub(crate) fn reset(&self) {
        if let Some(stream) = self.mouth.stream().take() {
            ear::reset(stream, &self.ear);
        }
    }
}

/// See the module. Ends all its connections when dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    lines: Arc<Mutex<Vec<Line>>>,
    ended: Arc<AtomicBool>,
}

impl Origin {
    /// One that takes everything.
    pub(crate) fn willing() -> Self {
        Self::new(Script::default())
    }

    /// One that does the same on every connection.
    pub(crate) fn new(script: Script) -> Self {
        Self::scripted(move |_| script.clone())
    }

    /// One whose script depends on the connection, counted from 0.
    pub(crate) fn scripted(script: impl Fn(usize) -> Script + Send + 'static) -> Self {
        Self::over(TcpListener::bind("127.0.0.1:0").expect("a free port"), script)
    }

    /// One on a socket that listens already.
    pub(crate) fn over(listener: TcpListener, script: impl Fn(usize) -> Script + Send + 'static) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let (lines, ended) = (Arc::<Mutex<Vec<Line>>>::default(), Arc::<AtomicBool>::default());
        let (ours, over) = (Arc::clone(&lines), Arc::clone(&ended));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                if over.load(SeqCst) {
                    return;
                }
                let line = answer(stream, script(number));
                ours.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Self { address, lines, ended }
    }

    /// `rtmp://host:port`, with `path` behind it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("rtmp://{}{path}", self.address)
    }

    /// Connections so far, the relay's own probe of whether anybody is there among them.
    pub(crate) fn count(&self) -> usize {
        self.lines().len()
    }

    /// The connection on which this stream is played.
    pub(crate) fn line_of_player(&self, stream: &str) -> Line {
        let plays =
            |m: &Message| m.is("play") && m.command().is_some_and(|(_, _, args)| args.get(1).and_then(Amf::text) == Some(stream));
        self.line_that_heard(&format!("a player of {stream}"), plays)
    }

    /// Messages of this kind on all connections.
    pub(crate) fn heard_how_often(&self, is: impl Fn(&Message) -> bool) -> usize {
        self.lines().iter().map(|line| line.ear.record().messages.iter().filter(|m| is(m)).count()).sum()
    }

    /// Connections on which anything was said.
    pub(crate) fn heard(&self) -> usize {
        self.lines().iter().filter(|line| !line.ear.record().hello.is_empty()).count()
    }

    /// The connection `number`, counted from 0, of those on which anything was said.
    pub(crate) fn line(&self, number: usize) -> Line {
        let said = |line: &&Line| !line.ear.record().hello.is_empty();
        wait_for(&format!("the origin hears on connection {number}"), || self.lines().iter().filter(said).nth(number).cloned())
    }

    /// The connection on which this stream is published or played.
    pub(crate) fn line_of(&self, stream: &str) -> Line {
        let names = |m: &Message| {
            m.command().is_some_and(|(name, _, args)| {
                (name == "publish" || name == "play") && args.get(1).and_then(Amf::text) == Some(stream)
            })
        };
        self.line_that_heard(&format!("of {stream}"), names)
    }

    /// Every connection on which this stream was published or played, in their order.
    pub(crate) fn lines_of(&self, stream: &str) -> Vec<Line> {
        let asks = |m: &Message| {
            m.command().is_some_and(|(name, _, args)| {
                (name == "publish" || name == "play") && args.get(1).and_then(Amf::text) == Some(stream)
            })
        };
        self.lines().iter().filter(|line| line.ear.record().messages.iter().any(asks)).cloned().collect()
    }

    /// Whether this stream was ever asked for.
    pub(crate) fn knows(&self, stream: &str) -> bool {
        !self.lines_of(stream).is_empty()
    }

    /// The connection on which such a message was heard.
    pub(crate) fn line_that_heard(&self, what: &str, is: impl Fn(&Message) -> bool) -> Line {
        wait_for(&format!("the origin hears {what}"), || {
            self.lines().iter().find(|line| line.ear.record().messages.iter().any(&is)).cloned()
        })
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        for line in self.lines().iter() {
            if let Some(stream) = line.mouth.stream().take() {
                ear::shut(&stream);
            }
        }
    }
}

fn answer(stream: TcpStream, script: Script) -> Line {
    stream.set_nodelay(true).expect("a socket takes no-delay");
    let mouth = Arc::new(Mouth { script, stream: Mutex::new(stream.try_clone().ok()) });
    let deed = mouth.script.deeds.get(&At::Accept).copied();
    let theirs = Arc::clone(&mouth);
    let greeting = Greeting { stream, mouth: Arc::clone(&mouth), greeted: deed.is_some() };
    let ear = greeting.listen(move |heeded| heed(&theirs, &heeded));
    let line = Line { ear, mouth };
    if let Some(deed) = deed {
        act(&line.mouth, &line.ear, deed);
    }
    line
}

/// Sends S0, S1 and S2 as soon as C1 is there.
struct Greeting {
    stream: TcpStream,
    mouth: Arc<Mouth>,
    greeted: bool,
}

impl Greeting {
    fn listen(self, heed: impl FnMut(Heeded<'_>) + Send + 'static) -> Ear {
        let Self { stream, mouth, greeted } = self;
        let greeter = stream.try_clone().expect("a socket can be cloned");
        if !greeted {
            // A simple server need not wait for C1 to send S1, and S2 is not judged.
            let mut hello = vec![0; HANDSHAKE];
            hello[0] = 3;
            match mouth.script.deeds.get(&At::Handshake) {
                None => mouth.write(&hello),
                Some(Deed::Stall) => mouth.write(&hello[..1000]),
                Some(_) => {
                    // Ends inside its own handshake.
                    mouth.write(&hello[..1000]);
                    let mut first = [0];
                    let _ = (&greeter).read(&mut first);
                    ear::shut(&greeter);
                }
            }
        }
        Ear::listen(stream, heed)
    }
}

fn heed(mouth: &Mouth, Heeded { ear, message }: &Heeded<'_>) {
    let Some((name, _, args)) = message.command() else { return };
    if let (b"connect", Some(porter)) = (name.as_bytes(), mouth.script.porter) {
        let app = args.first().and_then(|object| object.get("app")).and_then(Amf::text).unwrap_or_default();
        if let Some(text) = porter(app) {
            mouth.write(&refusal(At::Connect, message, "NetConnection.Connect.Rejected", &text, &mouth.script));
            return act(mouth, ear, Deed::Close);
        }
    }
    let at = match &name[..] {
        "connect" => At::Connect,
        "createStream" => At::CreateStream,
        "publish" | "play" => At::Request,
        _ => return,
    };
    match (mouth.script.deeds.get(&at), &mouth.script.replay) {
        (Some(Deed::Refuse(code, text)), _) => mouth.write(&refusal(at, message, code, text, &mouth.script)),
        (Some(deed), _) => act(mouth, ear, *deed),
        (None, Some(replay)) => mouth.write(&replay[at as usize - At::Connect as usize]),
        (None, None) => mouth.write(&match at {
            At::Connect => connected(&mouth.script, message),
            At::CreateStream => created(&mouth.script, message),
            _ => start(&mouth.script, message),
        }),
    }
}

fn act(mouth: &Mouth, _: &Ear, deed: Deed) {
    match deed {
        Deed::Stall | Deed::Refuse(..) => {}
        Deed::Close => {
            if let Some(stream) = &*mouth.stream() {
                ear::shut(stream);
            }
        }
        // The reading thread is the one that runs this: its socket is the last, and goes when it sees the end.
        Deed::Reset => {
            if let Some(stream) = mouth.stream().take() {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
                let _ = stream.shutdown(Shutdown::Read);
            }
        }
    }
}

fn info(level: &str, code: &str, text: &str) -> Amf {
    obj(&[("level", s(level)), ("code", s(code)), ("description", s(text))])
}

fn refusal(at: At, message: &Message, code: &str, text: &str, script: &Script) -> Vec<u8> {
    let transaction = message.command().map_or(0.0, |(_, transaction, _)| transaction);
    match at {
        At::Request => {
            let body = amf::command("onStatus", 0.0, &[Amf::Null, info("error", code, text)]);
            Say::full(5, 0, kind::COMMAND, script.stream_id, &body).bytes(script.chunk_size as usize)
        }
        _ => {
            let body = amf::command("_error", transaction, &[Amf::Null, info("error", code, text)]);
            Say::full(3, 0, kind::COMMAND, 0, &body).bytes(128)
        }
    }
}

pub(crate) fn connected(script: &Script, message: &Message) -> Vec<u8> {
    let transaction = message.command().map_or(0.0, |(_, transaction, _)| transaction);
    let properties = obj(&[("fmsVer", s("FMS/3,0,1,123")), ("capabilities", n(31))]);
    let body = amf::command(
        "_result",
        transaction,
        &[properties, info("status", "NetConnection.Connect.Success", "Connection succeeded.")],
    );
    let window = 5_000_000_u32.to_be_bytes();
    let bandwidth = [&window[..], &[2]].concat();
    match script.style {
        Style::Nginx => [
            Say::full(2, 0, kind::WINDOW, 0, &window).bytes(128),
            Say::full(2, 0, kind::BANDWIDTH, 0, &bandwidth).bytes(128),
            set_chunk_size(script.chunk_size),
            Say::full(3, 0, kind::COMMAND, 0, &body).bytes(script.chunk_size as usize),
        ]
        .concat(),
        Style::Gortmplib => {
            let done = amf::command("onBWDone", 0.0, &[Amf::Null]);
            [
                Say::full(2, 0, kind::WINDOW, 0, &window).bytes(128),
                Say::full(2, 0, kind::BANDWIDTH, 0, &bandwidth).fmt(1).bytes(128),
                Say::full(2, 0, kind::BANDWIDTH, 0, &bandwidth).fmt(3).bytes(128),
                Say::full(3, 0, kind::COMMAND, 0, &body).bytes(128),
                Say::full(3, 0, kind::COMMAND, 0, &done).fmt(1).bytes(128),
                Say::full(3, 0, kind::COMMAND, 0, &done).fmt(2).bytes(128),
                Say::full(3, 0, kind::COMMAND, 0, &done).fmt(3).bytes(128),
            ]
            .concat()
        }
    }
}

pub(crate) fn created(script: &Script, message: &Message) -> Vec<u8> {
    let transaction = message.command().map_or(0.0, |(_, transaction, _)| transaction);
    let body = amf::command("_result", transaction, &[Amf::Null, n(script.stream_id)]);
    match script.style {
        Style::Nginx => Say::full(3, 0, kind::COMMAND, 0, &body).bytes(script.chunk_size as usize),
        Style::Gortmplib => Say::full(3, 0, kind::COMMAND, 0, &body).fmt(1).bytes(128),
    }
}

pub(crate) fn start(script: &Script, message: &Message) -> Vec<u8> {
    let play = message.is("play");
    let code = if play { "NetStream.Play.Start" } else { "NetStream.Publish.Start" };
    let body = amf::command("onStatus", 0.0, &[Amf::Null, info("status", code, "Begun.")]);
    let begin = user_control(0, script.stream_id);
    match script.style {
        Style::Nginx => [
            Say::full(2, 0, kind::USER_CONTROL, 0, &begin).bytes(128),
            Say::full(5, 0, kind::COMMAND, script.stream_id, &body).bytes(script.chunk_size as usize),
        ]
        .concat(),
        Style::Gortmplib => [
            Say::full(2, 0, kind::USER_CONTROL, 0, &begin).fmt(1).bytes(128),
            Say::full(5, 0, kind::COMMAND, script.stream_id, &body).bytes(128),
            // Late: only now, and with a short header.
            Say::full(2, 0, kind::SET_CHUNK_SIZE, 0, &script.chunk_size.to_be_bytes()).fmt(1).bytes(128),
        ]
        .concat(),
    }
}
