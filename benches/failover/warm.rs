//! How soon is a publisher accepted, with warm connections and without? Through the relay as a program to an origin that speaks TLS, on
//! this machine and some milliseconds away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::{Relay, origin, publisher, row};

/// Each way, where the origin is not on this machine.
const FAR: Duration = Duration::from_millis(10);
/// Spare connections, where there are any.
const SPARES: u32 = 2;

/// Publishes `tries` times each way, one after the other, and prints what each took.
pub(crate) fn measure(tries: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    println!("from a publisher's connect to its Publish.Start, to an origin over TLS; {tries} tries each");
    println!("| | p50, ms | p90 | p99 | longest |");
    println!("|---|---|---|---|---|");
    for (place, away) in [("on this machine", Duration::ZERO), ("10 ms away", FAR)] {
        let origin = runtime.block_on(private_origin(away));
        for (name, idle) in [("without warm connections", 0), ("with", SPARES)] {
            let relay = Relay::of(&config(origin, idle));
            let mut took: Vec<Duration> =
                (0..tries).map(|number| runtime.block_on(publish(relay.address, number, away))).collect();
            row(&format!("{place}, {name}"), &mut took);
        }
    }
}

fn config(origin: SocketAddr, idle: u32) -> Value {
    json!({
        "listen_addr": "127.0.0.1:0", "http_addr": "",
        "upstreams": [{ "url": format!("rtmps://{origin}"), "insecure_skip_verify": true }],
        "security": { "upstream_allowed_networks": ["127.0.0.0/8"] },
        "pool": { "min_idle": idle, "max_idle": idle },
    })
}

/// What one publisher waits; it leaves at once, and the relay has time to make another spare.
async fn publish(relay: SocketAddr, number: usize, away: Duration) -> Duration {
    tokio::time::sleep(Duration::from_millis(100) + 10 * away).await;
    let began = Instant::now();
    let begun = publisher::begin(relay, number).await.expect("the stream is taken");
    let took = began.elapsed();
    drop(begun);
    took
}

/// An origin of TLS 1.3 to which bytes take `away`, and as long back.
async fn private_origin(away: Duration) -> SocketAddr {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let config = builder.with_single_cert(vec![certified.cert.der().clone()], key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (here, there) = (bound().await, bound().await);
    let (address, behind) = (local(&here), local(&there));
    tokio::spawn(async move {
        while let Ok((socket, _)) = there.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A relay that leaves ends it in the middle.
                if let Ok(private) = acceptor.accept(socket).await {
                    let _ = origin::serve(private).await;
                }
            });
        }
    });
    tokio::spawn(async move {
        while let Ok((socket, _)) = here.accept().await {
            tokio::spawn(pass(socket, behind, away));
        }
    });
    address
}

async fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

fn local(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("it is bound")
}

/// Passes bytes both ways, each piece `away` after it came.
async fn pass(relay: TcpStream, origin: SocketAddr, away: Duration) -> std::io::Result<()> {
    let origin = TcpStream::connect(origin).await?;
    relay.set_nodelay(true)?;
    origin.set_nodelay(true)?;
    let ((from_relay, to_relay), (from_origin, to_origin)) = (relay.into_split(), origin.into_split());
    tokio::select! {
        end = carry(from_relay, to_origin, away) => end,
        end = carry(from_origin, to_relay, away) => end,
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, away: Duration) -> std::io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        tokio::time::sleep(away).await;
        to.write_all(&piece[..read]).await?;
    }
}
