//! Pure: what a client said, as its upstream should hear it: the upstream's app, tcUrl and stream name, and without the token.

use super::amf0::Value;
use super::chunk::Message;
use super::command::{Command, kind};
use super::server::Request;
use crate::protocol::name::{Names, Part};

/// The name of the argument and property that carries a token.
pub const TOKEN: &[u8] = b"token";

/// Renames what the client says, before and after the switch.
#[derive(Debug, Clone)]
pub struct Renamer {
    /// The stream name as the client sends it.
    client_stream: Vec<u8>,
    client_tc_url: Vec<u8>,
    names: Names,
    /// The token is ours, and taken out everywhere.
    strip_token: bool,
    /// What stands behind app and tcUrl, where the upstream asks who we are.
    behind: String,
}

impl Renamer {
    /// For the session that `request` began.
    pub fn new(request: &Request, names: Names, strip_token: bool) -> Self {
        let (client_stream, client_tc_url) = (request.stream.clone(), request.tc_url.clone());
        Self { client_stream, client_tc_url, names, strip_token, behind: String::new() }
    }

    /// The same with `behind` behind app and tcUrl of the connect ([`super::adobe`]), and nowhere else.
    #[must_use]
    pub fn showing(&self, behind: &str) -> Self {
        Self { behind: behind.to_owned(), ..self.clone() }
    }

    /// Everything the client said up to publish or play, in order, renamed. A createStream whose stream is not the one in use is
    /// left out.
    pub fn replay(&self, request: &Request) -> Vec<Message> {
        let mut streams = 0;
        let mut script = Vec::with_capacity(request.recorded.len());
        for message in &request.recorded {
            let mut message = message.clone();
            if let Some(mut command) = decoded(&message) {
                if command.name == b"createStream" {
                    streams += 1;
                    if streams != request.stream_id {
                        continue;
                    }
                }
                if self.rename(&mut command) {
                    message.payload = command.encode();
                }
            }
            script.push(message);
        }
        script
    }

    /// Renames within a command; says whether anything changed.
    pub fn rename(&self, command: &mut Command) -> bool {
        let mut changed = false;
        if command.name == b"connect" {
            changed |= self.rename_connect(&mut command.args);
        } else if let Some(Value::String(name) | Value::LongString(name)) = command.args.get_mut(1)
            && *name == self.client_stream
        {
            changed |= replace(name, &self.names.stream);
        }
        if self.strip_token {
            for arg in &mut command.args {
                if let Some(properties) = arg.properties_mut() {
                    let before = properties.len();
                    properties.retain(|(key, _)| key != TOKEN);
                    changed |= properties.len() < before;
                }
                arg.for_each_string(&mut |text| changed |= strip_token(text));
            }
        }
        changed
    }

    /// A stream name of a later publish or play, which was authorised: from now on it is known by `stream` upstream.
    pub fn also(&mut self, client_stream: Vec<u8>, stream: Vec<u8>) {
        self.client_stream = client_stream;
        self.names.stream = stream;
    }

    /// The stream's name as the upstream knows it.
    pub fn stream(&self) -> &[u8] {
        &self.names.stream
    }

    /// The other way round: puts the client's stream name where the upstream speaks of its own, which may be its stream key.
    pub fn unname(&self, text: &str) -> String {
        let upstream = String::from_utf8_lossy(&self.names.stream);
        let own = String::from_utf8_lossy(&Part::parse(&self.client_stream).path).into_owned();
        let mut text = text.to_owned();
        // The whole name first, then without its query, which servers leave out.
        for secret in [&upstream[..], upstream.split('?').next().unwrap_or_default()] {
            if !secret.is_empty() && secret != own {
                text = text.replace(secret, &own);
            }
        }
        text
    }

    fn rename_connect(&self, args: &mut [Value]) -> bool {
        let Some(properties) = args.first_mut().and_then(Value::properties_mut) else { return false };
        let mut changed = false;
        for (key, name) in [("app", &self.names.app), ("tcUrl", &self.names.tc_url)] {
            let want = &[&name[..], self.behind.as_bytes()].concat();
            match properties.iter_mut().find(|(k, _)| k.eq_ignore_ascii_case(key.as_bytes())) {
                Some((_, Value::String(value))) => changed |= replace(value, want),
                Some((_, value)) => {
                    *value = Value::String(want.clone());
                    changed = true;
                }
                None => {
                    properties.push((key.as_bytes().to_vec(), Value::String(want.clone())));
                    changed = true;
                }
            }
        }
        for (key, value) in properties {
            if !(key.eq_ignore_ascii_case(b"swfUrl") || key.eq_ignore_ascii_case(b"pageUrl")) || self.client_tc_url.is_empty() {
                continue;
            }
            if let Value::String(url) = value
                && let Some(rest) = url.strip_prefix(&self.client_tc_url[..])
            {
                let renamed = [&self.names.tc_url[..], rest].concat();
                changed |= replace(url, &renamed);
            }
        }
        changed
    }
}

/// Puts `want` in the place of `text`; whether that is another.
fn replace(text: &mut Vec<u8>, want: &[u8]) -> bool {
    let differs = text != want;
    if differs {
        want.clone_into(text);
    }
    differs
}

fn decoded(message: &Message) -> Option<Command> {
    let kind = message.header.kind;
    matches!(kind, kind::COMMAND | kind::COMMAND_AMF3).then(|| Command::decode(kind, &message.payload).ok()).flatten()
}

/// Takes `token=...` out of a name or URL with a query; whether there was one.
fn strip_token(text: &mut Vec<u8>) -> bool {
    if !text.windows(TOKEN.len()).any(|w| w == TOKEN) {
        return false;
    }
    let mut part = Part::parse(text);
    let found = !part.query.take(TOKEN).is_empty();
    if found {
        *text = part.to_bytes();
    }
    found
}
