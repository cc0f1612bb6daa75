//! What one end of a connection hears: everything, in order, with where each read ended, read as messages by the independent
//! parser. A thread of its own reads, so that a test can speak and listen at the same time.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::parser::{Message, Parser};
use crate::wait::SOON;

/// Bytes of the handshake that each side sends.
pub(crate) const HANDSHAKE: usize = 1 + 2 * 1536;

/// How often a reader looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// How the other side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// One read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// When.
    pub(crate) at: Instant,
    /// Bytes heard with it, handshake not counted.
    pub(crate) bytes: usize,
    /// Whether they end where a message does.
    pub(crate) whole: bool,
}

/// The recording.
#[derive(Default)]
pub(crate) struct Record {
    /// The handshake.
    pub(crate) hello: Vec<u8>,
    /// All behind it.
    pub(crate) bytes: Vec<u8>,
    pub(crate) reads: Vec<Heard>,
    pub(crate) messages: Vec<Message>,
    /// Why the independent parser could not go on.
    pub(crate) wrong: Option<String>,
    pub(crate) end: Option<End>,
}

impl Record {
    /// The first `onStatus` or `_error`: (code, description).
    pub(crate) fn told(&self) -> Option<(String, String)> {
        self.messages.iter().find_map(Message::told)
    }
}

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    news: Condvar,
    mode: AtomicU8,
}

const LISTENING: u8 = 0;
const DEAF: u8 = 1;
const GONE: u8 = 2;

/// See the module. Clones hear the same.
#[derive(Clone)]
pub(crate) struct Ear(Arc<Shared>);

impl Ear {
    /// Listens on `stream`; `heed` hears each message too.
    pub(crate) fn listen(stream: TcpStream, heed: impl FnMut(Heeded<'_>) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let ear = Self(Arc::clone(&shared));
        stream.set_read_timeout(Some(LOOK)).expect("a socket takes a timeout");
        std::thread::spawn(move || hear(&shared, stream, heed));
        ear
    }

    /// Reads no more; the socket stays open.
    pub(crate) fn stop_listening(&self) {
        self.0.mode.store(DEAF, SeqCst);
    }

    /// Lets go of the socket, without a sign to the other side.
    fn let_go(&self, stream: &TcpStream) {
        self.0.mode.store(GONE, SeqCst);
        // Wakes the reader; the other side sees nothing of it.
        let _ = stream.shutdown(Shutdown::Read);
        self.wait("the reader has let go", |record| record.end.map(drop));
    }

    /// The recording so far.
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` answers.
    pub(crate) fn wait<T>(&self, what: &str, mut found: impl FnMut(&Record) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        let mut record = self.record();
        loop {
            if let Some(value) = found(&record) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Record { messages, wrong, end, bytes, .. } = &*record;
            assert!(
                !left.is_zero(),
                "waited {SOON:?} in vain until {what}; heard {} bytes, {wrong:?}, {end:?}, last {:?}",
                bytes.len(),
                &messages[messages.len().saturating_sub(6)..]
            );
            record = self.0.news.wait_timeout(record, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a message.
    pub(crate) fn wait_message(&self, what: &str, is: impl Fn(&Message) -> bool) -> Message {
        self.wait(what, |record| record.messages.iter().find(|m| is(m)).cloned())
    }

    /// Waits for a command.
    pub(crate) fn wait_command(&self, name: &str) -> Message {
        self.wait_message(&format!("{name} is heard"), |m| m.is(name))
    }

    /// Waits until so many messages of these types were heard; all of them.
    pub(crate) fn wait_count(&self, kinds: &[u8], count: usize) -> Vec<Message> {
        self.wait(&format!("{count} messages of types {kinds:?} are heard"), |record| {
            let found: Vec<_> = record.messages.iter().filter(|m| kinds.contains(&m.kind)).cloned().collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Waits until the other side ends.
    pub(crate) fn wait_end(&self) -> End {
        self.wait("the other side ends", |record| record.end)
    }
}

/// A message, for who answers it.
pub(crate) struct Heeded<'a> {
    pub(crate) ear: &'a Ear,
    pub(crate) message: &'a Message,
}

fn hear(shared: &Arc<Shared>, mut stream: TcpStream, mut heed: impl FnMut(Heeded<'_>)) {
    let ear = Ear(Arc::clone(shared));
    let mut parser = Parser::default();
    let mut piece = vec![0; 1 << 18];
    let end = loop {
        // Ours are the two in here: the test has dropped its own.
        if Arc::strong_count(shared) == 2 {
            break End::Fin;
        }
        match shared.mode.load(SeqCst) {
            LISTENING => {}
            DEAF => {
                std::thread::park_timeout(LOOK);
                continue;
            }
            _ => break End::Fin,
        }
        match stream.read(&mut piece) {
            Ok(0) => break End::Fin,
            Ok(count) => {
                for message in take(&ear, &mut parser, &piece[..count]) {
                    heed(Heeded { ear: &ear, message: &message });
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(_) => break End::Reset,
        }
    };
    drop(stream);
    ear.record().end = Some(end);
    shared.news.notify_all();
}

/// Records a read; the messages that it made whole.
fn take(ear: &Ear, parser: &mut Parser, mut piece: &[u8]) -> Vec<Message> {
    let mut record = ear.record();
    if record.hello.len() < HANDSHAKE {
        let hello = piece.len().min(HANDSHAKE - record.hello.len());
        record.hello.extend_from_slice(&piece[..hello]);
        piece = &piece[hello..];
    }
    record.bytes.extend_from_slice(piece);
    let mut messages = Vec::new();
    if record.wrong.is_none() && !piece.is_empty() {
        match parser.feed(piece) {
            Ok(found) => messages = found,
            Err(wrong) => record.wrong = Some(wrong),
        }
    }
    record.messages.extend(messages.iter().cloned());
    let bytes = record.bytes.len();
    record.reads.push(Heard { at: Instant::now(), bytes, whole: parser.at_boundary() });
    drop(record);
    ear.0.news.notify_all();
    messages
}

/// Ends `stream` with a reset. `ear` must be its only other reader.
pub(crate) fn reset(stream: TcpStream, ear: &Ear) {
    ear.let_go(&stream);
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket takes a linger time");
    drop(stream);
}

/// Ends both directions, whatever the state of the socket.
pub(crate) fn shut(stream: &TcpStream) {
    // Fails where the other side has ended already.
    let _ = stream.shutdown(Shutdown::Both);
}
