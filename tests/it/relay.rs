//! The relay under test: inside this process, where actors can be reached, or as the program itself.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::dev::{MessageResponse, ToEnvelope};
use actix::{Actor, Addr, Handler};
use relay::app::{self, Actors};
use relay::config::{self, Env};
use relay::telemetry::Telemetry;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::wait::{wait_for, wait_until};

/// What every test's relay is configured with, under `more`; a null takes a key out.
pub(crate) fn configured(upstream: &str, more: Value) -> Value {
    let mut config = json!({
        "listen_addr": "127.0.0.1:0",
        "http_addr": "127.0.0.1:0",
        "admin_addr": "",
        "workers": 2,
        "upstream": upstream,
        "security": { "upstream_allowed_networks": ["127.0.0.0/8"] },
        "log": { "format": "json", "level": "debug" },
    });
    if more.get("upstreams").is_some() {
        config.as_object_mut().expect("an object").remove("upstream");
    }
    merge(&mut config, more);
    config
}

/// The same for a relay in front of the `upstreams` of `more`.
pub(crate) fn configured_for_several(more: Value) -> Value {
    let mut config = configured("", more);
    config.as_object_mut().expect("an object").remove("upstream");
    config
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                match value {
                    Value::Null => drop(into.remove(&key)),
                    value => merge(into.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (into, more) => *into = more,
    }
}

/// Where a relay is reached, and what it says there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Face {
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Face {
    /// Status code and body of an HTTP GET.
    pub(crate) fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut socket = TcpStream::connect(self.http)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(socket, "GET {path} HTTP/1.0\r\nHost: relay\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok((code, body))
    }

    /// /status.
    pub(crate) fn status(&self) -> Value {
        let (code, body) = self.get("/status").expect("/status answers");
        assert_eq!(code, 200, "/status: {body}");
        serde_json::from_str(&body).expect("/status is JSON")
    }

    /// The one row of /status of the session whose client is `client`.
    pub(crate) fn row(&self, client: SocketAddr) -> Value {
        let status = self.status();
        let rows = status["connections"]["sessions"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["client"] == json!(client)).unwrap_or(Value::Null)
    }

    /// /metrics.
    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics").expect("/metrics answers").1
    }

    /// A metric, labels and all: `name{label="value"}`; 0 where it is not there.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = self.metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        value.unwrap_or(0.0) as u64
    }

    /// Sessions that ended so.
    pub(crate) fn ended(&self, side: &str, reason: &str) -> u64 {
        self.metric(&format!("rtmp_relay_sessions_ended_total{{reason=\"{reason}\",side=\"{side}\"}}"))
    }

    /// Connections counted, by status: (success, error, rejected).
    pub(crate) fn connections(&self) -> (u64, u64, u64) {
        let of = |status: &str| self.metric(&format!("rtmp_relay_connections_total{{status=\"{status}\"}}"));
        (of("success"), of("error"), of("rejected"))
    }

    /// Waits until a session has ended so; a failure shows how sessions ended.
    pub(crate) fn wait_ended(&self, side: &str, reason: &str) {
        let mut metrics = String::new();
        let mut seen = || {
            metrics = self.metrics();
            self.ended(side, reason) > 0
        };
        let deadline = std::time::Instant::now() + crate::wait::SOON;
        while !seen() {
            if std::time::Instant::now() > deadline {
                let ends: Vec<_> = metrics.lines().filter(|l| l.starts_with("rtmp_relay_sessions_ended")).collect();
                panic!("no session was ended by {side} for {reason}: {ends:#?}");
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Waits until it has so many sessions.
    pub(crate) fn wait_active(&self, count: u64) {
        let active = || self.status()["connections"]["active"].clone();
        crate::wait::wait_equal("sessions", &json!(count), active);
    }

    /// Waits until nobody and nothing is left.
    pub(crate) fn wait_empty(&self) {
        crate::wait::wait_equal("sessions, sockets, buffers lent and active connections", &[0, 0, 0, 0], || {
            let status = self.status();
            let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
            [
                number(&status["connections"]["active"]),
                number(&status["listener"]["open_sockets"]),
                number(&status["buffers"]["lent"]),
                self.metric("rtmp_relay_active_connections"),
            ]
        });
    }
}

/// A relay inside this process.
pub(crate) struct Relay {
    face: Face,
    pub(crate) actors: Actors,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Deref for Relay {
    type Target = Face;

    fn deref(&self) -> &Face {
        &self.face
    }
}

impl Relay {
    /// In front of `upstream`.
    pub(crate) fn to(upstream: &str) -> Self {
        Self::with(upstream, json!({}))
    }

    /// In front of `upstream`, with further keys.
    pub(crate) fn with(upstream: &str, more: Value) -> Self {
        Self::started(configured(upstream, more))
    }

    /// In front of the `upstreams` of `more`.
    pub(crate) fn several(more: Value) -> Self {
        Self::started(configured_for_several(more))
    }

    fn started(config: Value) -> Self {
        let text = config.to_string();
        let loaded = config::parse(&text, &Env::empty(), &app::judge_upstream).unwrap_or_else(|e| panic!("{e}"));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let relay = app::Relay::start(&loaded, Telemetry::new(&loaded.config.log)).expect("the relay starts");
                let http = relay.http_address().expect("HTTP is on");
                let face = Face { address: relay.address(), http };
                tell.send((face, relay.actors.clone())).expect("the test waits for this");
                let _ = stopped.await;
                relay.stop().await;
            });
        });
        let (face, actors) = told.recv().expect("the relay starts");
        Self { face, actors, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the relay's main thread panicked");
        }
    }
}

/// Sends `message` to an actor of a relay and waits for the answer; `None` where the actor is gone.
pub(crate) fn ask<A, M>(actor: &Addr<A>, message: M) -> Option<M::Result>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: actix::Message + Send + 'static,
    M::Result: Send + MessageResponse<A, M>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(actor.send(message)).ok()
}

/// The program itself, as a process.
pub(crate) struct Process {
    face: Face,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    dir: tempfile::TempDir,
}

impl Deref for Process {
    type Target = Face;

    fn deref(&self) -> &Face {
        &self.face
    }
}

impl Process {
    /// In front of `upstream`, with further keys.
    pub(crate) fn with(upstream: &str, more: Value) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_relay")), &configured(upstream, more))
    }

    /// With this configuration and no other.
    pub(crate) fn of(config: &Value) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_relay")), config)
    }

    /// Its address where TLS may be spoken, or not.
    pub(crate) fn optional_door(&self) -> SocketAddr {
        wait_for("the relay listens at its second address", || {
            let doors = self.events("listening");
            let line = doors.iter().find(|line| line["tls"] == "optional")?;
            line["address"].as_str()?.parse().ok()
        })
    }

    /// A path beside its configuration file.
    pub(crate) fn place(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Puts another text into its configuration file, in one step.
    pub(crate) fn rewrite(&self, text: &str) {
        let new = self.dir.path().join("new.json");
        std::fs::write(&new, text).expect("its directory takes a file");
        std::fs::rename(&new, self.dir.path().join("config.json")).expect("a file can be renamed");
    }

    /// In front of the `upstreams` of `more`.
    pub(crate) fn several(more: Value) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_relay")), &configured_for_several(more))
    }

    /// A program that takes a configuration file as its last argument and is a relay.
    pub(crate) fn spawn(mut command: Command, config: &Value) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp takes a directory");
        let file = dir.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("a fresh directory takes a file");
        // What the developer has in the environment must not decide a test.
        command.arg(&file).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the relay starts");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (theirs, log) = (Arc::clone(&lines), child.stderr.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                theirs.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let nowhere: SocketAddr = ([0, 0, 0, 0], 0).into();
        let mut process = Self { face: Face { address: nowhere, http: nowhere }, child, lines, dir };
        let announced = |process: &Self, event: &str| {
            wait_for(&format!("the relay says {event}: {:?}", process.log()), || {
                process.events(event).first().and_then(|line| line["address"].as_str()?.parse().ok())
            })
        };
        process.face.http = announced(&process, "http_listening");
        process.face.address = announced(&process, "listening");
        process
    }

    /// Its log so far, line by line.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its log lines of an event.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.log();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["event"] == json!(event)).collect()
    }

    /// The closing line of the session of `client`.
    pub(crate) fn closing_line(&self, client: SocketAddr) -> Value {
        let of_client = |line: &Value| line["client"] == json!(client.to_string());
        wait_for("the session's closing line is written", || {
            let mut lines: Vec<_> = self.events("session_ended").into_iter().filter(of_client).collect();
            assert!(lines.len() <= 1, "one closing line a session: {lines:#?}");
            lines.pop()
        })
    }

    /// How the session of `client` ended: side, reason and status in one.
    pub(crate) fn outcome(&self, client: SocketAddr) -> String {
        let line = self.closing_line(client);
        let word = |key: &str| line[key].as_str().unwrap_or("?").to_owned();
        format!("{} {} {}", word("side"), word("reason"), word("status"))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// File descriptors open now.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a running process has descriptors").count()
    }

    /// The same when nobody is about: the fewest of some looks, since its own HTTP has some now and then.
    pub(crate) fn settled_descriptors(&self) -> usize {
        let looks = (0..20).map(|_| {
            std::thread::park_timeout(Duration::from_millis(5));
            self.descriptors()
        });
        looks.min().unwrap_or(0)
    }

    /// Its resident memory, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process has a status");
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.expect("it has memory") << 10
    }

    /// Waits until it has no more descriptors open than `before`.
    pub(crate) fn wait_descriptors(&self, before: usize) {
        wait_until("the relay has closed its descriptors", || self.descriptors() <= before);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child of ours takes a signal");
    }

    /// Waits for its end.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        wait_for("the relay ends", || self.child.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for already.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log: Vec<_> = self.log().into_iter().filter(|line| !line.contains("http_request")).collect();
            eprintln!("--- the relay said:\n{}\n---", log[log.len().saturating_sub(40)..].join("\n"));
        }
    }
}
