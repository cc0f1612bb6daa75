//! What publishers, players and their origin say to each other before media flows, in RTMP and RTSP.

use std::io;

use relay::protocol::rtmp::amf0::Value;
use relay::protocol::rtmp::chunk::Message;
use relay::protocol::rtmp::command::{self, Command, kind};
use relay::protocol::rtmp::tracker::{Header, Tracker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::media::CHUNK_SIZE;
use super::talk::{self, Socket};

/// What a client of the origin wants.
pub enum Asked {
    /// To be heard.
    Publish,
    /// To hear.
    Play,
}

/// What everybody shows the relay.
const TOKEN: &str = "bench";

fn script(action: &str, number: usize) -> Vec<Message> {
    let message = |stream_id, command: &Command| Message {
        header: Header { csid: 3, kind: kind::COMMAND, stream_id, ..Default::default() },
        payload: command.encode(),
    };
    let size = Message {
        header: Header { csid: 2, kind: kind::SET_CHUNK_SIZE, ..Default::default() },
        payload: CHUNK_SIZE.to_be_bytes().to_vec(),
    };
    let object = [("app", "live"), ("tcUrl", "rtmp://127.0.0.1/live")].map(|(k, v)| (k.as_bytes().to_vec(), Value::string(v)));
    let name = Value::string(format!("s{number}?token={TOKEN}"));
    vec![
        message(0, &Command::new("connect", 1.0, vec![Value::Object(object.to_vec())])),
        size,
        message(0, &Command::new("createStream", 2.0, vec![Value::Null])),
        message(1, &Command::new(action, 3.0, vec![Value::Null, name, Value::string("live")])),
    ]
}

/// Publishes or plays over RTMP; the target's chunk stream, and what came behind its answer.
pub async fn rtmp_client(socket: &mut impl Socket, action: &str, number: usize) -> io::Result<(Tracker, Vec<u8>)> {
    let parts = talk::ask(socket, script(action, number), 1).await?.into_parts();
    Ok((parts.sender.0, parts.rest))
}

/// Lets an RTMP client publish or play; its chunk stream, and what came behind its command. `first` was read before.
pub async fn rtmp_origin(socket: &mut impl Socket, first: Vec<u8>) -> io::Result<(Asked, Tracker, Vec<u8>)> {
    let (mut session, request) = talk::hear_out(socket, &first).await?;
    let play = request.action.as_str() == "play";
    let code = if play { "NetStream.Play.Start" } else { "NetStream.Publish.Start" };
    session.send_command(5, request.stream_id, &command::on_status("status", code, "go"));
    let mut output = session.take_output();
    if play {
        output.extend_from_slice(&super::media::rtmp(2, kind::SET_CHUNK_SIZE, &CHUNK_SIZE.to_be_bytes()));
    }
    socket.write_all(&output).await?;
    let parts = session.into_parts();
    Ok((if play { Asked::Play } else { Asked::Publish }, parts.sender.0, parts.rest))
}

const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=bench\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\na=control:streamid=1\r\n";

/// Publishes over RTSP, both tracks interleaved (RFC 2326).
pub async fn rtsp_client(socket: &mut impl Socket, host: &str, number: usize) -> io::Result<()> {
    let url = format!("rtsp://{host}/live/s{number}");
    let query = format!("?token={TOKEN}");
    let setup =
        |track: usize| format!("Transport: RTP/AVP/TCP;unicast;interleaved={}-{};mode=record\r\n", 2 * track, 2 * track + 1);
    let requests = [
        ("OPTIONS", format!("{url}{query}"), String::new(), ""),
        ("ANNOUNCE", format!("{url}{query}"), format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", SDP.len()), SDP),
        ("SETUP", format!("{url}/streamid=0{query}"), setup(0), ""),
        ("SETUP", format!("{url}/streamid=1{query}"), setup(1), ""),
        ("RECORD", format!("{url}{query}"), "Range: npt=0.000-\r\n".to_owned(), ""),
    ];
    let mut session = String::new();
    let mut held = Vec::new();
    for (at, (method, url, headers, body)) in requests.iter().enumerate() {
        let request = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{session}{headers}\r\n{body}", at + 1);
        socket.write_all(request.as_bytes()).await?;
        let head = rtsp_head(socket, &mut held).await?;
        if !head.starts_with("RTSP/1.0 200") {
            let line = head.lines().next().unwrap_or_default();
            return Err(io::Error::other(format!("{method}: {line}")));
        }
        skip_body(socket, &mut held, &head).await?;
        if let Some(id) = rtsp_field(&head, "session") {
            session = format!("Session: {}\r\n", id.split(';').next().unwrap_or_default());
        }
    }
    Ok(())
}

/// Lets an RTSP client record; what came behind its RECORD. `held` was read before.
pub async fn rtsp_origin(socket: &mut impl Socket, mut held: Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        let head = rtsp_head(socket, &mut held).await?;
        skip_body(socket, &mut held, &head).await?;
        let method = head.split(' ').next().unwrap_or_default();
        let cseq = rtsp_field(&head, "cseq").unwrap_or("0");
        let more = match method {
            "OPTIONS" => "Public: OPTIONS, ANNOUNCE, SETUP, RECORD, GET_PARAMETER, TEARDOWN\r\n".to_owned(),
            "SETUP" => format!("Transport: {}\r\n", rtsp_field(&head, "transport").unwrap_or("RTP/AVP/TCP")),
            _ => String::new(),
        };
        let session = if method == "OPTIONS" { "" } else { "Session: 7\r\n" };
        let answer = format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{session}{more}\r\n");
        socket.write_all(answer.as_bytes()).await?;
        if method == "RECORD" {
            return Ok(held);
        }
    }
}

async fn more(socket: &mut impl Socket, held: &mut Vec<u8>) -> io::Result<()> {
    if socket.read_buf(held).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn rtsp_head(socket: &mut impl Socket, held: &mut Vec<u8>) -> io::Result<String> {
    loop {
        if let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..end + 4).collect();
            return String::from_utf8(head).map_err(io::Error::other);
        }
        more(socket, held).await?;
    }
}

async fn skip_body(socket: &mut impl Socket, held: &mut Vec<u8>, head: &str) -> io::Result<()> {
    let length = rtsp_field(head, "content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while held.len() < length {
        more(socket, held).await?;
    }
    held.drain(..length);
    Ok(())
}

fn rtsp_field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
