//! What is looked at while bytes pass: the client's commands, and the upstream's.

use std::rc::Rc;
use std::sync::Arc;

use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::report;
use crate::admission::Refusal;
use crate::protocol::name::{Action, StreamName};
use crate::protocol::rtmp::amf0::Value;
use crate::protocol::rtmp::command::{Command, kind};
use crate::protocol::rtmp::joiner::{Filter, StreamIds, Verdict};
use crate::protocol::rtmp::replay::Renamer;
use crate::protocol::rtmp::server::judge_window;
use crate::protocol::rtmp::tracker::Header;
use crate::upstream::Target;

/// Judges the client's commands: renames streams, and lets nobody publish or play a second stream that its token does not
/// open.
pub(super) struct ClientFilter {
    place: Rc<Place>,
    target: Arc<Target>,
    renamer: Renamer,
    /// The app at the upstream: another one needs another connect.
    upstream_app: Vec<u8>,
    stream_ids: StreamIds,
    /// As the client sent them with connect.
    app: Vec<u8>,
    tokens: Vec<Vec<u8>>,
    /// Why the filter ended the session, and what to tell the client.
    ended: Option<(Outcome, Action)>,
}

impl ClientFilter {
    pub(super) fn new(
        place: Rc<Place>,
        target: Arc<Target>,
        renamer: Renamer,
        upstream_app: Vec<u8>,
        stream_ids: StreamIds,
        (app, tokens): (Vec<u8>, Vec<Vec<u8>>),
    ) -> Self {
        Self { place, target, renamer, upstream_app, stream_ids, app, tokens, ended: None }
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
        let mut name = StreamName::parse(&self.app, &stream).map_err(|e| e.to_string())?;
        self.place
            .shared
            .gate
            .authenticate(action, &mut name, &self.tokens)
            .and_then(|granted| self.place.shared.gate.still_good(granted.token))
            .map_err(|refusal| self.unauthorised(action, &refusal))?;
        let names = self.target.address(&name, &self.place.shared.forward).map_err(|e| e.to_string())?;
        if names.app != self.upstream_app {
            return Err("the stream belongs to another app of the upstream: connect anew".to_owned());
        }
        self.renamer.also(stream, names.stream);
        self.renamer.rename(command);
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
                let by_id = matches!(name, b"deleteStream" | b"closeStream") && self.map_number(&mut command);
                let renamed = self.renamer.rename(&mut command);
                return if by_id || renamed { Verdict::Replace(command.encode()) } else { Verdict::Pass };
            }
        };
        match self.again(action, &mut command) {
            Ok(()) => Verdict::Replace(command.encode()),
            Err(text) => {
                let reason = if action == Action::Publish { "second_publish_refused" } else { "second_play_refused" };
                self.end(reason, Status::Rejected, text, action)
            }
        }
    }
}

/// Judges the upstream's commands: what would send the client past the relay is not passed on.
pub(super) struct UpstreamFilter {
    /// The upstream asked to be reconnected to.
    pub(super) reconnect_asked: bool,
}

impl Filter for UpstreamFilter {
    fn message(&mut self, header: &Header, payload: &[u8]) -> Verdict {
        if !matches!(header.kind, kind::COMMAND | kind::COMMAND_AMF3) {
            return Verdict::Pass;
        }
        // A command that we cannot read is the client's to judge: nothing in it is ours.
        let Ok(command) = Command::decode(header.kind, payload) else { return Verdict::Pass };
        let code = command.args.get(1).and_then(|info| info.get("code")).and_then(Value::as_str);
        if command.name == b"onStatus" && code == Some(b"NetConnection.Connect.ReconnectRequest") {
            self.reconnect_asked = true;
            return Verdict::Drop;
        }
        Verdict::Pass
    }
}
