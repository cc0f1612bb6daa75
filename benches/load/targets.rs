//! The programs that are compared, each on one core of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// The core of the target; the load has the other.
const TARGET_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// A program under test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy in tcp mode with splicing: the base of every ratio.
    HaProxy,
    /// nginx's stream module.
    NginxStream,
    /// The relay.
    Relay,
}

impl Kind {
    /// All of them, the base first.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::HaProxy, Self::NginxStream, Self::Relay].into_iter()
    }

    /// As the table shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "haproxy",
            Self::NginxStream => "nginx",
            Self::Relay => "relay",
        }
    }
}

/// A running program.
pub struct Target {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Target {
    /// Starts `kind` in front of `origin` and waits until it listens.
    pub fn start(kind: Kind, origin: SocketAddr) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let address = free_port()?;
        let path = folder.path().join("config");
        let here = folder.path().display();
        let (text, program, args): (String, &str, Vec<String>) = match kind {
            Kind::HaProxy => (
                format!(
                    "global\n nbthread 1\n maxconn 4200\ndefaults\n mode tcp\n option splice-auto\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
                     listen l\n bind {address}\n server s {origin}\n"
                ),
                "haproxy",
                vec!["-db".into(), "-f".into(), path.display().to_string()],
            ),
            Kind::NginxStream => (
                format!(
                    "daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000; pid {here}/pid; error_log {here}/log;\n\
                     include /etc/nginx/modules-enabled/*stream*.conf;\n\
                     events {{ worker_connections 18000; }}\nstream {{ server {{ listen {address}; proxy_pass {origin}; tcp_nodelay on; proxy_timeout 1h; }} }}\n"
                ),
                "nginx",
                vec!["-c".into(), path.display().to_string()],
            ),
            Kind::Relay => (
                format!(
                    r#"{{"listen_addr": "{address}", "http_addr": "", "admin_addr": "", "upstream": "rtmp://{origin}", "workers": 1, "idle_timeout": "1h",
                    "connection_limit": {{"max_total_connections": 10000}}, "buffers": {{"pool": 1024}},
                    "security": {{"auth_enabled": true, "auth_tokens": ["bench"], "upstream_allowed_networks": ["127.0.0.0/8"]}},
                    "log": {{"level": "error"}}}}"#
                ),
                env!("CARGO_BIN_EXE_relay"),
                vec![path.display().to_string()],
            ),
        };
        fs::write(&path, text).map_err(|e| e.to_string())?;
        let child = Command::new("taskset")
            .args(["-c", &TARGET_CORE.to_string(), program])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| format!("{program}: {e}"))?;
        let target = Self { child, address, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{program} does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(target)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Seconds that its threads have run.
    pub fn cpu(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let ran = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        };
        tasks.map_or(0.0, |tasks| tasks.flatten().filter_map(ran).sum::<f64>() / 1e9)
    }

    /// Its proportional set size, kB.
    pub fn pss(&self) -> i64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("Pss:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<SocketAddr, String> {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).map_err(|e| e.to_string())
}

/// Keeps this process off the target's core.
pub fn pin_self() {
    let mut cores = CpuSet::new();
    cores.set(LOAD_CORE);
    if sched_setaffinity(None, &cores).is_err() {
        eprintln!("one core only: load and target share it, the figures mean little");
    }
}

/// Thousands of sockets are opened here.
pub fn raise_descriptor_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
}

/// The machine and the versions, in a line each.
pub fn machine() -> String {
    let first = |program: &str, arg: &str| {
        let output = Command::new(program).arg(arg).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_matches([' ', '\t', ':']).to_owned();
    let lines = [
        Some(cpu),
        first("uname", "-sr"),
        first("haproxy", "-v"),
        first("nginx", "-v"),
        first(env!("CARGO_BIN_EXE_relay"), "--version"),
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}
