//! The test stream: the clip, over and over, published through the relay in real time.

use std::time::Duration;

use anyhow::bail;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::clip::Clip;
use crate::origin::media::Packet;
use crate::origin::script::{STREAM_ID, script};
use crate::protocol::name::Action;
use crate::protocol::rtmp::chunk::Writer;
use crate::protocol::rtmp::client::{Answer, ClientSession};
use crate::protocol::rtmp::command::kind;

/// How long the relay may take to let it in: a dial and its retries.
const PREFACE: Duration = Duration::from_secs(30);
/// Wait before it tries again.
const AGAIN: Duration = Duration::from_secs(1);
/// Behind by more than this (the machine slept), the stream goes on from now instead of hurrying after the clock.
const LATE: Duration = Duration::from_secs(2);
/// Read at a time, bytes.
const PIECE: usize = 4096;

/// Where it publishes.
#[derive(Debug)]
pub(super) struct Destination {
    /// `host:port`.
    pub(super) at: String,
    pub(super) app: String,
    /// With the token.
    pub(super) stream: String,
}

/// Publishes for ever. While it cannot, `trouble` says why.
pub(super) async fn run(clip: Clip, to: Destination, trouble: watch::Sender<Option<String>>) {
    loop {
        if let Err(error) = publish(&clip, &to, &trouble).await {
            trouble.send_replace(Some(format!("{error:#}")));
        }
        sleep(AGAIN).await;
    }
}

async fn publish(clip: &Clip, to: &Destination, trouble: &watch::Sender<Option<String>>) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(&to.at).await?;
    socket.set_nodelay(true)?;
    let script = script(Action::Publish, &to.at, &to.app, &to.stream);
    let mut session = ClientSession::new(script, STREAM_ID, &mut |bytes| rand::fill(bytes));
    timeout(PREFACE, ask(&mut socket, &mut session)).await??;
    trouble.send_replace(None);
    let writer = session.into_parts().writer;
    let (from, to) = socket.split();
    tokio::select! {
        ended = until_closed(from) => ended,
        ended = send(clip, to, writer) => ended,
    }
}

async fn ask(socket: &mut TcpStream, session: &mut ClientSession) -> anyhow::Result<()> {
    let mut piece = [0; PIECE];
    loop {
        socket.write_all(&session.take_output()).await?;
        let read = socket.read(&mut piece).await?;
        if read == 0 {
            bail!("the relay closed the connection");
        }
        match session.handle_input(&piece[..read])? {
            Answer::More => {}
            Answer::Started => return Ok(()),
            Answer::Refused { description, .. } => bail!("refused: {description}"),
        }
    }
}

/// What comes back is acknowledgements: read, so that nobody has to wait, and forgotten.
async fn until_closed(mut from: impl AsyncRead + Unpin) -> anyhow::Result<()> {
    let mut piece = [0; PIECE];
    while from.read(&mut piece).await? > 0 {}
    bail!("the relay closed the connection")
}

async fn send(clip: &Clip, mut to: impl AsyncWrite + Unpin, mut writer: Writer) -> anyhow::Result<()> {
    let mut out = Vec::new();
    for packet in clip.lasting() {
        write(&mut writer, &mut out, packet, 0);
    }
    let mut start = Instant::now();
    for n in 0.. {
        let (millis, packet) = clip.frame(n);
        let due = start + Duration::from_millis(millis);
        let behind = Instant::now().saturating_duration_since(due);
        if behind > LATE {
            start += behind;
        }
        sleep_until(due).await;
        // RTMP's clock wraps.
        write(&mut writer, &mut out, packet, (millis & u64::from(u32::MAX)) as u32);
        to.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}

fn write(writer: &mut Writer, out: &mut Vec<u8>, packet: &Packet, timestamp: u32) {
    let csid = if packet.kind == kind::AUDIO { 4 } else { 6 };
    writer.write(out, csid, timestamp, packet.kind, STREAM_ID, &envelope(packet));
}

/// Metadata travels to a server in an order to keep it.
fn envelope(packet: &Packet) -> Vec<u8> {
    let order: &[u8] = if packet.kind == kind::DATA { b"\x02\x00\x0d@setDataFrame" } else { b"" };
    [order, &packet.payload].concat()
}
