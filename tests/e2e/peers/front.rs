//! TLS in front of an origin that speaks plain: nginx's stream module.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::nginx;
use crate::paper::Paper;
use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_for};

/// A running nginx that takes TLS and passes plain on.
pub struct Front {
    addresses: Vec<SocketAddr>,
    _process: Running,
    _dir: TempDir,
}

impl Front {
    /// One door for each pair: what it shows, and where (`host:port`) it leads.
    pub fn start(doors: &[(&Paper, String)]) -> Self {
        // The ports are free when they are chosen; somebody else may be faster, then others are tried.
        (0..5).find_map(|_| Self::try_start(doors)).expect("nginx starts (five tries)")
    }

    fn try_start(doors: &[(&Paper, String)]) -> Option<Self> {
        let dir = workdir("front");
        let held: Vec<TcpListener> =
            doors.iter().map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port")).collect();
        let addresses: Vec<SocketAddr> =
            held.iter().map(|socket| socket.local_addr().expect("a bound socket has an address")).collect();
        drop(held);
        let servers: String = doors
            .iter()
            .zip(&addresses)
            .map(|((paper, to), at)| {
                let (cert, key) = (paper.cert.display(), paper.key.display());
                format!("  server {{ listen {at} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; proxy_pass {to}; }}\n")
            })
            .collect();
        let (here, module) = (dir.path().display(), nginx::load_module("ngx_stream_module.so"));
        let text = format!(
            "daemon off; master_process off; error_log {here}/error.log info; pid {here}/nginx.pid; {module}\n\
             events {{ worker_connections 256; }}\nstream {{\n{servers}}}\n"
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, text).expect("a fresh directory takes a file");
        let mut command = Command::new(nginx::program());
        command.arg("-p").arg(dir.path()).arg("-c").arg(&file).arg("-e").arg(dir.path().join("error.log"));
        let mut process = Running::start("front", &mut command, dir.path());
        let up = wait_for("nginx listens or gives up", SOON, || match process.exited() {
            Some(_) => Some(false),
            None => addresses.iter().all(|at| TcpStream::connect(at).is_ok()).then_some(true),
        });
        if !up {
            eprintln!("nginx: {}", process.output());
        }
        up.then_some(Front { addresses, _process: process, _dir: dir })
    }

    /// `host:port` of the door of this number.
    pub fn address(&self, door: usize) -> String {
        self.addresses[door].to_string()
    }
}
