//! Pure: a client and its upstream in conversation, each in its own names, for as long as the session lasts.
//!
//! Requests of the client are numbered anew towards the upstream, and answered in their order, those that the relay answers itself
//! among them. One connection is one stream: what names another is refused here, for the upstream knows nothing of our tokens.

mod answer;

use std::collections::VecDeque;

use super::framing::{Channels, FramingError};
use super::headers;
use super::login::{Answerer, Login};
use super::message::{Message, MessageError, Start};
use super::tracks::Tracks;
use super::transport::{self, Transport};
use super::url::{Address, RequestUrl, is_plain};
use crate::protocol::name::Action;

/// Most requests that wait for their answers.
pub const MAX_IN_FLIGHT: usize = 16;
/// Most tries at an upstream's challenges for one request: one without, one with, one with a fresh nonce.
const MAX_TRIES: u8 = 3;

const METHODS: [&str; 10] =
    ["OPTIONS", "DESCRIBE", "ANNOUNCE", "SETUP", "PLAY", "PAUSE", "RECORD", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER"];

/// Why a conversation ends. What can be said to the client stands in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialogueError {
    /// A message that is not as it should be.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// More than [`MAX_IN_FLIGHT`].
    #[error("More than 16 requests wait for their answers")]
    TooMany,
}

impl DialogueError {
    /// One word of a bounded set, for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Framing(e) => e.reason(),
            Self::TooMany => "too_many_rtsp_requests",
        }
    }
}

/// Whose credentials are whose.
#[derive(Debug)]
pub enum Trust {
    /// The relay answers the upstream's challenges.
    Own(Login),
    /// The client's go to the upstream, and the upstream's Basic challenge to the client: the relay asks for none itself.
    Client,
    /// The client's end here, and there are none for the upstream.
    Nobody,
}

/// What the upstream has said to the DESCRIBE or ANNOUNCE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Yes.
    Taken,
    /// It asks the client for a password, which passes.
    Challenged,
    /// No: its own code, or that of an answer which the relay cannot pass on. The client is told.
    Refused(u16),
}

/// How far the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It was not begun yet.
    Setup,
    /// Media flow, or may.
    Flowing,
    /// The client asked for silence, or ended the stream.
    Paused,
}

/// A request of the client that has no answer yet.
struct Pending {
    cseq: u64,
    /// Our number for it at the upstream.
    sent: u64,
    method: &'static str,
    track: Option<usize>,
    /// Kept where the upstream may ask for a password.
    request: Option<Message>,
    tries: u8,
    answer: Option<Message>,
}

/// A request that does not pass.
struct Denial(u16, &'static str);

/// See the module.
pub struct Dialogue {
    action: Action,
    client: Address,
    upstream: Address,
    trust: Trust,
    answerer: Option<Answerer>,
    tracks: Tracks,
    channels: Channels,
    pending: VecDeque<Pending>,
    /// Numbers of the upstream's own requests that the client has not answered.
    asked: VecDeque<u64>,
    last: u64,
    session: Option<Vec<u8>>,
    phase: Phase,
    over: bool,
    word: Option<Word>,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
}

impl Dialogue {
    /// A conversation about the stream that the client calls `client` and the upstream `upstream`.
    pub fn new(action: Action, client: Address, upstream: Address, mut trust: Trust) -> Self {
        let answerer = if let Trust::Own(login) = &mut trust { Some(Answerer::new(login.clone())) } else { None };
        Self {
            action,
            client,
            upstream,
            trust,
            answerer,
            tracks: Tracks::default(),
            channels: Channels::default(),
            pending: VecDeque::new(),
            asked: VecDeque::new(),
            last: 0,
            session: None,
            phase: Phase::Setup,
            over: false,
            word: None,
            to_client: Vec::new(),
            to_upstream: Vec::new(),
        }
    }

    /// What SETUP has agreed on.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// How far the stream is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the client has ended the session itself.
    pub fn over(&self) -> bool {
        self.over
    }

    /// The upstream's word on the first request, once it has said it.
    pub fn word(&self) -> Option<&Word> {
        self.word.as_ref()
    }

    /// Takes what is to be sent to the client.
    pub fn take_to_client(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.to_client)
    }

    /// Takes what is to be sent to the upstream.
    pub fn take_to_upstream(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.to_upstream)
    }

    /// Hears the client. `chance` fills bytes at random.
    ///
    /// # Errors
    /// [`DialogueError`]; the client was told.
    pub fn handle_client(&mut self, message: Message, chance: &mut dyn FnMut(&mut [u8])) -> Result<(), DialogueError> {
        let Start::Request { method, uri } = &message.start else {
            self.client_answers(message);
            return Ok(());
        };
        let (method, uri) = (method.clone(), uri.clone());
        let cseq = message.cseq().map_err(|e| self.broke(e))?;
        let address = RequestUrl::parse(&uri).map_err(|_| self.broke(MessageError::StartLine))?;
        if self.pending.len() >= MAX_IN_FLIGHT {
            Message::answer(400, &DialogueError::TooMany.to_string(), cseq).write(&mut self.to_client);
            return Err(DialogueError::TooMany);
        }
        let routed = known(&method).and_then(|method| Ok((method, self.route(method, &address)?)));
        let denied = match routed {
            Ok((method, (uri, track))) => self.pass(message, method, uri, track, &address, cseq, chance).err(),
            Err(denial) => Some(denial),
        };
        if let Some(Denial(code, text)) = denied {
            self.answer_here(cseq, Message::answer(code, text, cseq));
        }
        Ok(())
    }

    fn broke(&mut self, error: MessageError) -> DialogueError {
        let error = FramingError::from(error);
        self.tell_broken(error);
        error.into()
    }

    /// Tells the client that what it sent cannot be read.
    pub fn tell_broken(&mut self, error: FramingError) {
        super::front::farewell(error).write(&mut self.to_client);
    }

    /// The upstream's URL for what a request names, and the track where it names one.
    fn route(&self, method: &str, url: &RequestUrl) -> Result<(Vec<u8>, Option<usize>), Denial> {
        let elsewhere = Denial(455, "Another stream needs another connection");
        let refused = match self.action {
            Action::Play => ["ANNOUNCE", "RECORD"],
            Action::Publish => ["DESCRIBE", "PLAY"],
        };
        if refused.contains(&method) {
            return Err(Denial(455, "This connection is for the other direction"));
        }
        let names_stream = matches!(method, "DESCRIBE" | "ANNOUNCE");
        let address = match url {
            RequestUrl::Server if names_stream => return Err(elsewhere),
            RequestUrl::Server => return Ok((self.whole(), None)),
            RequestUrl::Path(address) => address,
        };
        match self.client.below(address) {
            Some(b"") if names_stream => Ok((self.upstream.to_bytes(), None)),
            Some(b"") if method == "SETUP" => match self.tracks.find(b"") {
                Some(n) => self.track(n),
                None => Ok((self.whole(), None)),
            },
            Some(b"") => Ok((self.whole(), None)),
            _ if names_stream => Err(elsewhere),
            Some(control) => match self.tracks.find(control) {
                Some(n) => self.track(n),
                // A publisher names its tracks itself.
                None if self.action == Action::Publish && control.split(|&b| b == b'/').all(is_plain) => {
                    Ok((self.upstream.resolve(control), None))
                }
                None => Err(Denial(404, "There is no such track")),
            },
            None if address.path.is_empty() && method != "SETUP" => Ok((self.whole(), None)),
            // Without Content-Base, GStreamer puts the control in place of the stream's name.
            None => match self.tracks.find(address.last()).filter(|_| !address.last().is_empty()) {
                Some(n) => self.track(n),
                None => Err(elsewhere),
            },
        }
    }

    fn whole(&self) -> Vec<u8> {
        if self.tracks.aggregate.is_empty() { self.upstream.to_bytes() } else { self.tracks.aggregate.clone() }
    }

    fn track(&self, n: usize) -> Result<(Vec<u8>, Option<usize>), Denial> {
        let track = self.tracks.get(n).ok_or(Denial(404, "There is no such track"))?;
        Ok((track.upstream.clone(), Some(n)))
    }

    #[expect(clippy::too_many_arguments, reason = "one request, taken apart")]
    fn pass(
        &mut self,
        mut message: Message,
        method: &'static str,
        uri: Vec<u8>,
        track: Option<usize>,
        url: &RequestUrl,
        cseq: u64,
        chance: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), Denial> {
        match method {
            "SETUP" => {
                let transport = self.picked(&message)?;
                message.headers.set("Transport", transport.to_bytes());
                if let (Some(n), RequestUrl::Path(address)) = (track, url) {
                    self.tracks.set_used(n, address.to_bytes());
                }
            }
            "ANNOUNCE" => {
                let announced = Tracks::announced(&self.client, &self.upstream, &message.body);
                (self.tracks, message.body) = announced.map_err(|_| Denial(400, "The description has too many media"))?;
            }
            "TEARDOWN" if track.is_none() => self.over = true,
            _ => {}
        }
        headers::towards_upstream(&mut message.headers, matches!(self.trust, Trust::Client));
        message.start = Start::Request { method: method.as_bytes().to_vec(), uri };
        let mut pending = Pending { cseq, sent: 0, method, track, request: Some(message), tries: 0, answer: None };
        self.send(&mut pending, chance);
        self.pending.push_back(pending);
        Ok(())
    }

    fn picked(&self, message: &Message) -> Result<Transport, Denial> {
        use transport::TransportError::{Channels, Mode, NotTcp};
        let picked = Transport::pick(message.headers.all("Transport")).and_then(|picked| {
            let other = picked.records().is_some_and(|records| records != (self.action == Action::Publish));
            if other { Err(Mode) } else { Ok(picked) }
        });
        picked.map_err(|e| match e {
            NotTcp => Denial(461, "Use TCP (interleaved): this relay passes no UDP"),
            Channels => Denial(400, "The interleaved channels of Transport cannot be read"),
            Mode => Denial(455, "The mode of Transport is not that of the stream"),
        })
    }

    /// Sends a request, anew where the upstream has asked for a password.
    fn send(&mut self, pending: &mut Pending, chance: &mut dyn FnMut(&mut [u8])) {
        let Some(mut message) = pending.request.take() else { return };
        self.last += 1;
        pending.sent = self.last;
        pending.tries += 1;
        message.headers.lead("CSeq", self.last.to_string());
        if let (Some(answerer), Start::Request { method, uri }) = (&mut self.answerer, &message.start) {
            let authorization = answerer.authorization(method, uri, chance);
            authorization.into_iter().for_each(|value| message.headers.set("Authorization", value));
        }
        message.write(&mut self.to_upstream);
        pending.request = self.answerer.is_some().then_some(message);
    }

    fn answer_here(&mut self, cseq: u64, answer: Message) {
        let answer = Some(answer);
        self.pending.push_back(Pending { cseq, sent: 0, method: "", track: None, request: None, tries: 0, answer });
        self.flush();
    }

    /// Answers in the order of the requests.
    fn flush(&mut self) {
        while let Some(answer) = self.pending.front_mut().and_then(|pending| pending.answer.take()) {
            answer.write(&mut self.to_client);
            self.pending.pop_front();
        }
    }

    fn client_answers(&mut self, mut message: Message) {
        let Some(at) = message.cseq().ok().and_then(|cseq| self.asked.iter().position(|&asked| asked == cseq)) else { return };
        let Some(cseq) = self.asked.remove(at) else { return };
        headers::towards_upstream(&mut message.headers, false);
        message.headers.lead("CSeq", cseq.to_string());
        message.write(&mut self.to_upstream);
    }

    /// Ends the session at the upstream, where one was set up and the client has not done so. `false` where there is nothing to say.
    pub fn tear_down(&mut self, chance: &mut dyn FnMut(&mut [u8])) -> bool {
        let Some(session) = self.session.take().filter(|_| !self.over) else { return false };
        self.over = true;
        let method = "TEARDOWN";
        let mut request = Message::request(method, &self.whole());
        request.headers.push("Session", session);
        let mut pending = Pending { cseq: 0, sent: 0, method, track: None, request: Some(request), tries: 0, answer: None };
        self.send(&mut pending, chance);
        true
    }

    /// Answers everything that waits: nothing else will come from the upstream.
    pub fn abandon(&mut self, code: u16, text: &str) {
        for pending in &mut self.pending {
            pending.answer.get_or_insert_with(|| Message::answer(code, text, pending.cseq));
        }
        self.flush();
    }
}

fn known(method: &[u8]) -> Result<&'static str, Denial> {
    METHODS.iter().find(|known| known.as_bytes() == method).copied().ok_or(Denial(501, "This method is not relayed"))
}

#[cfg(test)]
#[path = "dialogue_tests.rs"]
mod tests;
