//! Publishers and players, one behind the other on the same seat, each of its own mind when and how to leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use relay::origin::script::{STREAM_ID, script};
use relay::protocol::name::Action;
use relay::protocol::rtmp::amf0::Value;
use relay::protocol::rtmp::chunk::{Reader, Writer};
use relay::protocol::rtmp::command::{Command, kind};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::ledger::{Leave, Ledger};
use super::media;
use super::origin::hear;
use super::talk;

/// How long the relay may take to close its half behind a client that has closed its own.
const PATIENCE: Duration = Duration::from_secs(20);

/// Comes, stays, leaves, comes again, until it is over. One seat in three plays.
pub async fn seat(relay: SocketAddr, number: usize, mut chance: SmallRng, ledger: Arc<Ledger>, over: CancellationToken) {
    for life in 0.. {
        if over.is_cancelled() {
            return;
        }
        let (action, letter) = if number.is_multiple_of(3) { (Action::Play, 'p') } else { (Action::Publish, 's') };
        let name = format!("{letter}{number}-{life}");
        let stay = Duration::from_millis(chance.random_range(2_000..40_000));
        let abrupt = chance.random_range(0..4) == 0;
        if let Ok((socket, session)) = enter(relay, action, &name).await {
            let until = Instant::now() + stay;
            match action {
                Action::Publish => publish(socket, session, &name, until, abrupt, &ledger, &over).await,
                Action::Play => watch(socket, session, &name, until, &ledger, &over).await,
            }
        }
        sleep(Duration::from_millis(chance.random_range(10..500))).await;
    }
}

async fn enter(relay: SocketAddr, action: Action, name: &str) -> std::io::Result<(TcpStream, (Reader, Vec<u8>, Writer))> {
    let mut socket = TcpStream::connect(relay).await?;
    socket.set_nodelay(true)?;
    let script = script(action, &relay.to_string(), "live", &format!("{name}?token=soak"));
    let session = talk::ask(&mut socket, script, STREAM_ID).await?;
    Ok((socket, session.into_reader()))
}

async fn publish(
    mut socket: TcpStream,
    (_, _, mut writer): (Reader, Vec<u8>, Writer),
    name: &str,
    until: Instant,
    abrupt: bool,
    ledger: &Ledger,
    over: &CancellationToken,
) {
    let (mut from, mut to) = socket.split();
    let mut piece = [0; 1024];
    let ended = async { while matches!(from.read(&mut piece).await, Ok(1..)) {} };
    let send = async {
        to.write_all(&media::begin(&mut writer)).await?;
        let begin = Instant::now();
        for number in 1_u32.. {
            tokio::select! {
                () = sleep_until((begin + media::STEP * number).min(until)) => {}
                () = over.cancelled() => break,
            }
            if Instant::now() >= until {
                break;
            }
            let message = media::message(&mut writer, number);
            ledger.send(name, number);
            to.write_all(&message).await?;
        }
        std::io::Result::Ok(())
    };
    let leave = tokio::select! {
        () = ended => Leave::Ended,
        sent = send => match sent {
            Ok(()) if abrupt => Leave::Abrupt,
            Ok(()) => Leave::InOrder,
            Err(_) => Leave::Ended,
        },
    };
    ledger.leave(name, leave);
    match leave {
        Leave::InOrder => {
            let mut out = Vec::new();
            let delete = Command::new("deleteStream", 5.0, vec![Value::Null, Value::Number(f64::from(STREAM_ID))]);
            writer.write(&mut out, 3, 0, kind::COMMAND, 0, &delete.encode());
            let _ = socket.write_all(&out).await;
            let _ = socket.shutdown().await;
            let _ = timeout(PATIENCE, async { while matches!(socket.read(&mut piece).await, Ok(1..)) {} }).await;
        }
        Leave::Abrupt => drop(SockRef::from(&socket).set_linger(Some(Duration::ZERO))),
        Leave::Ended => {}
    }
}

async fn watch(
    mut socket: TcpStream,
    (reader, rest, _): (Reader, Vec<u8>, Writer),
    name: &str,
    until: Instant,
    ledger: &Ledger,
    over: &CancellationToken,
) {
    let leg = ledger.open(name);
    let leave = tokio::select! {
        _ = hear(&mut socket, reader, rest, ledger, name, leg) => Leave::Ended,
        () = sleep_until(until) => Leave::Abrupt,
        () = over.cancelled() => Leave::Abrupt,
    };
    ledger.leave(name, leave);
}
