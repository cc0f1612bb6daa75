//! An origin that says when it receives the first frame of each publication, and which it is.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use relay::protocol::rtmp::chunk::{Message, Reader};
use relay::protocol::rtmp::command::{self, kind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::talk;

/// Bytes in front of a frame's number.
pub(crate) const FRONT: usize = 5;

/// The first frame of a publication.
#[derive(Debug, Clone, Copy)]
pub(crate) struct First {
    pub(crate) stream: usize,
    /// The frame's number.
    pub(crate) number: u32,
    /// When, on the wall clock, which all processes share.
    pub(crate) micros: u64,
}

impl First {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next();
        Some(Self { stream: word()?.parse().ok()?, number: word()?.parse().ok()?, micros: word()?.parse().ok()? })
    }
}

pub(crate) fn wall_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

/// Serves for ever.
pub(crate) fn run(address: SocketAddr) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        println!("{}", listener.local_addr().expect("it is bound"));
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket takes no-delay");
                tokio::spawn(async move { drop(serve(stream).await) });
            }
        }
    })
}

/// Serves one connection to its end, and prints its first frame.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> std::io::Result<()> {
    let mut told = false;
    let tell = |stream: usize, number: u32| {
        if !told {
            told = true;
            println!("{stream} {number} {}", wall_micros());
            let _ = std::io::stdout().flush();
        }
    };
    serve_with(stream, tell).await
}

/// Serves one connection to its end; each frame's stream and number are told.
pub(crate) async fn serve_with<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mut tell: impl FnMut(usize, u32),
) -> std::io::Result<()> {
    let (mut session, request) = talk::hear_out(&mut stream, &[]).await?;
    session.send_command(5, request.stream_id, &command::on_status("status", "NetStream.Publish.Start", "Publishing."));
    stream.write_all(&session.take_output()).await?;
    stream.flush().await?;
    let mut piece = vec![0; 64 * 1024];
    let name = String::from_utf8_lossy(&request.stream).into_owned();
    let number = name.trim_start_matches("cam").parse().unwrap_or(usize::MAX);
    let (mut reader, mut rest, _) = session.into_reader();
    reader.allow_media(1 << 20);
    loop {
        receive(&mut reader, &mut rest, |frame| tell(number, frame))?;
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        rest.extend_from_slice(&piece[..read]);
    }
}

/// Reads what there is; the numbers of whole frames are told.
fn receive(reader: &mut Reader, rest: &mut Vec<u8>, mut tell: impl FnMut(u32)) -> std::io::Result<()> {
    let mut at = 0;
    loop {
        let (taken, message) = reader.read(&rest[at..]).map_err(std::io::Error::other)?;
        at += taken;
        let Some(Message { header, payload }) = message else { break };
        let is_frame = header.kind == kind::VIDEO && payload.get(1) == Some(&1);
        if let (true, Some(number)) = (is_frame, payload.get(FRONT..).and_then(<[u8]>::first_chunk::<4>)) {
            tell(u32::from_be_bytes(*number));
        }
    }
    rest.drain(..at);
    Ok(())
}
