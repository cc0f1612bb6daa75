//! An RTSP client, the relay and an upstream in conversation: everybody hears whole messages, answers come in the order of their
//! requests, nobody is sent past the relay, and neither token nor password goes where it does not belong.

use super::cuts::{Chance, assert_is_a_word_of_ours, number};
use super::rtsp_framing::{messages, messages_until_broken};
use relay::protocol::name::Action;
use relay::protocol::rtsp::dialogue::{Dialogue, Phase, Trust};
use relay::protocol::rtsp::front::{Front, Heard, MAX_FAILURES, MAX_REQUESTS};
use relay::protocol::rtsp::message::Message;
use relay::protocol::rtsp::sdp::MAX_MEDIA;
use relay::protocol::rtsp::url::Address;

/// Control bytes: who speaks when, how much of the rest is the client's, and a byte of flags.
pub const CONTROL: usize = 5;

/// The most that one message makes the relay say in return, beyond what it was told: an answer with two challenges.
const MAX_ANSWER: usize = 1024;

/// Leads a conversation. Flags: 1, the client's credentials are the upstream's to judge; 2, the connection is private; 4, the client is
/// asked for a token first, as often as it may be.
pub fn run(data: &[u8]) {
    let Some((control, bytes)) = data.split_first_chunk::<CONTROL>() else { return };
    let (seed, cut, flags) = (number(control, 0), usize::from(number(control, 2)), control[4]);
    let (client, upstream) = bytes.split_at(cut.min(bytes.len()));
    let mut client = messages_until_broken(client).into_iter();
    let mut front = Front::new(flags & 2 != 0, &mut |bytes| bytes.fill(1));
    let Some((action, url, first)) = enter(&mut front, &mut client, flags & 4 != 0) else { return };
    let trust = if flags & 1 == 0 { Trust::Nobody } else { Trust::Client };
    let up = Address::parse(b"rtsp://up.example/in/key").expect("an URL");
    let trusts_client = matches!(trust, Trust::Client);
    let mut talk = Talk::new(Dialogue::new(action, url, up, trust), trusts_client);
    let mut goes_on = talk.client(first);
    let (mut upstream, mut chance) = (messages_until_broken(upstream).into_iter(), Chance::new(seed));
    while goes_on {
        let client_first = chance.below(2) == 0;
        let next = if client_first { client.next().map(|m| (true, m)) } else { upstream.next().map(|m| (false, m)) };
        let next = next.or_else(|| upstream.next().map(|m| (false, m))).or_else(|| client.next().map(|m| (true, m)));
        goes_on = match next {
            Some((true, message)) => talk.client(message),
            Some((false, message)) => talk.upstream(message),
            None => break,
        };
    }
    talk.end();
}

/// A client until it has named a stream: everything before has one answer.
fn enter(front: &mut Front, client: &mut impl Iterator<Item = Message>, challenges: bool) -> Option<(Action, Address, Message)> {
    let (mut requests, mut failures) = (0, 0);
    for message in client {
        requests += 1;
        let heard = front.handle(message);
        let said = front.take_output();
        assert!(said.len() <= MAX_ANSWER);
        let answers = messages(&said).expect("every client can read it");
        match heard {
            Ok(Heard::Answered) => assert_eq!(answers.len(), 1),
            Ok(Heard::Asked(asked)) => {
                assert!(answers.is_empty(), "it is not answered yet");
                assert!(requests <= MAX_REQUESTS);
                if challenges {
                    failures += 1;
                    assert_eq!(front.challenge(&asked, "no"), failures < MAX_FAILURES);
                    assert_eq!(messages(&front.take_output()).expect("it can be read").len(), 1);
                    if failures == MAX_FAILURES {
                        return None;
                    }
                    continue;
                }
                // What cannot be judged is not relayed.
                asked.url.stream().ok()?.identity().ok()?;
                return Some((asked.action, asked.url, asked.message));
            }
            Err(e) => {
                assert_is_a_word_of_ours(e.reason());
                assert_eq!(answers.len(), 1);
                return None;
            }
        }
    }
    None
}

/// A dialogue, and what has been said in it.
struct Talk {
    dialogue: Dialogue,
    trusts_client: bool,
    /// Numbers of the client's requests that wait for their answers.
    waiting: Vec<u64>,
    /// Numbers of requests that the upstream was sent, and of those that it sent itself.
    last: u64,
    asked: Vec<u64>,
    set_up: bool,
}

impl Talk {
    fn new(dialogue: Dialogue, trusts_client: bool) -> Self {
        Self { dialogue, trusts_client, waiting: Vec::new(), last: 0, asked: Vec::new(), set_up: false }
    }

    /// The client speaks; whether the conversation goes on.
    fn client(&mut self, message: Message) -> bool {
        let length = message.to_bytes().len();
        self.waiting.extend(message.as_request().and_then(|_| message.cseq().ok()));
        let goes_on = match self.dialogue.handle_client(message, &mut |bytes| bytes.fill(1)) {
            Ok(()) => true,
            Err(e) => {
                assert_is_a_word_of_ours(e.reason());
                false
            }
        };
        self.heard(length, goes_on);
        goes_on
    }

    fn upstream(&mut self, message: Message) -> bool {
        let length = message.to_bytes().len();
        if message.as_request().is_some() {
            self.asked.extend(message.cseq().ok());
        }
        self.set_up |=
            message.as_response().is_some_and(|(code, _)| (200..300).contains(&code)) && message.headers.has("Transport");
        self.dialogue.handle_upstream(message, &mut |bytes| bytes.fill(1));
        self.heard(length, true);
        true
    }

    /// Judges what the two were told after `length` bytes from one of them.
    fn heard(&mut self, length: usize, goes_on: bool) {
        let (down, up) = (self.dialogue.take_to_client(), self.dialogue.take_to_upstream());
        // Each track's control may be the whole URL, and a held answer may come with another.
        assert!(down.len() <= (1 + self.waiting.len()) * (140 * 1024 + 2 * MAX_MEDIA * 4096));
        assert!(up.len() <= 2 * length + MAX_ANSWER + 2 * MAX_MEDIA * 4096, "{} bytes of {length}", up.len());
        for message in messages(&down).expect("the client can read it") {
            match (message.as_request(), message.as_response()) {
                (Some((method, _)), _) => assert_ne!(method, b"REDIRECT"),
                (_, Some((code, _))) => {
                    assert!(!(300..400).contains(&code), "nobody is sent elsewhere");
                    if goes_on {
                        assert_eq!(message.cseq().ok(), Some(self.waiting.remove(0)), "answers keep the order of requests");
                    }
                }
                _ => {}
            }
        }
        for message in messages(&up).expect("the upstream can read it") {
            assert!(self.trusts_client || !message.headers.has("Authorization"), "a client's credentials stay here");
            if message.as_request().is_some() {
                let cseq = message.cseq().expect("a request has a number");
                assert!(cseq > self.last, "numbers go up");
                self.last = cseq;
            } else {
                let cseq = message.cseq().expect("an answer has a number");
                assert!(self.asked.contains(&cseq), "an answer to nobody's question");
            }
        }
        let open = !self.dialogue.channels().open.is_empty();
        assert!(!open || self.set_up, "a channel that no SETUP has opened");
    }

    fn end(mut self) {
        let flowed = self.dialogue.phase();
        self.dialogue.abandon(502, "over");
        for message in messages(&self.dialogue.take_to_client()).expect("the client can read it") {
            if message.as_response().is_some() && !self.waiting.is_empty() {
                self.waiting.remove(0);
            }
        }
        let told = self.dialogue.tear_down(&mut |bytes| bytes.fill(1));
        assert_eq!(messages(&self.dialogue.take_to_upstream()).expect("it can be read").len(), usize::from(told));
        assert!(!self.dialogue.tear_down(&mut |bytes| bytes.fill(1)), "once is enough");
        assert!(matches!(flowed, Phase::Setup | Phase::Flowing | Phase::Paused));
    }
}
