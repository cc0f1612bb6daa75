//! Whoever watches: reads /metrics once a second, and notes how long that took.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From one scrape's start to the next.
const PACE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Scraper {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<u32>>>,
}

impl Scraper {
    /// Begins at once.
    pub fn begin(http: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !ends.load(Relaxed) {
                let began = Instant::now();
                scrape(http)?;
                times.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
                while began.elapsed() < PACE && !ends.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Ok(times)
        });
        Self { over, thread }
    }

    /// How long each took, µs, sorted.
    pub fn end(self) -> Result<Vec<u32>, String> {
        self.over.store(true, Relaxed);
        let times = self.thread.join().map_err(|_| "the scraper panicked".to_owned())?;
        let mut times = times.map_err(|e| format!("/metrics: {e}"))?;
        times.sort_unstable();
        Ok(times)
    }
}

fn scrape(http: SocketAddr) -> io::Result<()> {
    let mut socket = TcpStream::connect(http)?;
    socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: relay\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.0 200") { Ok(()) } else { Err(io::Error::other("it does not answer")) }
}
