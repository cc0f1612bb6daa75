//! Pure: what the upstream says, in the client's names, and what comes of it.

use super::{Denial, Dialogue, MAX_IN_FLIGHT, MAX_TRIES, METHODS, Pending, Phase, Trust, Word};
use crate::protocol::rtsp::digest::{Scheme, quote, schemes};
use crate::protocol::rtsp::headers;
use crate::protocol::rtsp::message::{Message, Start};
use crate::protocol::rtsp::tracks::Tracks;
use crate::protocol::rtsp::transport::{self, Transport};
use crate::protocol::rtsp::url::Address;

impl Dialogue {
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
}
