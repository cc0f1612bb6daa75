//! Tests of checks, over loopback sockets and in memory.

use std::net::SocketAddr;

use tokio::io::duplex;
use tokio::net::TcpListener;

use super::*;
use crate::upstream::dial::DialSettings;
use crate::upstream::target::TargetId;

fn settings(kind: CheckKind) -> HealthCheck {
    HealthCheck { interval: Duration::from_secs(10), timeout: Duration::from_millis(300), rise: 2, fall: 3, kind }
}

async fn origin() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let target = target(listener.local_addr().expect("an address"));
    (listener, target)
}

fn target(addr: SocketAddr) -> Target {
    Target::parse(TargetId(0), &format!("rtmp://{addr}/live")).expect("a URL")
}

fn dialer() -> Dialer {
    let allowed = vec!["127.0.0.0/8".parse().expect("a network")];
    Dialer::new(DialSettings { allowed, ..DialSettings::default() })
}

#[test]
fn checks_are_spread_by_a_tenth() {
    let interval = Duration::from_secs(10);
    assert_eq!(jittered(interval, 0.0), Duration::from_secs(9));
    assert_eq!(jittered(interval, 0.5), interval);
    assert!(jittered(interval, 0.999) < Duration::from_secs(11));
}

#[actix::test]
async fn a_connection_is_enough_for_tcp_and_not_for_a_handshake() {
    // The kernel accepts, and nobody answers: so does a process that hangs.
    let (_listener, target) = origin().await;
    for (kind, depth) in [(CheckKind::Tcp, Depth::Socket), (CheckKind::Tls, Depth::Connection)] {
        assert_eq!(check(&target, &settings(kind), &dialer()).await, Ok(depth), "{kind:?}");
    }
    let trouble = check(&target, &settings(CheckKind::Handshake), &dialer()).await.expect_err("silence");
    assert_eq!(trouble.kind, "handshake_timeout");
    assert!(trouble.text.contains("no answer within the 300ms of a check"), "{trouble:?}");
}

#[actix::test]
async fn a_target_that_cannot_be_connected_to_fails_by_the_kinds_of_dials() {
    let (listener, target) = origin().await;
    drop(listener);
    for kind in [CheckKind::Tcp, CheckKind::Handshake] {
        assert_eq!(check(&target, &settings(kind), &dialer()).await.expect_err("nobody").kind, "connect_refused");
    }
    let closed = Dialer::new(DialSettings::default());
    let trouble = check(&target, &settings(CheckKind::Tcp), &closed).await.expect_err("forbidden");
    assert_eq!(trouble.kind, "guard", "the guard is asked each time");
}

#[actix::test]
async fn the_rtmp_handshake_goes_to_its_end() {
    let (mut ours, mut theirs) = duplex(8192);
    let server = async {
        let mut hello = vec![0; 1 + handshake::PACKET];
        theirs.read_exact(&mut hello).await.expect("C0 and C1");
        let mut answer = Vec::new();
        handshake::hello(&mut answer, &mut |bytes| bytes.fill(7));
        handshake::echo(&mut answer, &hello[1..]);
        theirs.write_all(&answer).await.expect("S0, S1 and S2");
        let mut echo = vec![0; handshake::PACKET];
        theirs.read_exact(&mut echo).await.expect("C2");
        assert_eq!(echo, answer[1..=handshake::PACKET]);
    };
    let (spoken, ()) = tokio::join!(shake(&mut ours), server);
    assert_eq!(spoken, Ok(()));
}

/// What comes of it where the server says `answer` and closes.
async fn answered(family: Family, answer: &[u8]) -> Result<(), &'static str> {
    let (mut ours, mut theirs) = duplex(8192);
    theirs.write_all(answer).await.expect("it fits");
    let server = async move {
        let mut heard = [0; 16];
        let _ = theirs.read_exact(&mut heard).await;
    };
    let check = async {
        match family {
            Family::Rtmp => shake(&mut ours).await,
            Family::Rtsp => ask(&mut ours).await,
        }
    };
    tokio::join!(check, server).0.map_err(|trouble| trouble.kind)
}

#[actix::test]
async fn what_does_not_speak_the_protocol_is_told_from_what_stops() {
    assert_eq!(answered(Family::Rtmp, b"HTTP/1.1 400 Bad Request\r\n\r\n").await, Err("protocol"));
    assert_eq!(answered(Family::Rtmp, &[3; 1000]).await, Err("handshake"));
    assert_eq!(answered(Family::Rtsp, b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n").await, Ok(()), "somebody is there");
    assert_eq!(answered(Family::Rtsp, b"HTTP/1.1 400 Bad Request\r\n\r\n").await, Err("protocol"));
    assert_eq!(answered(Family::Rtsp, b"RTSP").await, Err("handshake"));
    assert_eq!(answered(Family::Rtsp, &[b'R'; 5000]).await, Err("handshake"), "bounded");
}
