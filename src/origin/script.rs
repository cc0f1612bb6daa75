//! Pure: what does a client say to publish or play? Scripts for [`ClientSession`](crate::protocol::rtmp::client::ClientSession).

use crate::protocol::name::Action;
use crate::protocol::rtmp::amf0::Value;
use crate::protocol::rtmp::chunk::Message;
use crate::protocol::rtmp::command::{Command, kind};
use crate::protocol::rtmp::tracker::Header;

/// The message stream that a script's publish or play is on.
pub const STREAM_ID: u32 = 1;
/// Bytes of a chunk that a script announces for what the client sends.
pub const CHUNK_SIZE: u32 = 4096;

/// Connect to `app` of the server at `host` (`host:port`), and publish or play `stream`. Both may carry a query.
pub fn script(action: Action, host: &str, app: &str, stream: &str) -> Vec<Message> {
    let object = Value::Object(vec![
        (b"app".to_vec(), Value::string(app)),
        (b"type".to_vec(), Value::string("nonprivate")),
        (b"flashVer".to_vec(), Value::string(concat!("relay/", env!("CARGO_PKG_VERSION")))),
        (b"tcUrl".to_vec(), Value::string(format!("rtmp://{host}/{app}"))),
    ]);
    let mut args = vec![Value::Null, Value::string(stream)];
    if action == Action::Publish {
        args.push(Value::string("live"));
    }
    vec![
        message(kind::SET_CHUNK_SIZE, 0, CHUNK_SIZE.to_be_bytes().to_vec()),
        command(0, &Command::new("connect", 1.0, vec![object])),
        command(0, &Command::new("createStream", 2.0, vec![Value::Null])),
        command(STREAM_ID, &Command::new(action.as_str(), 3.0, args)),
    ]
}

fn command(stream_id: u32, command: &Command) -> Message {
    message(command.kind(), stream_id, command.encode())
}

fn message(kind: u8, stream_id: u32, payload: Vec<u8>) -> Message {
    let csid = if kind == kind::COMMAND { 3 } else { 2 };
    Message { header: Header { csid, kind, stream_id, ..Header::default() }, payload }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::rtmp::client::{Answer, ClientSession};
    use crate::protocol::rtmp::command;
    use crate::protocol::rtmp::server::{Progress, ServerSession};

    #[test]
    fn the_relay_as_server_understands_it() {
        for action in [Action::Publish, Action::Play] {
            let mut server = ServerSession::new(&mut |_| {});
            let mut client = ClientSession::new(script(action, "host:1", "live?a=b", "cam?token=t"), STREAM_ID, &mut |_| {});
            let request = loop {
                match server.handle_input(&client.take_output()) {
                    Ok(Progress::Requested(request)) => break request,
                    other => assert!(matches!(other, Ok(Progress::More)), "{other:?}"),
                }
                assert_eq!(client.handle_input(&server.take_output()), Ok(Answer::More));
            };
            assert_eq!((request.action, request.stream_id), (action, STREAM_ID));
            assert_eq!((&request.app[..], &request.stream[..]), (&b"live?a=b"[..], &b"cam?token=t"[..]));
            let code = if action == Action::Publish { "NetStream.Publish.Start" } else { "NetStream.Play.Start" };
            server.send_command(5, STREAM_ID, &command::on_status("status", code, "yes"));
            assert_eq!(client.handle_input(&server.take_output()), Ok(Answer::Started));
        }
    }
}
