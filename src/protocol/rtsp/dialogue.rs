//! Pure: a client and its upstream in conversation, each in its own names, for as long as the session lasts.
//!
//! Requests of the client are numbered anew towards the upstream, and answered in their order, those that the relay answers itself
//! among them. One connection is one stream: what names another is refused here, for the upstream knows nothing of our tokens.

use std::collections::VecDeque;

use super::digest::{Scheme, quote, schemes};
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

    /// Hears the upstream.
    pub fn handle_upstream(&mut self, message: Message, chance: &mut dyn FnMut(&mut [u8])) {
        if message.as_request().is_some() {
            return self.upstream_asks(message);
        }
        let Some((code @ 200.., _)) = message.as_response() else { return };
        let cseq = message.cseq().ok();
        let waits = |pending: &Pending| pending.answer.is_none() && cseq.is_none_or(|cseq| cseq == pending.sent);
        let Some(at) = self.pending.iter().position(waits) else { return };
        let Some(mut pending) = self.pending.remove(at) else { return };
        let can_login = self.answerer.is_some() && pending.tries < MAX_TRIES;
        if code == 401 && can_login && self.may_try_again(&pending, &message) {
            self.send(&mut pending, chance);
            return self.pending.insert(at, pending);
        }
        let (cseq, method) = (pending.cseq, pending.method);
        let answer =
            self.translate(&mut pending, code, message).unwrap_or_else(|Denial(code, text)| Message::answer(code, text, cseq));
        if matches!(method, "DESCRIBE" | "ANNOUNCE") && self.word.is_none() {
            self.word = answer.as_response().map(|(told, _)| match told {
                200..=299 => Word::Taken,
                401 => Word::Challenged,
                _ => Word::Refused(code),
            });
        }
        self.pending.insert(at, Pending { answer: Some(answer), ..pending });
        self.flush();
    }

    /// Whether another answer to the upstream's challenge may be better than the one it had: there was none, or it was to an old nonce.
    fn may_try_again(&mut self, pending: &Pending, message: &Message) -> bool {
        let answered = pending.request.as_ref().is_some_and(|request| request.headers.has("Authorization"));
        let is_stale = |scheme: Scheme| scheme.get("stale").is_some_and(|value| value.eq_ignore_ascii_case(b"true"));
        let fresh = !answered || pending.tries == 1 || message.headers.all("WWW-Authenticate").flat_map(schemes).any(is_stale);
        fresh && self.answerer.as_mut().is_some_and(|answerer| answerer.hear(&message.headers))
    }

    /// The upstream's answer in the client's names.
    fn translate(&mut self, pending: &mut Pending, code: u16, mut message: Message) -> Result<Message, Denial> {
        match code {
            300..=399 => return Err(Denial(502, "The upstream sends elsewhere: put the new address into the upstream URL")),
            401 | 407 => return self.challenged(pending, &message),
            _ => {}
        }
        let base = ["Content-Base", "Content-Location"].iter().find_map(|name| message.headers.get(name)).map(<[u8]>::to_vec);
        let info = message.headers.get("RTP-Info").map(<[u8]>::to_vec);
        headers::towards_client(&mut message.headers);
        if (200..300).contains(&code) {
            self.agreed(pending, &mut message, base)?;
        }
        if let Some(public) = message.headers.get("Public") {
            let public = headers::public(public, &METHODS);
            message.headers.set("Public", public);
        }
        message.headers.remove("RTP-Info");
        if let Some(info) = info.and_then(|info| headers::rtp_info(&info, |url| self.tracks.client_url(url, &self.client))) {
            message.headers.push("RTP-Info", info);
        }
        let reason = message.as_response().map(|(_, reason)| reason.to_vec()).unwrap_or_default();
        message.start = Start::Response { code, reason };
        message.headers.lead("CSeq", pending.cseq.to_string());
        Ok(message)
    }

    /// Takes down what a request has brought about.
    fn agreed(&mut self, pending: &Pending, message: &mut Message, base: Option<Vec<u8>>) -> Result<(), Denial> {
        if let Some(session) = message.headers.get("Session") {
            self.session = session.split(|&b| b == b';').next().map(|id| id.trim_ascii().to_vec());
        }
        match pending.method {
            "DESCRIBE" => {
                if message.headers.has("Content-Encoding") {
                    return Err(Denial(502, "The upstream's description is encoded"));
                }
                let base = base.and_then(|base| Address::parse(&self.upstream.resolve(&base)).ok());
                let base = base.unwrap_or_else(|| self.upstream.clone());
                let described = Tracks::described(&base, &message.body);
                (self.tracks, message.body) = described.map_err(|_| Denial(502, "The upstream describes too many media"))?;
                if !self.client.origin.is_empty() {
                    message.headers.push("Content-Base", self.client.base());
                }
            }
            "SETUP" => {
                let transport = message.headers.get("Transport").map(transport::answered);
                let transport = transport.ok_or(Denial(502, "The upstream's answer to SETUP has no Transport"))?;
                message.headers.set("Transport", transport.to_bytes());
                self.open(pending.track, &transport)?;
                self.over = false;
            }
            "PLAY" | "RECORD" => self.phase = Phase::Flowing,
            "PAUSE" => self.phase = Phase::Paused,
            "TEARDOWN" if self.over => self.phase = Phase::Paused,
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, track: Option<usize>, transport: &Transport) -> Result<(), Denial> {
        let channels = transport.channels().ok().flatten();
        let (rtp, rtcp) = channels.ok_or(Denial(502, "The upstream's answer to SETUP names no interleaved channels"))?;
        self.channels.open.set(rtp, true);
        self.channels.open.set(rtcp, true);
        let video = track.and_then(|n| self.tracks.get(n)).is_some_and(|track| track.video);
        self.channels.video.set(rtp, video && rtp != rtcp);
        Ok(())
    }

    /// The upstream wants a password that the relay does not have.
    fn challenged(&self, pending: &Pending, message: &Message) -> Result<Message, Denial> {
        let basic = message.headers.all("WWW-Authenticate").flat_map(schemes).find(|scheme| scheme.is("Basic"));
        match (&self.trust, basic) {
            (Trust::Own(_), _) => Err(Denial(502, "The upstream does not take the user name and password of its URL")),
            (Trust::Client, Some(basic)) => {
                let mut answer = Message::answer(401, "Unauthorized", pending.cseq);
                let realm = quote(&basic.text("realm"));
                answer.headers.push("WWW-Authenticate", format!("Basic realm={realm}"));
                Ok(answer)
            }
            (Trust::Client | Trust::Nobody, _) => {
                Err(Denial(502, "The upstream asks for a password: put credentials into the upstream URL"))
            }
        }
    }

    /// A request of the upstream. What a client can answer passes; a redirect would lead it past the relay.
    fn upstream_asks(&mut self, mut message: Message) {
        let Ok(cseq) = message.cseq() else { return };
        let passes = message.as_request().is_some_and(|(method, _)| {
            [&b"OPTIONS"[..], b"GET_PARAMETER", b"SET_PARAMETER"].contains(&method) && self.asked.len() < MAX_IN_FLIGHT
        });
        if !passes {
            return Message::answer(501, "Not relayed", cseq).write(&mut self.to_upstream);
        }
        headers::towards_client(&mut message.headers);
        message.headers.lead("CSeq", cseq.to_string());
        if let Start::Request { uri, .. } = &mut message.start
            && *uri != b"*"
        {
            *uri = self.client.base();
        }
        message.write(&mut self.to_client);
        self.asked.push_back(cseq);
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
