//! Those who have no business here.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// They come until it is over; how many came.
pub async fn come(relay: SocketAddr, mut chance: SmallRng, over: CancellationToken) -> u64 {
    let mut came = 0;
    while !over.is_cancelled() {
        sleep(Duration::from_millis(chance.random_range(20..400))).await;
        let Ok(mut socket) = TcpStream::connect(relay).await else { continue };
        came += 1;
        let (kind, length) = (chance.random_range(0..6), chance.random_range(1..3000));
        let mut garbage = vec![0; length];
        chance.fill_bytes(&mut garbage);
        let stay = Duration::from_millis(chance.random_range(0..3000));
        tokio::spawn(async move {
            let said: Vec<u8> = match kind {
                0 => Vec::new(),
                1 => garbage,
                // A handshake that stays half.
                2 => [&[3][..], &garbage].concat(),
                3 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
                4 => b"ANNOUNCE rtsp://x/live/y RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999\r\n\r\nv=0".to_vec(),
                _ => [&b"\x16\x03\x01\x02\x00"[..], &garbage].concat(),
            };
            let _ = socket.write_all(&said).await;
            sleep(stay).await;
            if stay.as_millis().is_multiple_of(2) {
                let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
        });
    }
    came
}
