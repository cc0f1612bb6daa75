//! The command phase, both sides of the relay: a client from its first message to publish or play, and the upstream that is told what the
//! client said. Cut anywhere it is the same; what is kept and what is said stays within bounds; the token stays here.

use super::cuts::{assert_is_a_word_of_ours, number, pieces};
use super::strict::read_strictly;
use relay::protocol::name::{Names, Part};
use relay::protocol::rtmp::amf0::Value;
use relay::protocol::rtmp::chunk::Message;
use relay::protocol::rtmp::client::{Answer, ClientSession, MAX_FORWARD};
use relay::protocol::rtmp::command::Command;
use relay::protocol::rtmp::handshake::TOTAL;
use relay::protocol::rtmp::replay::{Renamer, TOKEN};
use relay::protocol::rtmp::server::{MAX_MESSAGES, MAX_RECORDED, Progress, Request, ServerSession};

/// Control bytes: the cuts of both sides, how much of the rest is the client's, the client's way in.
pub const CONTROL: usize = 5;

/// Most bytes that the relay answers by itself, however much it is told: connect, four createStream and an error, less than 1 KiB.
const MAX_ANSWER: usize = TOTAL + 1024;

/// Reads the bytes as a client's and then an upstream's, both behind their handshakes.
pub fn run(data: &[u8]) {
    let Some((control, bytes)) = data.split_first_chunk::<CONTROL>() else { return };
    let (seed, cut) = (number(control, 0), usize::from(number(control, 2)));
    let (client, upstream) = bytes.split_at(cut.min(bytes.len()));
    let way = control[4];
    let served = serve(&[client], way);
    assert_eq!(serve(&pieces(client, seed), way), served);
    let Some(request) = requested(client, way) else { return };
    assert!(request.recorded.len() <= MAX_MESSAGES);
    assert!(request.recorded.iter().map(|m| m.payload.len()).sum::<usize>() <= MAX_RECORDED);

    let script = script(&request);
    let told = ask(&script, request.stream_id, &[upstream]);
    assert_eq!(ask(&script, request.stream_id, &pieces(upstream, seed)), told);
    let (messages, wrong) = read_strictly(&told.said[TOTAL..]);
    assert_eq!(wrong, None, "the upstream can read it");
    for (.., payload) in messages.iter().filter(|(_, _, kind, ..)| matches!(kind, 17 | 20)) {
        let kind = if payload.first() == Some(&0) { 17 } else { 20 };
        assert_has_no_token(&Command::decode(kind, payload).expect("a command of the script"));
    }
}

/// A client's way: whether somebody looks at its connect, and what comes of that.
fn prepared(way: u8) -> ServerSession {
    let mut session = ServerSession::new(&mut |bytes| bytes.fill(7));
    let hello = [&[3][..], &[0; TOTAL - 1]].concat();
    assert!(matches!(session.handle_input(&hello), Ok(Progress::More)));
    match way & 3 {
        1 => session.refuse_at_connect("no".to_owned()),
        2 | 3 => session.pause_at_connect(),
        _ => {}
    }
    session
}

/// What became of a client.
#[derive(Debug, PartialEq)]
struct Served {
    output: Vec<u8>,
    /// Bytes behind publish or play, or behind what was read.
    rest: Vec<u8>,
    end: End,
}

#[derive(Debug, PartialEq)]
enum End {
    More,
    Refused,
    Requested(Vec<u8>, Vec<u8>, Vec<Message>, Vec<Vec<u8>>),
    Failed(String),
}

fn serve(pieces: &[&[u8]], way: u8) -> Served {
    let mut session = prepared(way);
    let mut end = End::More;
    for piece in pieces {
        // What comes behind an end is kept for the switch, or of no interest.
        let mut progress = session.handle_input(piece);
        if matches!(progress, Ok(Progress::Connecting)) {
            assert!(session.take_said().is_none() || session.take_said().is_none(), "a login is taken once");
            if way & 3 == 3 {
                session.refuse_connect(b"no");
                end = End::Refused;
                break;
            }
            session.accept_connect();
            progress = session.handle_input(&[]);
        }
        match progress {
            Ok(Progress::More) => {}
            Ok(Progress::Connecting) => panic!("connect came twice"),
            Ok(Progress::Refused) => end = End::Refused,
            Ok(Progress::Requested(r)) => end = End::Requested(r.app, r.stream, r.recorded, r.tokens),
            Err(e) => {
                assert_is_a_word_of_ours(e.reason());
                end = End::Failed(e.to_string());
            }
        }
        if matches!(end, End::Refused | End::Failed(_)) {
            break;
        }
    }
    let output = session.take_output();
    assert!(output.len() <= MAX_ANSWER, "{} bytes were answered", output.len());
    assert_eq!(read_strictly(&output[TOTAL..]).1, None, "every client can read it");
    let keeps = matches!(end, End::Requested(..));
    let rest = session.into_parts().rest;
    Served { output, rest: if keeps { rest } else { Vec::new() }, end }
}

fn requested(client: &[u8], way: u8) -> Option<Request> {
    let mut session = prepared(way);
    let mut progress = session.handle_input(client);
    if matches!(progress, Ok(Progress::Connecting)) {
        session.accept_connect();
        progress = session.handle_input(&[]);
    }
    let Ok(Progress::Requested(request)) = progress else { return None };
    Some(*request)
}

fn script(request: &Request) -> Vec<Message> {
    let names = Names { app: b"in".to_vec(), stream: b"key".to_vec(), tc_url: b"rtmp://up/in".to_vec() };
    let renamer = Renamer::new(request, names, true);
    let script = renamer.replay(request);
    assert!(script.len() <= request.recorded.len());
    script
}

/// What an upstream was told, and what came of its answers.
#[derive(Debug, PartialEq)]
struct Told {
    said: Vec<u8>,
    forward: Vec<Message>,
    end: Result<Answer, String>,
}

fn ask(script: &[Message], stream_id: u32, pieces: &[&[u8]]) -> Told {
    let mut session = ClientSession::new(script.to_vec(), stream_id, &mut |bytes| bytes.fill(7));
    let hello = [&[3][..], &[0; TOTAL - 1]].concat();
    let mut end = session.handle_input(&hello);
    for piece in pieces {
        if !matches!(end, Ok(Answer::More)) {
            break;
        }
        end = session.handle_input(piece);
    }
    let (said, forward) = (session.take_output(), session.take_forward());
    assert!(forward.len() <= MAX_FORWARD);
    Told { said, forward, end: end.map_err(|e| e.to_string()) }
}

/// Neither as an argument of a name or URL, nor as a property.
fn assert_has_no_token(command: &Command) {
    for arg in &command.args {
        assert!(arg.properties().into_iter().flatten().all(|(key, _)| key != TOKEN));
        arg.clone().for_each_string(&mut |text| {
            assert!(Part::parse(text).query.take(TOKEN).is_empty());
        });
    }
    let connects = command.name == b"connect";
    let app = command.args.first().and_then(|object| object.get("app")).and_then(Value::as_str);
    assert!(!connects || app == Some(b"in"), "an upstream knows the stream by its own names");
}
