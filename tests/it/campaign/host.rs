//! An origin of the campaign: takes publishers and plays to players, over RTMP or RTSP, until it does what it was told to.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::chance::Chance;
use super::mouth::{Cut, Mouth, Over, Phase};
use super::visitor::picture;
use crate::ear::HANDSHAKE;
use crate::origin::{Script, connected, created, start};
use crate::parser::{Parser, kind};
use crate::rtsp::{SDP, TCP};
use crate::rtsp_peer::{frame, rtp};
use crate::speech::Say;

/// How it behaves during a plan.
#[derive(Clone)]
pub(super) struct Mood {
    pub(super) cut: Option<Cut>,
    /// Only on its first connection.
    pub(super) once: bool,
    pub(super) chance: Chance,
    pub(super) plan_over: Arc<AtomicBool>,
}

impl Mood {
    pub(super) fn willing() -> Self {
        Self { cut: None, once: false, chance: Chance::of(0), plan_over: Arc::default() }
    }
}

/// See the module.
pub(super) struct Host {
    pub(super) address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    ended: Arc<AtomicBool>,
}

impl Host {
    /// Speaks RTSP, or RTMP.
    pub(super) fn open(rtsp: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (mood, ended) = (Arc::new(Mutex::new(Mood::willing())), Arc::<AtomicBool>::default());
        let (theirs, over) = (Arc::clone(&mood), Arc::clone(&ended));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if over.load(SeqCst) {
                    return;
                }
                let mouth = received(socket, &theirs);
                std::thread::spawn(move || drop(serve(mouth, rtsp)));
            }
        });
        Self { address, mood, ended }
    }

    /// Is to behave so from now on.
    pub(super) fn behave(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn received(socket: TcpStream, mood: &Mutex<Mood>) -> Mouth {
    // What the relay's own look says is nothing, and must not use up the fault.
    let looks = || socket.set_read_timeout(Some(Duration::from_secs(1))).is_ok() && socket.peek(&mut [0]).is_ok_and(|n| n == 0);
    let first = mood.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if first.cut.is_none_or(|cut| cut.phase != Phase::Connected) && looks() {
        return Mouth::new(socket, None, first.chance, &first.plan_over);
    }
    let mut mood = mood.lock().unwrap_or_else(PoisonError::into_inner);
    let cut = if mood.once { mood.cut.take() } else { mood.cut };
    let chance = mood.chance.child();
    Mouth::new(socket, cut, chance, &mood.plan_over)
}

fn serve(mut mouth: Mouth, rtsp: bool) -> Result<(), Over> {
    mouth.say(Phase::Connected, b"")?;
    if rtsp { serve_rtsp(&mut mouth) } else { serve_rtmp(&mut mouth) }
}

fn serve_rtmp(mouth: &mut Mouth) -> Result<(), Over> {
    let script = Script::default();
    let mut piece = [0; 16_384];
    let mut hello = Vec::new();
    while hello.len() < 1537 {
        let count = mouth.hear(&mut piece)?;
        hello.extend_from_slice(&piece[..count]);
    }
    let mut answer = vec![0; HANDSHAKE];
    answer[0] = 3;
    mouth.say(Phase::Hello, &answer)?;
    while hello.len() < HANDSHAKE {
        let count = mouth.hear(&mut piece)?;
        hello.extend_from_slice(&piece[..count]);
    }
    let mut parser = Parser::default();
    let mut heard = hello.split_off(HANDSHAKE);
    loop {
        for message in parser.feed(&heard).map_err(|_| Over)? {
            match message.command().map(|(name, ..)| name).as_deref() {
                Some("connect") => mouth.say(Phase::Connect, &connected(&script, &message))?,
                Some("createStream") => mouth.say(Phase::Create, &created(&script, &message))?,
                Some("publish") => mouth.say(Phase::Request, &start(&script, &message))?,
                Some("play") => {
                    mouth.say(Phase::Request, &start(&script, &message))?;
                    return play_rtmp(mouth, script.chunk_size as usize);
                }
                Some("deleteStream") => {
                    mouth.say(Phase::Ending, &Say::full(2, 0, kind::ACK, 0, &[0; 4]).bytes(128))?;
                    return Ok(());
                }
                Some(_) => {}
                None => mouth.say(Phase::Media, &Say::full(2, 0, kind::ACK, 0, &[0; 4]).bytes(128))?,
            }
        }
        let count = mouth.hear(&mut piece)?;
        heard = piece[..count].to_vec();
    }
}

fn play_rtmp(mouth: &mut Mouth, chunk_size: usize) -> Result<(), Over> {
    mouth.hurry();
    // Longer than a player stays, for those that do not go.
    for number in 0..600 {
        let length = 100 + number as usize * 797 % 9000;
        mouth.say(Phase::Media, &Say::full(6, number * 2, kind::VIDEO, 1, &picture(number, length)).bytes(chunk_size))?;
        mouth.listen_for(Duration::from_millis(2))?;
    }
    mouth.say(Phase::Ending, &Say::full(6, 2000, kind::VIDEO, 1, &picture(7, 900)).bytes(chunk_size))
}

/// Whole requests in `bytes`, which they leave; frames among them are left out.
fn requests(bytes: &mut Vec<u8>) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        if let [b'$', _, high, low, ..] = bytes[..] {
            let whole = 4 + usize::from(u16::from_be_bytes([high, low]));
            if bytes.len() < whole {
                return found;
            }
            bytes.drain(..whole);
            continue;
        }
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return found };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let length = text.lines().find_map(|l| l.strip_prefix("Content-Length: ")?.trim().parse::<usize>().ok()).unwrap_or(0);
        if bytes.len() < head + 4 + length {
            return found;
        }
        bytes.drain(..head + 4 + length);
        found.push(text);
    }
}

fn serve_rtsp(mouth: &mut Mouth) -> Result<(), Over> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 16_384]);
    let (mut playing, mut frames) = (false, 0);
    loop {
        for request in requests(&mut bytes) {
            let number = request.lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or("0").to_owned();
            let (phase, rest) = match request.split(' ').next().unwrap_or_default() {
                "ANNOUNCE" => (Phase::Request, "\r\n".to_owned()),
                "DESCRIBE" => (Phase::Request, format!("Content-Length: {}\r\n\r\n{SDP}", SDP.len())),
                "SETUP" => (Phase::Create, format!("{TCP}\r\nSession: s1\r\n\r\n")),
                "TEARDOWN" => (Phase::Ending, "Session: s1\r\n\r\n".to_owned()),
                "PLAY" => {
                    playing = true;
                    mouth.hurry();
                    (Phase::Begin, "Session: s1\r\n\r\n".to_owned())
                }
                "RECORD" => (Phase::Begin, "Session: s1\r\n\r\n".to_owned()),
                _ => (Phase::Hello, "\r\n".to_owned()),
            };
            mouth.say(phase, format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{rest}").as_bytes())?;
            if phase == Phase::Ending {
                return Ok(());
            }
        }
        if playing && frames < 600 {
            frames += 1;
            let packet = rtp(frames % 5 == 4, frames as u16, 100 + frames * 797 % 1300);
            mouth.say(Phase::Media, &frame(0, &packet))?;
        }
        let count = mouth.hear(&mut piece)?;
        bytes.extend_from_slice(&piece[..count]);
    }
}
