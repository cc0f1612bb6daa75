//! The command phase of RTMP, from either end, for everybody whom a benchmark drives.

use std::io::{self, ErrorKind};

use relay::protocol::rtmp::chunk::Message;
use relay::protocol::rtmp::client::{Answer, ClientSession};
use relay::protocol::rtmp::server::{Progress, Request, ServerSession};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A TCP connection, in private or not.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket for S {}

/// Says what `script` holds, up to the answer Start on `stream_id`.
pub async fn ask(socket: &mut impl Socket, script: Vec<Message>, stream_id: u32) -> io::Result<ClientSession> {
    let mut session = ClientSession::new(script, stream_id, &mut |bytes| bytes.fill(1));
    let mut piece = [0; 4096];
    loop {
        write(socket, &session.take_output()).await?;
        let read = read(socket, &mut piece).await?;
        match session.handle_input(&piece[..read]).map_err(io::Error::other)? {
            Answer::More => {}
            Answer::Started => return Ok(session),
            Answer::Refused { code, description, .. } => return Err(io::Error::other(format!("{code}: {description}"))),
        }
    }
}

/// Hears a client up to its publish or play, of which `first` was read before; it waits for its answer then.
pub async fn hear_out(socket: &mut impl Socket, first: &[u8]) -> io::Result<(ServerSession, Box<Request>)> {
    let mut session = ServerSession::new(&mut |bytes| bytes.fill(2));
    let mut progress = session.handle_input(first).map_err(io::Error::other)?;
    let mut piece = [0; 4096];
    loop {
        write(socket, &session.take_output()).await?;
        if let Progress::Requested(request) = progress {
            return Ok((session, request));
        }
        let read = read(socket, &mut piece).await?;
        progress = session.handle_input(&piece[..read]).map_err(io::Error::other)?;
    }
}

async fn write(socket: &mut impl Socket, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    socket.write_all(bytes).await?;
    socket.flush().await
}

/// At least a byte; an error at the end.
async fn read(socket: &mut impl Socket, piece: &mut [u8]) -> io::Result<usize> {
    match socket.read(piece).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}
