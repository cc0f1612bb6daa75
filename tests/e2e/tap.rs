//! What reaches the origin, byte for byte? A proxy in front of it that keeps what it passes on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A proxy on a free port.
pub struct Tap {
    address: SocketAddr,
    to_origin: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Starts one in front of `origin`.
    pub fn start(origin: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (to_origin, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (to_origin, stop) = (Arc::clone(&to_origin), Arc::clone(&stop));
            move || {
                for client in listener.incoming().flatten().take_while(|_| !stop.load(Ordering::SeqCst)) {
                    if let Ok(server) = TcpStream::connect(&origin) {
                        let kept = Arc::clone(&to_origin);
                        pass(&client, &server, move |bytes| kept.lock().expect("no thread panics with it").extend(bytes));
                        pass(&server, &client, |_| ());
                    }
                }
            }
        });
        Tap { address, to_origin, stop, thread: Some(thread) }
    }

    /// `127.0.0.1:port`, to be used in the origin's place.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Whether `part` has been sent to the origin. Chunk headers may stand inside anything longer than the first chunk
    /// of its message, so look for short words.
    pub fn saw(&self, part: &str) -> bool {
        let seen = self.to_origin.lock().expect("no thread panics with it");
        seen.windows(part.len()).any(|window| window == part.as_bytes())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

/// Copies from one to the other in a thread that ends with either of them.
fn pass(from: &TcpStream, to: &TcpStream, mut keep: impl FnMut(&[u8]) + Send + 'static) {
    let clone = |socket: &TcpStream| socket.try_clone().expect("a socket can be cloned");
    let (mut from, mut to) = (clone(from), clone(to));
    to.set_nodelay(true).ok();
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            keep(&buffer[..count]);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Write).ok();
    });
}
