//! The program under test: the real binary, with a configuration written for the test.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;
use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_for, wait_until};

/// A running `relay`.
pub struct Relay {
    process: Running,
    address: String,
    private: Option<String>,
    http: String,
    _dir: TempDir,
}

impl Relay {
    /// Starts one in front of the origin at `origin` (`host:port`), anyone may come in.
    pub fn to(origin: &str) -> Self {
        Self::start(origin, json!({}))
    }

    /// Starts one that asks for one of `tokens`.
    pub fn with_tokens(origin: &str, tokens: &[&str]) -> Self {
        let security = json!({ "auth_enabled": true, "auth_tokens": tokens, "upstream_allowed_networks": ["127.0.0.0/8"] });
        Self::start(origin, json!({ "security": security }))
    }

    /// Starts one in front of the origin at `origin` (`host:port`), with further keys of the configuration.
    pub fn start(origin: &str, more: Value) -> Self {
        let upstreams = json!([{ "url": format!("rtmp://{origin}") }]);
        Self::configured(upstreams, more)
    }

    /// Starts one in front of these `upstreams`, anyone may come in.
    pub fn before(upstreams: Value) -> Self {
        Self::configured(upstreams, json!({}))
    }

    /// Starts one, and waits until it says where it listens.
    pub fn configured(upstreams: Value, more: Value) -> Self {
        Self::run_by(Command::new(env!("CARGO_BIN_EXE_relay")), &[], upstreams, more)
    }

    /// Starts one by `command`, which takes the configuration file as its last argument, with these variables.
    pub fn run_by(mut command: Command, variables: &[(&str, &str)], upstreams: Value, more: Value) -> Self {
        let dir = workdir("relay");
        let mut config = json!({
            "listen_addr": "127.0.0.1:0",
            "http_addr": "127.0.0.1:0",
            "admin_addr": "",
            "upstreams": upstreams,
            "security": { "upstream_allowed_networks": ["127.0.0.0/8"] },
            "log": { "format": "json", "level": "debug" },
        });
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        let file = dir.path().join("config.json");
        fs::write(&file, config.to_string()).expect("a fresh directory takes a file");
        // What the developer has in the environment must not decide a test.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.arg(&file).env_clear().env("PATH", path).env("RUST_BACKTRACE", "1").envs(variables.iter().copied());
        let mut process = Running::start("relay", &mut command, dir.path());
        let (mut doors, mut http) = (Vec::new(), None);
        let expected = 1 + config["listeners"].as_array().map_or(0, Vec::len);
        wait_until("the relay says where it listens", SOON, || {
            assert!(process.exited().is_none(), "the relay ended at once:\n{}", process.output());
            let said = process.output();
            doors = announcements(&said, "listening");
            http = announced(&said, "http_listening");
            doors.len() == expected && http.is_some()
        });
        let at = |door: &Value| field(door, "address").map(str::to_owned);
        let private = doors.iter().find(|door| field(door, "tls") != Some("off")).and_then(at);
        let address = doors.first().and_then(at).unwrap_or_default();
        Relay { process, address, private, http: http.unwrap_or_default(), _dir: dir }
    }

    /// `host:port` for encoders and players.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The port for clients that speak TLS, where it has one.
    pub fn private_port(&self) -> &str {
        let address = self.private.as_deref().expect("a listener with TLS was configured");
        address.rsplit_once(':').map_or(address, |(_, port)| port)
    }

    /// `host:port` of /status and /metrics.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// What /status says.
    pub fn status(&self) -> Value {
        let body = http::get(&self.http, "/status").expect("/status answers");
        serde_json::from_str(&body).expect("/status is JSON")
    }

    /// What /metrics says.
    pub fn metrics(&self) -> String {
        http::get(&self.http, "/metrics").expect("/metrics answers")
    }

    /// The value of one metric, labels and all: `name{label="value"}`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics().lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Waits until it holds so many connections.
    pub fn wait_for_active(&self, count: u64) {
        let mut seen = Value::Null;
        wait_until(&format!("the relay has {count} connections"), SOON, || {
            seen = self.status()["connections"]["active"].clone();
            seen == json!(count)
        });
    }

    /// How many file descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let dir = PathBuf::from(format!("/proc/{}/fd", self.pid()));
        fs::read_dir(dir).expect("a running process has descriptors").count()
    }

    /// Waits until it has no more descriptors open than `before`.
    pub fn wait_for_descriptors(&self, before: usize) {
        wait_for("the relay has closed its descriptors", SOON, || (self.descriptors() <= before).then_some(()));
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// The lines that it has logged of this event.
    pub fn said(&self, event: &str) -> Vec<Value> {
        announcements(&self.log(), event)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until it has ended.
    pub fn finish(&mut self, within: Duration) -> ExitStatus {
        self.process.finish(within)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn shut_down(&mut self, within: Duration) -> ExitStatus {
        self.process.terminate();
        self.process.finish(within)
    }
}

/// The address in the first log line of this event.
fn announced(log: &str, event: &str) -> Option<String> {
    announcements(log, event).iter().find_map(|line| field(line, "address").map(str::to_owned))
}

/// The log lines of this event.
fn announcements(log: &str, event: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| field(line, "event").or_else(|| field(line, "message")) == Some(event)).collect()
}

/// A field of a log line, wherever the formatter puts fields.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    line[name].as_str().or_else(|| line["fields"][name].as_str())
}

#[test]
fn an_announcement_is_read_from_flat_and_nested_fields() {
    let log = "not JSON\n{\"event\":\"starting\",\"address\":\"no\"}\n{\"event\":\"listening\",\"address\":\"127.0.0.1:4\"}\n\
               {\"fields\":{\"message\":\"http_listening\",\"address\":\"[::1]:5\"}}\n";
    assert_eq!(announced(log, "listening").as_deref(), Some("127.0.0.1:4"));
    assert_eq!(announced(log, "http_listening").as_deref(), Some("[::1]:5"));
    assert_eq!(announced(log, "stopped"), None);
}
