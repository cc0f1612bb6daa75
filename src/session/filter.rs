//! What is looked at while bytes pass: the client's commands, and the upstream's.

use std::rc::Rc;
use std::sync::Arc;

use super::find::Asked;
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::report;
use crate::admission::{Claim, Granted, Proof, Refusal};
use crate::protocol::name::{Action, StreamName};
use crate::protocol::rtmp::amf0::Value;
use crate::protocol::rtmp::command::{Command, kind};
use crate::protocol::rtmp::joiner::{Filter, StreamIds, Verdict};
use crate::protocol::rtmp::replay::Renamer;
use crate::protocol::rtmp::server::judge_window;
use crate::protocol::rtmp::tracker::Header;
use crate::upstream::{Target, TargetId};

/// Judges the client's commands: renames streams, and lets nobody publish or play a second stream that its token does not
/// open.
pub(super) struct ClientFilter {
    place: Rc<Place>,
    asked: Rc<Asked>,
    target: Arc<Target>,
    renamer: Renamer,
    /// The app at the upstream: another one needs another connect.
    upstream_app: Vec<u8>,
    stream_ids: StreamIds,
    /// Every upstream where the stream has been.
    lived_at: Vec<TargetId>,
    /// The right to publish the stream, if it is published.
    claim: Claim,
    /// The client has said that its stream is over, or has begun another on the same connection.
    over: bool,
    /// Why the filter ended the session, and what to tell the client.
    ended: Option<(Outcome, Action)>,
}

impl ClientFilter {
    /// For a stream that was `found` an upstream.
    pub(super) fn new(place: Rc<Place>, asked: Rc<Asked>, claim: Claim, at: Upstream) -> Self {
        let Upstream { target, renamer, app, stream_ids } = at;
        let lived_at = vec![target.id];
        Self { place, asked, lived_at, target, renamer, upstream_app: app, stream_ids, claim, over: false, ended: None }
    }

    /// The stream goes to another upstream from now on.
    pub(super) fn moved(&mut self, to: Upstream) {
        let Upstream { target, renamer, app, stream_ids } = to;
        if !self.lived_at.contains(&target.id) {
            self.lived_at.push(target.id);
        }
        (self.target, self.renamer, self.upstream_app, self.stream_ids) = (target, renamer, app, stream_ids);
    }

    /// The upstream.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Every upstream where the stream has been: what one of them says against it may be about ourselves.
    pub(super) fn lived_at(&self) -> &[TargetId] {
        &self.lived_at
    }

    /// What the client asked for when it came.
    pub(super) fn asked(&self) -> &Rc<Asked> {
        &self.asked
    }

    /// The stream's name as the upstream knows it.
    pub(super) fn upstream_stream(&self) -> &[u8] {
        self.renamer.stream()
    }

    /// The right to publish the stream, if it is published.
    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Whoever wants the stream's name may have it: its upstream knows that it is over.
    pub(super) fn release(&mut self) {
        self.claim.release();
    }

    /// Whether the stream that the client came with is over, as the client sees it.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Why [`Verdict::End`] was given.
    pub(super) fn take_ended(&mut self) -> Option<(Outcome, Action)> {
        self.ended.take()
    }

    fn end(&mut self, reason: &'static str, status: Status, text: impl ToString, action: Action) -> Verdict {
        // What is refused ends by us; what breaks the protocol, by the client.
        let side = if status == Status::Rejected { Side::Relay } else { Side::Client };
        self.ended = Some((Outcome::new(side, reason, status).because(text), action));
        Verdict::End
    }

    /// A publish or play after the first: authorised like it, towards the same app of the same upstream.
    fn again(&mut self, action: Action, command: &mut Command) -> Result<(), String> {
        let stream = command.stream_name().ok_or("no stream name was given")?.to_vec();
        let request = &self.asked.request;
        let mut name = StreamName::of_rtmp(&request.app, &stream).map_err(|e| e.to_string())?;
        let gate = &self.place.shared.gate;
        let proof = self.asked.login.as_ref().map(Proof::Login);
        let granted = gate.authenticate(action, &mut name, &request.tokens, proof);
        let granted = granted.and_then(|granted| gate.still_good(granted.token).map(|()| granted));
        let granted = granted.map_err(|refusal| self.unauthorised(action, &refusal))?;
        if action == Action::Publish {
            self.claim_again(&name, granted)?;
        }
        let names = self.target.address(&name, &self.place.shared.forward).map_err(|e| e.to_string())?;
        if names.app != self.upstream_app {
            return Err("the stream belongs to another app of the upstream: connect anew".to_owned());
        }
        self.renamer.also(stream, names.stream);
        self.renamer.rename(command);
        Ok(())
    }

    /// Takes the right to publish another stream, which nobody may have: to take over, a client comes anew.
    fn claim_again(&mut self, name: &StreamName, granted: Granted) -> Result<(), String> {
        let identity = name.identity().map_err(|e| e.to_string())?;
        if self.claim.name() != Some(&identity) {
            let taken = self.claim.take_free(&identity, granted.token_name);
            taken.map_err(|_| Refusal::AlreadyPublishing.to_string())?;
            self.claim.is_at(self.target.id.0);
        }
        Ok(())
    }

    fn unauthorised(&self, action: Action, refusal: &Refusal) -> String {
        let text = refusal.to_string();
        report::unauthorised(&self.place, action, &text);
        text
    }

    fn map_number(&self, command: &mut Command) -> bool {
        let StreamIds { from, to } = self.stream_ids;
        match command.args.get_mut(1) {
            Some(Value::Number(id)) if from != to && *id == f64::from(from) => {
                *id = f64::from(to);
                true
            }
            _ => false,
        }
    }
}

impl Filter for ClientFilter {
    fn message(&mut self, header: &Header, payload: &[u8]) -> Verdict {
        if header.kind == kind::WINDOW_ACK_SIZE
            && let Err(e) = judge_window(payload)
        {
            return self.end(e.reason(), Status::Success, e, Action::Publish);
        }
        if !matches!(header.kind, kind::COMMAND | kind::COMMAND_AMF3) {
            return Verdict::Pass;
        }
        let mut command = match Command::decode(header.kind, payload) {
            Ok(command) => command,
            Err(e) => return self.end("malformed_command", Status::Success, e, Action::Publish),
        };
        let action = match &command.name[..] {
            b"publish" => Action::Publish,
            b"play" => Action::Play,
            b"play2" => return self.end("second_play_refused", Status::Rejected, "play2 is not supported", Action::Play),
            b"connect" => return self.end("command_out_of_order", Status::Success, "connect came twice", Action::Publish),
            b"createStream" if self.stream_ids.from != self.stream_ids.to => {
                let text = "a second createStream is not supported with this upstream";
                return self.end("command_out_of_order", Status::Success, text, Action::Publish);
            }
            name => {
                if matches!(name, b"FCUnpublish" | b"deleteStream" | b"closeStream") {
                    self.over = true;
                    self.release();
                }
                let by_id = matches!(name, b"deleteStream" | b"closeStream") && self.map_number(&mut command);
                let renamed = self.renamer.rename(&mut command);
                return if by_id || renamed { Verdict::Replace(command.encode()) } else { Verdict::Pass };
            }
        };
        self.over = true;
        match self.again(action, &mut command) {
            Ok(()) => Verdict::Replace(command.encode()),
            Err(text) => {
                let reason = if action == Action::Publish { "second_publish_refused" } else { "second_play_refused" };
                self.end(reason, Status::Rejected, text, action)
            }
        }
    }
}

/// How a client's stream is known at an upstream.
pub(super) struct Upstream {
    pub(super) target: Arc<Target>,
    pub(super) renamer: Renamer,
    pub(super) app: Vec<u8>,
    pub(super) stream_ids: StreamIds,
}

/// Judges the upstream's commands: what would send the client past the relay is not passed on.
#[derive(Debug, Default)]
pub(super) struct UpstreamFilter {
    /// The upstream asked to be reconnected to.
    pub(super) reconnect_asked: bool,
    /// The upstream has said that the stream is over: its end is no accident.
    pub(super) said_over: bool,
}

impl Filter for UpstreamFilter {
    fn message(&mut self, header: &Header, payload: &[u8]) -> Verdict {
        if !matches!(header.kind, kind::COMMAND | kind::COMMAND_AMF3) {
            return Verdict::Pass;
        }
        // A command that we cannot read is the client's to judge: nothing in it is ours.
        let Ok(command) = Command::decode(header.kind, payload) else { return Verdict::Pass };
        if command.name != b"onStatus" {
            return Verdict::Pass;
        }
        let info = |key| command.args.get(1).and_then(|info| info.get(key)).and_then(Value::as_str).unwrap_or_default();
        let code = info("code");
        if code == b"NetConnection.Connect.ReconnectRequest" {
            self.reconnect_asked = true;
            return Verdict::Drop;
        }
        self.said_over |=
            info("level") == b"error" || code == b"NetStream.Unpublish.Success" || code == b"NetConnection.Connect.Closed";
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::rtmp::command::on_status;

    fn heard(level: &str, code: &str) -> (Verdict, bool, bool) {
        let mut filter = UpstreamFilter::default();
        let header = Header { kind: kind::COMMAND, ..Header::default() };
        let verdict = filter.message(&header, &on_status(level, code, "words").encode());
        (verdict, filter.reconnect_asked, filter.said_over)
    }

    #[test]
    fn an_upstream_that_says_the_stream_is_over_is_told_from_one_that_dies() {
        assert_eq!(heard("error", "NetStream.Publish.BadName"), (Verdict::Pass, false, true));
        assert_eq!(heard("status", "NetStream.Unpublish.Success"), (Verdict::Pass, false, true));
        assert_eq!(heard("status", "NetConnection.Connect.Closed"), (Verdict::Pass, false, true));
        assert_eq!(heard("status", "NetStream.Publish.Start"), (Verdict::Pass, false, false));
        assert_eq!(heard("status", "NetConnection.Connect.ReconnectRequest"), (Verdict::Drop, true, false));
    }
}
