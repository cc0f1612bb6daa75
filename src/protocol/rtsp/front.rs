//! Pure: the relay towards a client that has not named a stream yet. OPTIONS is answered here; nobody is dialled before DESCRIBE or
//! ANNOUNCE was judged.

use super::credentials::{self, Credentials};
use super::framing::FramingError;
use super::message::{Message, MessageError, Start};
use super::url::{Address, BadUrl, RequestUrl};
use crate::protocol::name::Action;

/// Most requests before a stream is named.
pub const MAX_REQUESTS: u32 = 100;
/// How many 401 a client gets before it is left alone. GStreamer tries a wrong password nine times.
pub const MAX_FAILURES: u32 = 5;
/// What a client may ask for. Without GET_PARAMETER, which players would then use to keep a session alive, and which not every
/// upstream knows: OPTIONS they use else.
const PUBLIC: &str = "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, PAUSE, RECORD, TEARDOWN";

/// Why a client that broke the protocol is left. What can be said to it stands in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrontError {
    /// A message that is not as it should be.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// Another URL than an RTSP one.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// More than [`MAX_REQUESTS`].
    #[error("More than 100 requests without a stream")]
    TooMany,
}

impl FrontError {
    /// One word of a bounded set, for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Framing(e) => e.reason(),
            Self::Url(_) => "malformed_rtsp",
            Self::TooMany => "too_many_rtsp_requests",
        }
    }
}

/// What a message was.
#[derive(Debug)]
pub enum Heard {
    /// Something that has its answer.
    Answered,
    /// A stream is wanted. To be judged, and answered by [`Front`] or an upstream.
    Asked(Box<Asked>),
}

/// A DESCRIBE or ANNOUNCE.
#[derive(Debug)]
pub struct Asked {
    /// What the client wants with the stream.
    pub action: Action,
    /// Its URL, without user name and password.
    pub url: Address,
    /// What it shows of itself.
    pub credentials: Credentials,
    /// The request.
    pub message: Message,
    cseq: u64,
}

impl Asked {
    /// The request's method.
    pub fn method(&self) -> &'static [u8] {
        match self.action {
            Action::Play => b"DESCRIBE",
            Action::Publish => b"ANNOUNCE",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Front {
    private: bool,
    nonce: String,
    requests: u32,
    failures: u32,
    refusal: Option<(u16, String)>,
    output: Vec<u8>,
}

impl Front {
    /// `private`: the connection is encrypted.
    pub fn new(private: bool, chance: &mut dyn FnMut(&mut [u8])) -> Self {
        let nonce = credentials::nonce(chance);
        Self { private, nonce, requests: 0, failures: 0, refusal: None, output: Vec::new() }
    }

    /// The nonce of this connection's Digest challenge.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Whether the client was asked for a token and has not shown a right one.
    pub fn challenged(&self) -> bool {
        self.failures > 0
    }

    /// From now on every request is answered `code` with `text`, a reason phrase.
    pub fn refuse_all(&mut self, code: u16, text: String) {
        self.refusal = Some((code, text));
    }

    /// Takes what is to be sent to the client.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Hears a message.
    ///
    /// # Errors
    /// [`FrontError`]: the client was told, as far as it can be, and is to be left.
    pub fn handle(&mut self, message: Message) -> Result<Heard, FrontError> {
        self.requests += 1;
        let cseq = match (&message.start, message.cseq()) {
            (Start::Request { .. }, Ok(cseq)) => cseq,
            (Start::Request { .. }, Err(e)) => return Err(self.broke(e.into())),
            (Start::Response { .. }, _) => return Err(self.broke(FramingError::from(MessageError::StartLine))),
        };
        if self.requests > MAX_REQUESTS {
            self.refuse(cseq, 400, &FrontError::TooMany.to_string());
            return Err(FrontError::TooMany);
        }
        if let Some((code, text)) = self.refusal.clone() {
            self.refuse(cseq, code, &text);
            return Ok(Heard::Answered);
        }
        let Some((method, uri)) = message.as_request() else { return Ok(Heard::Answered) };
        let action = match method {
            b"DESCRIBE" => Action::Play,
            b"ANNOUNCE" => Action::Publish,
            _ => {
                self.answer_here(method, cseq);
                return Ok(Heard::Answered);
            }
        };
        match RequestUrl::parse(uri) {
            Ok(RequestUrl::Path(url)) => {
                let credentials = Credentials::of(&message.headers);
                Ok(Heard::Asked(Box::new(Asked { action, url, credentials, message, cseq })))
            }
            Ok(RequestUrl::Server) | Err(BadUrl) => {
                self.refuse(cseq, 400, &BadUrl.to_string());
                Err(BadUrl.into())
            }
        }
    }

    fn answer_here(&mut self, method: &[u8], cseq: u64) {
        let (code, reason) = match method {
            b"OPTIONS" => (200, "OK"),
            b"SETUP" | b"PLAY" | b"RECORD" | b"PAUSE" => (455, "DESCRIBE or ANNOUNCE comes first"),
            b"TEARDOWN" | b"GET_PARAMETER" | b"SET_PARAMETER" => (454, "There is no session yet"),
            _ => (501, "This method is not relayed"),
        };
        let mut answer = Message::answer(code, reason, cseq);
        if code == 200 {
            answer.headers.push("Public", PUBLIC);
        }
        answer.write(&mut self.output);
    }

    /// Asks the client for a token, with `text` as the reason phrase; the connection stays open, for ffmpeg cannot go on with another.
    /// `false` where it has had its tries: it is told that the connection ends.
    pub fn challenge(&mut self, asked: &Asked, text: &str) -> bool {
        self.failures += 1;
        let mut answer = Message::answer(401, text, asked.cseq);
        for challenge in credentials::challenges(self.private, &self.nonce) {
            answer.headers.push("WWW-Authenticate", challenge);
        }
        let again = self.failures < MAX_FAILURES;
        if !again {
            answer.headers.push("Connection", "close");
        }
        answer.write(&mut self.output);
        again
    }

    /// Answers a DESCRIBE or ANNOUNCE for good; the connection is to be closed behind it.
    pub fn deny(&mut self, asked: &Asked, code: u16, text: &str) {
        self.refuse(asked.cseq, code, text);
    }

    fn refuse(&mut self, cseq: u64, code: u16, text: &str) {
        let mut answer = Message::answer(code, text, cseq);
        answer.headers.push("Connection", "close");
        answer.write(&mut self.output);
    }

    /// Tells the client that what it sent cannot be read.
    pub fn broke(&mut self, error: FramingError) -> FrontError {
        farewell(error).write(&mut self.output);
        error.into()
    }
}

/// The answer to what cannot be read; which request it was cannot be known.
pub fn farewell(error: FramingError) -> Message {
    let start = Start::Response { code: error.code(), reason: error.to_string().into_bytes() };
    let mut answer = Message { start, headers: super::message::Headers::default(), body: Vec::new() };
    answer.headers.push("Connection", "close");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(private: bool) -> Front {
        Front::new(private, &mut |bytes| bytes.fill(1))
    }

    fn request(text: &str) -> Message {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let (message, _) = Message::parse_head(format!("{head}\n\n").as_bytes()).expect("a request");
        Message { body: body.as_bytes().to_vec(), ..message }
    }

    fn said(front: &mut Front) -> String {
        String::from_utf8(front.take_output()).expect("text")
    }

    fn asked(front: &mut Front, text: &str) -> Box<Asked> {
        match front.handle(request(text)) {
            Ok(Heard::Asked(asked)) => asked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_is_answered_without_a_stream_and_without_a_challenge() {
        let mut front = front(false);
        for uri in ["*", "rtsp://h", "rtsp://h/live/cam"] {
            assert!(matches!(front.handle(request(&format!("OPTIONS {uri} RTSP/1.0\nCSeq: 3"))), Ok(Heard::Answered)));
            let said = said(&mut front);
            assert!(said.starts_with("RTSP/1.0 200 OK\r\nCSeq: 3\r\nPublic: OPTIONS, DESCRIBE"), "{said}");
            assert!(!said.contains("GET_PARAMETER"));
        }
    }

    #[test]
    fn describe_plays_and_announce_publishes() {
        let mut front = front(false);
        let play = asked(&mut front, "DESCRIBE rtsp://h/live/cam?token=x RTSP/1.0\nCSeq: 1\nAuthorization: Bearer abc");
        assert_eq!((play.action, play.method()), (Action::Play, &b"DESCRIBE"[..]));
        assert_eq!(play.credentials.tokens, [b"abc"]);
        let publish = asked(&mut front, "ANNOUNCE rtsp://h/live/cam RTSP/1.0\nCSeq: 2\n\nv=0");
        assert_eq!((publish.action, &publish.message.body[..]), (Action::Publish, &b"v=0"[..]));
        assert!(said(&mut front).is_empty());
    }

    #[test]
    fn everything_else_waits_for_a_stream() {
        let mut front = front(false);
        for (method, code) in [("SETUP", 455), ("PLAY", 455), ("TEARDOWN", 454), ("GET_PARAMETER", 454), ("REDIRECT", 501)] {
            assert!(matches!(front.handle(request(&format!("{method} rtsp://h/a RTSP/1.0\nCSeq: 1"))), Ok(Heard::Answered)));
            let said = said(&mut front);
            assert!(said.starts_with(&format!("RTSP/1.0 {code} ")), "{said}");
        }
        assert!(matches!(front.handle(request("DESCRIBE * RTSP/1.0\nCSeq: 1")), Err(FrontError::Url(_))));
        assert!(said(&mut front).starts_with("RTSP/1.0 400 The URL is not rtsp://host/path\r\n"));
    }

    #[test]
    fn hostile_30_five_failures_and_a_hundred_requests_are_enough() {
        let mut front = front(false);
        let asked = asked(&mut front, "DESCRIBE rtsp://h/a RTSP/1.0\nCSeq: 1");
        let again: Vec<bool> = (0..MAX_FAILURES).map(|_| front.challenge(&asked, "The token is not known")).collect();
        assert_eq!(again, [true, true, true, true, false]);
        let told = said(&mut front);
        assert_eq!(told.matches("401 The token is not known\r\n").count(), 5);
        assert_eq!((told.matches("Connection: close").count(), told.matches("Digest ").count()), (1, 5));
        let ends: Vec<_> = (1..=MAX_REQUESTS).map(|_| front.handle(request("OPTIONS * RTSP/1.0\nCSeq: 1")).err()).collect();
        assert_eq!(ends.iter().flatten().collect::<Vec<_>>(), [&FrontError::TooMany]);
        assert!(
            said(&mut front)
                .ends_with("RTSP/1.0 400 More than 100 requests without a stream\r\nCSeq: 1\r\nConnection: close\r\n\r\n")
        );
    }

    #[test]
    fn hostile_30_a_request_without_a_number_is_answered_400() {
        let mut front = front(false);
        assert!(front.handle(request("OPTIONS * RTSP/1.0")).is_err());
        assert!(said(&mut front).starts_with("RTSP/1.0 400 CSeq is missing"));
        let mut front = self::front(false);
        assert!(front.handle(request("RTSP/1.0 200 OK\nCSeq: 1")).is_err(), "an answer that nobody asked for");
    }

    #[test]
    fn who_is_refused_is_told_at_its_first_request() {
        let mut front = front(true);
        front.refuse_all(503, "Too many connections".to_owned());
        assert!(matches!(front.handle(request("OPTIONS * RTSP/1.0\nCSeq: 1")), Ok(Heard::Answered)));
        assert!(said(&mut front).starts_with("RTSP/1.0 503 Too many connections\r\n"));
    }
}
