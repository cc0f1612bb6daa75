//! A load balancer: HAProxy, which passes TCP on and speaks the PROXY protocol.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_until};

/// Where it connects from, so that it is told from its clients.
pub const HAPROXY: &str = "127.0.0.9";

/// A running HAProxy.
pub struct Haproxy {
    address: SocketAddr,
    process: Running,
    _dir: TempDir,
}

impl Haproxy {
    /// Passes on to `server`, with these further words on the lines of its `bind` and `server`.
    pub fn start(bind: &str, server: &str, words: &str) -> Self {
        let dir = workdir("haproxy");
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = free.local_addr().expect("a bound socket has an address");
        drop(free);
        let text = format!(
            "global\n  log stdout format raw local0\ndefaults\n  mode tcp\n  log global\n  timeout connect 5s\n  timeout client 1m\n  \
             timeout server 1m\nlisten front\n  bind {address} {bind}\n  log-format \"client=%ci:%cp\"\n  \
             server relay {server} source {HAPROXY} {words}\n"
        );
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, text).expect("a fresh directory takes a file");
        let process = Running::start("haproxy", Command::new(program()).arg("-db").arg("-f").arg(&file), dir.path());
        wait_until("haproxy listens", SOON, || TcpStream::connect(address).is_ok());
        Haproxy { address, process, _dir: dir }
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// One line for each connection that has ended.
    pub fn log(&self) -> String {
        self.process.output()
    }
}

/// Ordinary users have no /usr/sbin in their path.
fn program() -> &'static str {
    ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"].into_iter().find(|path| Path::new(path).exists()).unwrap_or("haproxy")
}
