//! The origin: nginx with its RTMP module, which records all it is sent.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::flv::{self, Tag};
use crate::http;
use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_for, wait_until};

/// How this origin differs from the plain one.
#[derive(Clone)]
pub struct NginxOptions {
    /// Bytes of a chunk, as it announces.
    pub chunk_size: u32,
    /// `http://host:port` to be asked at connect, publish and play, and told at their ends.
    pub callbacks: Option<String>,
    /// Seconds of silence before a client is pinged, and until it is given up; nginx's own are 60 and 30.
    pub ping: Option<u32>,
}

impl Default for NginxOptions {
    fn default() -> Self {
        NginxOptions { chunk_size: 4096, callbacks: None, ping: None }
    }
}

/// A running origin on free ports of 127.0.0.1, with one application, `live`.
pub struct Nginx {
    process: Running,
    rtmp: u16,
    http: u16,
    dir: TempDir,
}

impl Nginx {
    /// Starts one and waits until it answers.
    pub fn start(options: &NginxOptions) -> Self {
        // The ports are free when they are chosen; somebody else may be faster, then others are tried.
        (0..5).find_map(|_| Self::try_start(options)).expect("nginx starts (five tries)")
    }

    fn try_start(options: &NginxOptions) -> Option<Self> {
        let dir = workdir("nginx");
        let (rtmp, http) = free_ports();
        fs::create_dir(dir.path().join("rec")).expect("a fresh directory takes another");
        let conf = dir.path().join("nginx.conf");
        fs::write(&conf, configuration(dir.path(), rtmp, http, options)).expect("a fresh directory takes a file");
        let process = run(dir.path());
        let mut nginx = Nginx { process, rtmp, http, dir };
        nginx.comes_up().then_some(nginx)
    }

    /// Whether it answers, or has given up.
    fn comes_up(&mut self) -> bool {
        let mine = format!("<pid>{}</pid>", self.process.pid());
        let up = wait_for("nginx answers or gives up", SOON, || match self.process.exited() {
            Some(_) => Some(false),
            None => self.stat().contains(&mine).then_some(true),
        });
        if !up {
            eprintln!("nginx: {}", self.process.output());
        }
        up
    }

    /// Starts it again after [`Self::kill`], on its own ports.
    pub fn restart(&mut self) {
        self.process = run(self.dir.path());
        assert!(self.comes_up(), "nginx comes back");
    }

    /// `127.0.0.1:port` of its RTMP side.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.rtmp)
    }

    /// The module's statistics page; empty while it does not answer.
    fn stat(&self) -> String {
        http::get(&format!("127.0.0.1:{}", self.http), "/stat").unwrap_or_default()
    }

    /// How many publish or play `stream` at the moment.
    pub fn clients(&self, stream: &str) -> usize {
        let stat = self.stat();
        let of_stream = stat.split_once(&format!("<name>{stream}</name>")).map(|(_, rest)| rest);
        let count = of_stream.and_then(|rest| rest.split_once("<nclients>")?.1.split_once('<'));
        count.and_then(|(count, _)| count.parse().ok()).unwrap_or(0)
    }

    /// Waits until so many publish or play `stream`.
    pub fn wait_for_clients(&self, stream: &str, count: usize) {
        let mut seen = 0;
        wait_until(&format!("nginx has {count} clients on {stream}"), SOON, || {
            seen = self.clients(stream);
            seen == count
        });
    }

    /// How many bytes it has ever been sent on its RTMP side. The relay's probe for /ready connects and says nothing.
    pub fn heard(&self) -> usize {
        let stat = self.stat();
        let count = stat.split_once("<bytes_in>").and_then(|(_, rest)| rest.split_once('<'));
        count.and_then(|(count, _)| count.parse().ok()).expect("the statistics page counts bytes")
    }

    /// For how many milliseconds the youngest of its present clients has been connected.
    pub fn youngest_client(&self, stream: &str) -> u64 {
        let stat = self.stat();
        let of_stream = stat.split_once(&format!("<name>{stream}</name>")).map_or("", |(_, rest)| rest);
        let ages = of_stream.split("<client>").skip(1).filter_map(|client| client.split_once("<time>")?.1.split_once('<'));
        ages.filter_map(|(age, _)| age.parse().ok()).min().unwrap_or(0)
    }

    /// Where it records `stream`.
    pub fn recording(&self, stream: &str) -> PathBuf {
        self.dir.path().join("rec").join(format!("{stream}.flv"))
    }

    /// Waits until the publisher of `stream` has left and its recording is whole, and reads it.
    pub fn recorded(&self, stream: &str, within: Duration) -> Vec<Tag> {
        let line = format!("PUBLISH \"live\" \"{stream}\"");
        wait_until(&format!("nginx sees the end of {stream}"), within, || self.access_log().contains(&line));
        flv::read(&self.recording(stream))
    }

    /// One line for each connection that has ended.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }

    /// Names of the logs and recordings that hold `secret`.
    pub fn files_with(&self, secret: &str) -> Vec<String> {
        let logs = ["access.log", "error.log"].map(|name| self.dir.path().join(name));
        let recordings = fs::read_dir(self.dir.path().join("rec")).expect("it was made at the start");
        let recordings = recordings.map(|entry| entry.expect("a directory can be listed").path());
        let holds = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            path.display().to_string().contains(secret) || bytes.windows(secret.len()).any(|part| part == secret.as_bytes())
        };
        logs.into_iter().chain(recordings).filter(holds).map(|path| path.display().to_string()).collect()
    }

    /// Ends it as a crash would: kill -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

fn run(dir: &Path) -> Running {
    let mut command = Command::new(program());
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log"));
    Running::start("nginx", &mut command, dir)
}

fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    let (one, two) = (bind(), bind());
    let port = |socket: &TcpListener| socket.local_addr().expect("a bound socket has an address").port();
    (port(&one), port(&two))
}

/// Ordinary users have no /usr/sbin in their path.
pub(super) fn program() -> &'static str {
    ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].into_iter().find(|path| Path::new(path).exists()).unwrap_or("nginx")
}

/// Distributions ship modules apart; where one is compiled in there is nothing to load.
pub(super) fn load_module(module: &str) -> String {
    let places = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];
    let files = places.map(|place| format!("{place}/{module}"));
    files.into_iter().find(|file| Path::new(file).exists()).map(|file| format!("load_module {file};")).unwrap_or_default()
}

/// Players wait for the publisher, hear of its end, and lose no frame however slowly they read: the queue of each holds
/// more messages than any test sends.
fn configuration(dir: &Path, rtmp: u16, http: u16, options: &NginxOptions) -> String {
    let dir = dir.display();
    let NginxOptions { chunk_size, callbacks, ping } = options;
    let asked = callbacks.as_ref().map(|base| {
        let ends = ["on_publish", "on_play", "on_publish_done", "on_play_done", "on_done"];
        let ends: String = ends.iter().map(|name| format!("{name} {base}/{name}; ")).collect();
        (format!("on_connect {base}/on_connect; on_disconnect {base}/on_disconnect;"), ends)
    });
    let (at_connect, at_stream) = asked.unwrap_or_default();
    let ping = ping.map(|seconds| format!("ping {seconds}s; ping_timeout {seconds}s;")).unwrap_or_default();
    let load_module = load_module("ngx_rtmp_module.so");
    format!(
        "daemon off; master_process off; error_log {dir}/error.log info; pid {dir}/nginx.pid; {load_module}
events {{ worker_connections 256; }}
rtmp {{
  access_log {dir}/access.log;
  server {{
    listen 127.0.0.1:{rtmp}; chunk_size {chunk_size}; out_queue 524288; {ping} {at_connect}
    application live {{
      live on; meta copy; publish_notify on;
      record all; record_path {dir}/rec; record_unique off;
      {at_stream}
    }}
  }}
}}
http {{
  access_log off;
  client_body_temp_path {dir}/tmp; proxy_temp_path {dir}/tmp; fastcgi_temp_path {dir}/tmp;
  uwsgi_temp_path {dir}/tmp; scgi_temp_path {dir}/tmp;
  server {{ listen 127.0.0.1:{http}; location /stat {{ rtmp_stat all; }} }}
}}
"
    )
}
