//! Publishers that never reconnect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use relay::origin::script::{STREAM_ID, script};
use relay::protocol::name::Action;
use relay::protocol::rtmp::chunk::Writer;
use relay::protocol::rtmp::command::kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::talk;

const FRAME: Duration = Duration::from_millis(40);
/// Bytes of a frame: 1.2 Mb/s.
const KEY: usize = 24_000;
const INTER: usize = 5_000;

/// What is known of one stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    /// Number of the last frame sent.
    pub(crate) sent: Arc<AtomicU32>,
    /// Its connection was closed.
    pub(crate) ended: Arc<AtomicBool>,
}

/// All of them, on a thread, until it is dropped.
pub(crate) struct Publishers {
    pub(crate) streams: Vec<Stream>,
    over: Arc<AtomicBool>,
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

impl Publishers {
    /// `count` streams to `relay`, with a key frame each `group`, spread over it.
    pub(crate) fn start(relay: SocketAddr, count: usize, group: Duration) -> Self {
        let streams = vec![(); count].into_iter().map(|()| Stream::default()).collect::<Vec<_>>();
        let theirs = streams.clone();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let begin = Instant::now();
                for (number, stream) in theirs.into_iter().enumerate() {
                    let at = begin + group.mul_f64(number as f64 / count as f64);
                    tokio::spawn(async move {
                        // It ends only when it must not; how, the relay's log would say.
                        let _ = publish(relay, number, at, group, &stream.sent).await;
                        stream.ended.store(true, Relaxed);
                    });
                }
                while !is_over.load(Relaxed) {
                    tokio::time::sleep(FRAME).await;
                }
            });
        });
        Self { streams, over }
    }
}

async fn publish(relay: SocketAddr, number: usize, at: Instant, group: Duration, sent: &AtomicU32) -> std::io::Result<()> {
    tokio::time::sleep_until(at).await;
    let (mut socket, writer) = begin(relay, number).await?;
    let mut piece = [0; 4096];
    let (mut from, to) = socket.split();
    let heard = async {
        while from.read(&mut piece).await? > 0 {}
        Err(std::io::ErrorKind::UnexpectedEof.into())
    };
    tokio::select! {
        end = heard => end,
        end = send(to, writer, at, group, sent) => end,
    }
}

/// Connects and publishes `camNUMBER`, up to Publish.Start.
pub(crate) async fn begin(relay: SocketAddr, number: usize) -> std::io::Result<(TcpStream, Writer)> {
    let socket = crate::connect(relay);
    socket.set_nonblocking(true)?;
    over(TcpStream::from_std(socket)?, relay, number).await
}

/// The same over a connection to `relay`.
pub(crate) async fn over(mut socket: TcpStream, relay: SocketAddr, number: usize) -> std::io::Result<(TcpStream, Writer)> {
    socket.set_nodelay(true)?;
    let script = script(Action::Publish, &relay.to_string(), "live", &format!("cam{number}"));
    let writer = talk::ask(&mut socket, script, STREAM_ID).await?.into_parts().writer;
    Ok((socket, writer))
}

async fn send(
    mut to: impl AsyncWriteExt + Unpin,
    mut writer: Writer,
    at: Instant,
    group: Duration,
    sent: &AtomicU32,
) -> std::io::Result<()> {
    let frames = u32::try_from(group.as_millis() / FRAME.as_millis()).unwrap_or(25).max(1);
    let mut out = Vec::new();
    writer.write(&mut out, 2, 0, kind::SET_CHUNK_SIZE, 0, &4096_u32.to_be_bytes());
    writer.set_chunk_size(4096);
    writer.write(&mut out, 6, 0, kind::VIDEO, STREAM_ID, b"\x17\x00\0\0\0avcC");
    for number in 1_u32.. {
        tokio::time::sleep_until(at + FRAME * number).await;
        let is_key = number % frames == 0;
        let front: &[u8; 5] = if is_key { b"\x17\x01\0\0\0" } else { b"\x27\x01\0\0\0" };
        let mut frame = [&front[..], &number.to_be_bytes()].concat();
        frame.resize(if is_key { KEY } else { INTER }, number as u8);
        writer.write(&mut out, 6, 40 * number, kind::VIDEO, STREAM_ID, &frame);
        to.write_all(&out).await?;
        sent.store(number, Relaxed);
        out.clear();
    }
    Ok(())
}
