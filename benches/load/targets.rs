//! The programs that are compared, each on one core of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::machine::{self, Cores};
use super::papers::Papers;

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy in tcp mode with splicing: the base of every ratio.
    HaProxy,
    /// nginx's stream module.
    NginxStream,
    /// nginx-rtmp, which pushes what is published and pulls what is played. It speaks RTMP, as the relay does.
    NginxRtmp,
    /// A bare epoll loop that passes frames whole and looks at nothing else: what no relay of this shape can go below.
    Floor,
    /// The same, which answers the client and introduces itself to the upstream, as the relay does, but asks nobody.
    SpeakingFloor,
    /// The relay.
    Relay,
}

impl Kind {
    /// As the table shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::NginxStream => "nginx",
            Self::NginxRtmp => "nginx-rtmp",
            Self::Floor | Self::SpeakingFloor => "floor",
            Self::Relay => "relay",
        }
    }

    /// Program and arguments; `config` is the file that holds [`Self::config`].
    fn command(
        self,
        listen: SocketAddr,
        origin: SocketAddr,
        config: &Path,
        papers: Option<&Papers>,
        scheme: &str,
    ) -> Result<Command, String> {
        let with = |program: &Path, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args);
            command
        };
        let path = config.display().to_string();
        let floor = |word: &str| {
            let own = std::env::current_exe().map_err(|e| e.to_string())?;
            let mut command = with(&own, &["--floor", word, &listen.to_string(), &origin.to_string()]);
            command.args(papers.map(|papers| [&papers.cert, &papers.key]).into_iter().flatten());
            Ok(command)
        };
        match self {
            Self::HaProxy => Ok(with(&machine::find("haproxy"), &["-db", "-f", &path])),
            Self::NginxStream | Self::NginxRtmp => Ok(with(&machine::find("nginx"), &["-c", &path])),
            Self::Floor => floor(if scheme == "rtsp" { "pass-rtsp" } else { "pass" }),
            Self::SpeakingFloor => floor("speak"),
            Self::Relay => Ok(with(Path::new(env!("CARGO_BIN_EXE_relay")), &[&path])),
        }
    }

    /// The configuration file. `papers`: its clients speak TLS; `scheme`: of its upstream.
    fn config(self, listen: SocketAddr, origin: SocketAddr, here: &Path, papers: Option<&Papers>, scheme: &str) -> String {
        let here = here.display();
        let nginx = format!(
            "daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000; pid {here}/pid; error_log {here}/log;\n\
             include /etc/nginx/modules-enabled/*.conf;\nevents {{ worker_connections 18000; }}\n"
        );
        match self {
            Self::HaProxy => {
                let tls = papers.map(|p| format!(" ssl crt {}", p.both.display())).unwrap_or_default();
                format!(
                    "global\n nbthread 1\n maxconn 4200\ndefaults\n mode tcp\n option splice-auto\n timeout connect 5s\n timeout client 1h\n \
                     timeout server 1h\nlisten l\n bind {listen}{tls}\n server s {origin}\n"
                )
            }
            Self::NginxStream => {
                let (tls, files) = papers.map_or_else(Default::default, |p| {
                    let files = format!(
                        "ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {};",
                        p.cert.display(),
                        p.key.display()
                    );
                    (" ssl", files)
                });
                format!(
                    "{nginx}stream {{ server {{ listen {listen}{tls}; {files} proxy_pass {origin}; tcp_nodelay on; proxy_timeout 1h; }} }}\n"
                )
            }
            Self::NginxRtmp => format!(
                "{nginx}rtmp {{ server {{ listen {listen}; chunk_size 65536; application live {{ live on; wait_key off; push rtmp://{origin}/live; \
                 pull rtmp://{origin}/live; }} }} }}\n"
            ),
            Self::Floor | Self::SpeakingFloor => String::new(),
            Self::Relay => {
                let tls = papers.map(|p| format!(r#""tls_enabled": true, "tls_cert": {:?}, "tls_key": {:?}, "#, p.cert, p.key));
                let path = if scheme == "rtsp" { "/live" } else { "" };
                format!(
                    r#"{{"listen_addr": "{listen}", "http_addr": "", "admin_addr": "", "upstream": "{scheme}://{origin}{path}", "workers": 1, "idle_timeout": "1h",
                    "connection_limit": {{"max_total_connections": 10000}}, "buffers": {{"pool": 1024}},
                    "security": {{{}"auth_enabled": true, "auth_tokens": ["bench"], "upstream_allowed_networks": ["127.0.0.0/8"]}},
                    "log": {{"level": "error"}}}}"#,
                    tls.unwrap_or_default()
                )
            }
        }
    }
}

/// A running program.
pub struct Target {
    child: Child,
    address: SocketAddr,
    http: Option<SocketAddr>,
    _folder: tempfile::TempDir,
}

impl Target {
    /// Starts `kind` on its core in front of `origin` and waits until it listens. `watched`: a relay has metrics.
    pub fn start(
        kind: Kind,
        origin: SocketAddr,
        cores: &Cores,
        papers: Option<&Papers>,
        scheme: &str,
        watched: bool,
    ) -> Result<Self, String> {
        let text = |e: std::io::Error| e.to_string();
        let folder = tempfile::tempdir().map_err(text)?;
        let free = || TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).map_err(text);
        let (address, http) = (free()?, if watched { Some(free()?) } else { None });
        let path = folder.path().join("config");
        let mut config = kind.config(address, origin, folder.path(), papers, scheme);
        if let Some(http) = http {
            config = config.replace(r#""http_addr": """#, &format!(r#""http_addr": "{http}""#));
        }
        fs::write(&path, config).map_err(text)?;
        let mut command = kind.command(address, origin, &path, papers, scheme)?;
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        let child = cores.on_target(|| command.spawn()).map_err(|e| format!("{:?}: {e}", command.get_program()))?;
        let mut target = Self { child, address, http, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            if let Ok(Some(status)) = target.child.try_wait() {
                return Err(format!("{:?} ended: {status}", command.get_program()));
            }
            if Instant::now() > deadline {
                return Err(format!("{:?} does not listen", command.get_program()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(target)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it tells its metrics, if it does.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
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
