//! Real clients and nginx-rtmp, replayed from recordings through a running relay: what one side said, the other hears, save the
//! names, the token, and the two results that the relay gives itself.

use serde_json::json;

use crate::amf::Amf;
use crate::client::Client;
use crate::ear::HANDSHAKE;
use crate::origin::{Origin, Script};
use crate::parser::{Message, Parser, kind};
use crate::recording::{Recording, recordings};
use crate::relay::Relay;

const TOKEN: &str = "abc";

/// The whole messages; recordings may end inside one.
fn whole(stream: &[u8]) -> Vec<Message> {
    Parser::default().feed(stream).expect("a chunk stream")
}

/// What nginx said, cut behind the results of connect and createStream.
fn cut(server: &[u8]) -> [Vec<u8>; 3] {
    let stream = &server[HANDSHAKE..];
    let results: Vec<_> = whole(stream).into_iter().filter(|m| m.is("_result")).map(|m| m.end).collect();
    let [connect, create, ..] = results[..] else { panic!("two results") };
    [stream[..connect].to_vec(), stream[connect..create].to_vec(), stream[create..].to_vec()]
}

/// A command as its upstream is to hear it.
fn renamed((name, transaction, mut args): (String, f64, Vec<Amf>), tc_url: &str) -> (String, f64, Vec<Amf>) {
    for arg in &mut args {
        if let Amf::Str(text) = arg {
            *text = without_token(text);
        }
        let (Amf::Obj(entries) | Amf::Ecma(entries)) = arg else { continue };
        entries.retain(|(key, _)| key != "token");
        for (key, value) in entries {
            match (&key[..], value) {
                ("tcUrl", value) => *value = Amf::Str(tc_url.to_owned()),
                (_, Amf::Str(text)) => *text = without_token(text),
                _ => {}
            }
        }
    }
    (name, transaction, args)
}

fn without_token(text: &str) -> String {
    text.replace(&format!("?token={TOKEN}"), "")
}

fn app(messages: &[Message]) -> String {
    let connect = messages.iter().find_map(|m| m.command().filter(|(name, ..)| name == "connect")).expect("connect");
    without_token(connect.2[0].get("app").and_then(Amf::text).expect("an app"))
}

/// Compares what the upstream heard with what the client said.
fn assert_passed_on(got: &[Message], said: &[Message], tc_url: &str, context: &str) {
    for (i, (got, said)) in got.iter().zip(said).enumerate() {
        match said.command() {
            Some(command) => {
                let head = |m: &Message| (m.csid, m.time, m.kind, m.stream);
                assert_eq!(head(got), head(said), "{context}: message {i}");
                assert_eq!(got.command(), Some(renamed(command, tc_url)), "{context}: message {i}");
            }
            None => assert_eq!(got, said, "{context}: message {i}"),
        }
    }
    assert_eq!(got.len(), said.len(), "{context}: number of messages");
}

/// Writes `bytes` in pieces of `piece`; beyond the command phase the smallest would only cost time.
fn write_in_pieces(client: &mut Client, bytes: &[u8], piece: usize) {
    let (phase, rest) = bytes.split_at(bytes.len().min(HANDSHAKE + 1500));
    phase.chunks(piece).for_each(|piece| client.write(piece));
    rest.chunks(piece.max(100)).for_each(|piece| client.write(piece));
}

fn replay(recording: &Recording, pieces: &[usize]) {
    let Recording { name, client, server } = recording;
    let said = whole(&client[HANDSHAKE..]);
    let origin = Origin::new(Script { replay: Some(cut(server)), ..Script::default() });
    // Some were recorded without a token.
    let auth = contains(client, b"token");
    // Each publishes the same stream, and comes before the last one's end was noticed.
    let more = json!({ "publish_takeover": "always", "security": { "auth_enabled": auth, "auth_tokens": [TOKEN] } });
    let relay = Relay::with(&origin.url(""), more);
    let tc_url = origin.url(&format!("/{}", app(&said)));
    for (number, piece) in pieces.iter().enumerate() {
        let context = format!("{name} in pieces of {piece}");
        let mut sender = Client::to(&relay);
        write_in_pieces(&mut sender, client, *piece);
        let line = origin.line(number);
        let got = line.ear.wait(&format!("{context}: all is heard upstream"), |record| {
            (record.messages.len() >= said.len() || record.wrong.is_some()).then(|| record.messages.clone())
        });
        assert_eq!(line.ear.record().wrong, None, "{context}");
        assert_passed_on(&got, &said, &tc_url, &context);
        let heard = line.ear.record().bytes.clone();
        assert!(!contains(&heard, b"token"), "{context}: the token stays here");

        let server = whole(&server[HANDSHAKE..]);
        let mut results = 0;
        let theirs: Vec<_> = server
            .into_iter()
            .filter(|m| {
                !(m.is("_result") && {
                    results += 1;
                    results <= 2
                })
            })
            .collect();
        let told = sender.ear.wait(&format!("{context}: all is heard by the client"), |record| {
            (record.messages.len() >= theirs.len() + 4 || record.wrong.is_some()).then(|| record.messages.clone())
        });
        assert_eq!(sender.ear.record().wrong, None, "{context}");
        let kinds: Vec<_> = told[..4].iter().map(|m| m.kind).collect();
        assert_eq!(kinds, [kind::WINDOW, kind::BANDWIDTH, kind::COMMAND, kind::COMMAND], "{context}: the relay's own answers");
        assert_eq!(told[4..], theirs[..], "{context}: what nginx said");
        assert_eq!(sender.ear.record().hello[5..9], [0; 4], "{context}: no digest is promised");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

#[test]
fn every_recorded_publisher_is_passed_on_as_it_spoke_in_any_split() {
    let recordings = recordings().into_iter().filter(|r| r.name.contains("publish"));
    let count = recordings.map(|r| replay(&r, &[usize::MAX, 1, 17, 1447])).count();
    assert_eq!(count, 6);
}

#[test]
fn every_recorded_player_is_passed_on_as_it_spoke_and_hears_what_nginx_said_in_any_split() {
    let recordings = recordings().into_iter().filter(|r| r.name.contains("play"));
    let count = recordings.map(|r| replay(&r, &[usize::MAX, 1, 17, 1447])).count();
    assert_eq!(count, 6);
}
