//! Under a service manager: what it is told, and the sockets that it hands over. systemd itself judges the unit files, where it is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_for, wait_until};

/// A relay as systemd would start it: with two listening sockets as descriptors 3 and 4.
struct Service {
    dir: TempDir,
    sockets: [TcpListener; 2],
}

impl Service {
    fn new() -> Self {
        let sockets = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).expect("loopback has a free port"));
        Self { dir: workdir("service"), sockets }
    }

    /// `host:port` of the sockets: for clients, for HTTP.
    fn addresses(&self) -> [String; 2] {
        [0, 1].map(|n| self.sockets[n].local_addr().expect("a bound socket has an address").to_string())
    }

    fn start(&self, listen: &str, http: &str) -> Running {
        let config = json!({ "upstream": "rtmp://origin.example.com", "listen_addr": listen, "http_addr": http, "shutdown_timeout": "0s" });
        let file = self.dir.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("the directory takes a file");
        // The shell's process becomes the relay's, so that LISTEN_PID is right; what it says goes to a file, not into a socket.
        let script = "LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$1\" 3<&0 4<&1 </dev/null >/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_relay")]).arg(&file);
        let fd = |n: usize| Stdio::from(OwnedFd::from(self.sockets[n].try_clone().expect("a socket can be cloned")));
        Running::start_with("relay", &mut command, self.dir.path(), fd(0), fd(1))
    }
}

#[test]
fn handed_sockets_are_listened_on_and_a_client_waits_while_the_relay_restarts() {
    let service = Service::new();
    let [clients, http] = service.addresses();
    let mut relay = service.start(&clients, &http);
    wait_for("/health answers", SOON, || crate::http::get(&http, "/health").ok());
    relay.terminate();
    assert!(relay.finish(SOON).success(), "{}", relay.output());
    // Nobody is there, and nobody is refused.
    let mut waiting = TcpStream::connect(&http).expect("the socket is still open");
    waiting.write_all(b"GET /livez HTTP/1.0\r\n\r\n").expect("it is written");
    TcpStream::connect(&clients).expect("the socket is still open");
    let _relay = service.start(&clients, &http);
    waiting.set_read_timeout(Some(SOON)).expect("a socket takes a timeout");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("it is answered");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[test]
fn a_handed_socket_that_the_configuration_does_not_name_is_refused() {
    let service = Service::new();
    let [clients, http] = service.addresses();
    let mut relay = service.start(&clients, "");
    assert_eq!(relay.finish(SOON).code(), Some(1));
    let said = relay.output();
    assert!(said.contains(&format!("handed a socket for {http}, which neither listen_addr")), "{said}");
}

#[test]
fn the_service_manager_is_told_when_the_relay_is_ready_that_it_lives_and_that_it_ends() {
    let dir = workdir("manager");
    let manager = UnixDatagram::bind(dir.path().join("notify")).expect("a directory takes a socket");
    manager.set_read_timeout(Some(SOON)).expect("a socket takes a timeout");
    let hear = || {
        let mut said = [0; 256];
        let length = manager.recv(&mut said).expect("the relay says something");
        String::from_utf8_lossy(&said[..length]).trim().to_owned()
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.env_clear().env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "200000");
    command.envs([("UPSTREAM", "rtmp://origin.example.com"), ("LISTEN_ADDR", "127.0.0.1:0"), ("HTTP_ADDR", "")]);
    let mut relay = Running::start("relay", command.current_dir(dir.path()), dir.path());
    assert_eq!(hear(), "READY=1");
    assert_eq!([hear(), hear(), hear()], ["WATCHDOG=1"; 3]);
    relay.terminate();
    wait_until("it says that it ends", SOON, || hear() == "STOPPING=1");
    assert!(relay.finish(SOON).success());
}

/// systemd's own judgement, on a copy whose program is there.
#[test]
fn systemd_takes_the_units_and_finds_the_service_locked_up() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("systemd-analyze is not here");
        return;
    }
    let dir = workdir("units");
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    for name in ["relay.service", "relay.socket"] {
        let text = std::fs::read_to_string(units.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = text.replace("/usr/local/bin/relay", env!("CARGO_BIN_EXE_relay"));
        std::fs::write(dir.path().join(name), text).expect("the directory takes a file");
    }
    let mut verify = Command::new("systemd-analyze");
    let mut verify =
        Running::start("verify", verify.args(["verify", "relay.service", "relay.socket"]).current_dir(dir.path()), dir.path());
    verify.succeed(SOON);
    // It complains of units of this machine too.
    let of_ours = verify.output().lines().filter(|line| line.contains("relay")).map(str::to_owned).collect::<Vec<_>>();
    assert!(of_ours.is_empty(), "{of_ours:#?}");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=15", "relay.service"]).current_dir(dir.path());
    Running::start("security", &mut security, dir.path()).succeed(SOON);
}
