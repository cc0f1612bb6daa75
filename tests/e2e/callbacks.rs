//! The HTTP back-end that an origin asks: says yes to everything and keeps what it was told.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait::{SOON, wait_for};

/// A back-end on a free port.
pub struct Callbacks {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One question of the origin's.
#[derive(Clone, Debug)]
pub struct Call {
    /// `on_publish` and the like.
    pub name: String,
    /// The form that came with it.
    pub body: String,
}

impl Callbacks {
    /// Starts one.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (calls, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (calls, stop) = (Arc::clone(&calls), Arc::clone(&stop));
            move || {
                for socket in listener.incoming().flatten().take_while(|_| !stop.load(Ordering::SeqCst)) {
                    // One at a time: each question is a few hundred bytes from this machine.
                    if let Ok(call) = answer(&socket) {
                        calls.lock().expect("no thread panics with it").push(call);
                    }
                }
            }
        });
        Callbacks { address, calls, stop, thread: Some(thread) }
    }

    /// `http://host:port`, for the origin's configuration.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All questions so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no thread panics with it").clone()
    }

    /// Waits for the first question of this name.
    pub fn wait_for(&self, name: &str) -> Call {
        wait_for(&format!("the origin calls {name}"), SOON, || self.calls().into_iter().find(|call| call.name == name))
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread out of accept.
        TcpStream::connect(self.address).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

fn answer(socket: &TcpStream) -> io::Result<Call> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(socket);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let mut socket = socket;
    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(Call { name, body: String::from_utf8_lossy(&body).into_owned() })
}
