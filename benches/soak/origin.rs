//! An origin that takes every stream and plays any, and that can die.

use std::net::SocketAddr;
use std::sync::Arc;

use relay::origin::script::STREAM_ID;
use relay::protocol::name::Action;
use relay::protocol::rtmp::chunk::{Reader, Writer};
use relay::protocol::rtmp::command;
use relay::protocol::rtmp::server::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::ledger::Ledger;
use super::media::{self, Heard};
use super::talk;

/// See the module.
pub struct Origin {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    serving: Option<JoinHandle<()>>,
}

/// What is told when a leg ends with the origin.
struct Leg {
    ledger: Arc<Ledger>,
    stream: String,
    number: usize,
    over: bool,
}

impl Drop for Leg {
    fn drop(&mut self) {
        if !self.over {
            self.ledger.die(&self.stream, self.number);
        }
    }
}

impl Origin {
    /// On a port of its own.
    pub async fn start(ledger: &Arc<Ledger>) -> Self {
        let mut origin = Self { address: ([127, 0, 0, 1], 0).into(), ledger: Arc::clone(ledger), serving: None };
        origin.revive().await;
        origin
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes its door and all its connections at once, as the kernel does for a process that was killed.
    pub fn die(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    /// Takes streams again.
    pub async fn revive(&mut self) {
        let listener = loop {
            match listen(self.address) {
                Ok(listener) => break listener,
                // The old socket is gone when its task has been dropped.
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.address = listener.local_addr().expect("it is bound");
        let ledger = Arc::clone(&self.ledger);
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        connections.spawn(serve(stream, Arc::clone(&ledger)));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        }));
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn serve(mut stream: TcpStream, ledger: Arc<Ledger>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut session, request) = talk::hear_out(&mut stream, &[]).await?;
    let Request { action, stream_id, stream: name, .. } = *request;
    let code = if action == Action::Play { "NetStream.Play.Start" } else { "NetStream.Publish.Start" };
    session.send_command(5, stream_id, &command::on_status("status", code, "go"));
    stream.write_all(&session.take_output()).await?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let (reader, rest, writer) = session.into_reader();
    if action == Action::Play {
        return play(stream, writer, &name, &ledger).await;
    }
    let number = ledger.open(&name);
    let mut leg = Leg { ledger, stream: name, number, over: false };
    let heard = hear(&mut stream, reader, rest, &leg.ledger, &leg.stream, number).await;
    leg.over = true;
    heard
}

/// Receives `stream` to its end.
pub async fn hear(
    socket: &mut TcpStream,
    mut reader: Reader,
    mut rest: Vec<u8>,
    ledger: &Ledger,
    stream: &str,
    leg: usize,
) -> std::io::Result<()> {
    reader.allow_media(1 << 20);
    let mut piece = vec![0; 16 * 1024];
    loop {
        let mut at = 0;
        loop {
            let (taken, message) = reader.read(&rest[at..]).map_err(std::io::Error::other)?;
            at += taken;
            let Some(message) = message else { break };
            match media::hear(&message) {
                Heard::Number(number) => ledger.receive(stream, leg, number),
                Heard::Spoiled => ledger.spoil(stream, message.payload.len()),
                Heard::Else => {}
            }
        }
        rest.drain(..at);
        let read = socket.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        rest.extend_from_slice(&piece[..read]);
    }
}

/// Sends numbered messages until the relay has had enough.
async fn play(mut socket: TcpStream, mut writer: Writer, name: &str, ledger: &Ledger) -> std::io::Result<()> {
    debug_assert_eq!(STREAM_ID, 1, "what every request of ours is answered on");
    socket.write_all(&media::begin(&mut writer)).await?;
    let (mut from, mut to) = socket.split();
    let mut piece = [0; 1024];
    let gone = async { while matches!(from.read(&mut piece).await, Ok(1..)) {} };
    let send = async {
        let begin = Instant::now();
        for number in 1_u32.. {
            sleep_until(begin + media::STEP * number).await;
            let message = media::message(&mut writer, number);
            ledger.send(name, number);
            to.write_all(&message).await?;
        }
        Ok(())
    };
    tokio::select! {
        () = gone => Ok(()),
        sent = send => sent,
    }
}
