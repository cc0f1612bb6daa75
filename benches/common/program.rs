//! The relay as a program of its own, as the benchmarks that end or replace it need it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running relay; killed when dropped.
pub struct Program {
    /// The process.
    pub child: Child,
    addresses: HashMap<String, SocketAddr>,
}

impl Program {
    /// Writes `config` to `file`, starts it, and waits until its log has said each of `events`, which hold addresses. Every later line goes
    /// to `note`.
    pub fn start(file: &Path, config: &Value, events: &[&str], mut note: impl FnMut(Value) + Send + 'static) -> Self {
        std::fs::write(file, config.to_string()).expect("the folder takes a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.arg(file).env_clear().stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the relay starts");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap_or_default());
        let mut addresses = HashMap::new();
        while !events.iter().all(|event| addresses.contains_key(*event)) {
            let line = lines.next().expect("it says where it is before it ends");
            let address = line["address"].as_str().and_then(|text| text.parse().ok());
            if let (Some(event), Some(address)) = (line["event"].as_str(), address) {
                addresses.insert(event.to_owned(), address);
            }
        }
        std::thread::spawn(move || lines.for_each(&mut note));
        Self { child, addresses }
    }

    /// What `event` said, which was waited for.
    pub fn address(&self, event: &str) -> SocketAddr {
        self.addresses[event]
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
