//! Does a target answer, though no client asks for it?

use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dial::{DialError, Dialer};
use super::health::Health;
use super::target::{Family, Target};
use super::vital::{Depth, Trouble};
use crate::config::{CheckKind, HealthCheck};
use crate::protocol::rtmp::handshake;

/// How far chance moves the time between two checks, as a part of it: relays that began together shall not check together.
const JITTER: f64 = 0.1;
/// Bytes of an RTSP answer that are looked at.
const MAX_ANSWER: usize = 512;

/// Checks each target until what it returns is dropped, one task a target on `arbiter`.
#[must_use = "the checks end with it"]
pub fn watch(
    targets: &[Arc<Target>],
    settings: HealthCheck,
    dialer: &Dialer,
    health: &Health,
    arbiter: &ArbiterHandle,
) -> DropGuard {
    let over = CancellationToken::new();
    for target in targets {
        let (target, dialer, health) = (Arc::clone(target), dialer.clone(), health.clone());
        let checks = async move {
            loop {
                let result = check(&target, &settings, &dialer).await;
                health.checked(target.id, result);
                sleep(jittered(settings.interval, rand::random())).await;
            }
        };
        let over = over.clone();
        arbiter.spawn(async move {
            let _: Option<()> = over.run_until_cancelled(checks).await;
        });
    }
    over.drop_guard()
}

/// `chance` in [0, 1).
fn jittered(interval: Duration, chance: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * chance - 1.0))
}

async fn check(target: &Target, settings: &HealthCheck, dialer: &Dialer) -> Result<Depth, Trouble> {
    let deadline = Instant::now() + settings.timeout;
    let failed = |error: DialError| Trouble::new(error.kind(), error);
    let too_late = |kind, what| Trouble::new(kind, format!("no {what} within the {:?} of a check", settings.timeout));
    let connected = async {
        match settings.kind {
            CheckKind::Tcp => dialer.look(target).await.map(|()| None),
            CheckKind::Tls | CheckKind::Handshake => dialer.connect_unqueued(target).await.map(Some),
        }
    };
    let connected = timeout_at(deadline, connected).await;
    let connected = connected.map_err(|_| too_late("connect_timeout", "connection"))?.map_err(failed)?;
    let Some(mut connected) = connected else { return Ok(Depth::Socket) };
    if settings.kind != CheckKind::Handshake {
        return Ok(Depth::Connection);
    }
    let spoken = async {
        match target.family() {
            Family::Rtmp => shake(&mut connected.stream).await,
            Family::Rtsp => ask(&mut connected.stream).await,
        }
    };
    timeout_at(deadline, spoken).await.map_err(|_| too_late("handshake_timeout", "answer"))??;
    Ok(Depth::Speech)
}

fn handshake_failed(error: impl ToString) -> Trouble {
    Trouble::new("handshake", error)
}

/// The RTMP handshake (RTMP 1.0 section 5.2) as a client.
async fn shake<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Trouble> {
    let mut ours = Vec::with_capacity(handshake::TOTAL);
    handshake::hello(&mut ours, &mut |bytes| rand::fill(bytes));
    stream.write_all(&ours).await.map_err(handshake_failed)?;
    let mut theirs = [0; handshake::TOTAL];
    stream.read_exact(&mut theirs[..1]).await.map_err(handshake_failed)?;
    handshake::judge_version(theirs[0]).map_err(|error| Trouble::new("protocol", error))?;
    stream.read_exact(&mut theirs[1..]).await.map_err(handshake_failed)?;
    ours.clear();
    handshake::echo(&mut ours, &theirs[1..=handshake::PACKET]);
    stream.write_all(&ours).await.map_err(handshake_failed)
}

/// OPTIONS (RFC 2326 section 10.1). Whatever status answers it: somebody speaks RTSP.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Trouble> {
    stream.write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: relay\r\n\r\n").await.map_err(handshake_failed)?;
    let mut answer = [0; MAX_ANSWER];
    let mut length = 0;
    while !answer[..length].contains(&b'\n') {
        match stream.read(&mut answer[length..]).await.map_err(handshake_failed)? {
            0 => return Err(handshake_failed("the connection ended without an answer")),
            read => length += read,
        }
    }
    if answer.starts_with(b"RTSP/") { Ok(()) } else { Err(Trouble::new("protocol", "what answered is not RTSP")) }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
