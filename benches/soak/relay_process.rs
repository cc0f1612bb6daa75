//! The relay under test: a program, its configuration, its log, and what the kernel says of it.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::program::Program;
use super::report::Sample;

/// What its log said.
#[derive(Debug, Default)]
pub struct Said {
    /// The reason of the end of each stream's session. Each has a name of its own, and the log shows it.
    reasons: HashMap<String, String>,
    /// Sessions that ended, by reason.
    pub ends: HashMap<String, u64>,
    /// Lines of level error.
    pub errors: HashMap<String, u64>,
}

/// See the module.
pub struct RelayProcess {
    program: Program,
    file: PathBuf,
    config: Value,
    began: Instant,
    said: Arc<Mutex<Said>>,
    _folder: tempfile::TempDir,
}

impl RelayProcess {
    /// Before these origins, for so many clients at a time.
    pub fn start(origins: &[SocketAddr], clients: usize) -> Self {
        let upstreams: Vec<_> = origins.iter().map(|o| json!({ "url": format!("rtmp://{o}") })).collect();
        let config = json!({
            "listen_addr": "127.0.0.1:0", "http_addr": "127.0.0.1:0", "admin_addr": "", "upstreams": upstreams,
            "security": { "auth_enabled": true, "auth_tokens": ["soak"], "upstream_allowed_networks": ["127.0.0.0/8"] },
            "connection_limit": { "max_total_connections": 2 * clients + 100, "max_per_ip": 2 * clients + 100 },
            "log": { "level": "info", "stream_names": "plain" },
        });
        let said = Arc::new(Mutex::new(Said::default()));
        let told = Arc::clone(&said);
        let note = move |line: Value| told.lock().expect("nobody panics with it").note(&line);
        let folder = tempfile::tempdir().expect("a folder for the configuration");
        let file = folder.path().join("config.json");
        let program = Program::start(&file, &config, &["listening", "http_listening"], note);
        Self { program, file, config, began: Instant::now(), said, _folder: folder }
    }

    /// Where clients go.
    pub fn address(&self) -> SocketAddr {
        self.program.address("listening")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program.child), signal).expect("it runs");
    }

    /// Changes something in the file and says so; true where the file is bad.
    pub fn reload(&mut self, chance: &mut SmallRng) -> bool {
        let bad = chance.random_range(0..4) == 0;
        let hold = ["0s", "5ms", "20ms", "50ms"][chance.random_range(0..4)];
        self.config["hold"] = json!({ "max": hold });
        self.config["security"]["auth_tokens"] = json!(["soak", format!("other-{}", chance.random_range(0..1_000_000))]);
        self.config["pool"] = json!({ "min_idle": chance.random_range(0..4), "max_idle": 8 });
        let mut text = self.config.to_string();
        if bad {
            text.truncate(text.len() / 2);
        }
        let beside = self.file.with_extension("new");
        fs::write(&beside, text).and_then(|()| fs::rename(beside, &self.file)).expect("the folder takes files");
        self.signal(Signal::HUP);
        bad
    }

    /// How it stands.
    pub fn sample(&self, now: Instant) -> Sample {
        let proc = format!("/proc/{}", self.program.child.id());
        let status = fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
        let descriptors = fs::read_dir(format!("{proc}/fd")).map_or(0, Iterator::count);
        Sample { at: now - self.began, rss, descriptors, sessions: self.sessions() }
    }

    /// Sessions, as /status says.
    fn sessions(&self) -> Option<u64> {
        let mut socket = TcpStream::connect(self.program.address("http_listening")).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        socket.write_all(b"GET /status HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        let status: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        status["connections"]["active"].as_u64()
    }

    /// Ends it by SIGTERM; its exit code.
    pub fn end(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let code = self.program.child.wait().ok()?.code();
        // The rest of its log.
        std::thread::sleep(Duration::from_millis(300));
        code
    }

    /// The word by which the relay called the end of the session of `stream`.
    pub fn reason(&self, stream: &str) -> Option<String> {
        self.said.lock().ok()?.reasons.get(stream).cloned()
    }

    /// Looks at what its log said.
    pub fn said<T>(&self, then: impl FnOnce(&Said) -> T) -> T {
        then(&self.said.lock().expect("nobody panics with it"))
    }
}

impl Said {
    fn note(&mut self, line: &Value) {
        let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        if line["level"].as_str().is_some_and(|level| level.eq_ignore_ascii_case("error")) {
            *self.errors.entry(word("event")).or_default() += 1;
        }
        if let (Some("session_ended"), Some(reason)) = (line["event"].as_str(), line["reason"].as_str()) {
            *self.ends.entry(reason.to_owned()).or_default() += 1;
            self.reasons.insert(word("stream"), reason.to_owned());
        }
    }
}
