//! Does `relay demo` do what it says?

use std::net::TcpListener;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::flv::{self, Tag};
use crate::http;
use crate::process::{Running, workdir};
use crate::relay::Relay;
use crate::wait::{CLIP, SOON, wait_for, wait_until};

/// A demonstration on free ports.
struct Demo {
    process: Running,
    dir: TempDir,
}

impl Demo {
    fn start(listen: &str, http: &str) -> Self {
        let dir = workdir("demo");
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        let process = Running::start("demo", command.args(["demo", "--listen", listen, "--http", http]), dir.path());
        Demo { process, dir }
    }

    /// The quoted address in the line that begins so.
    fn url(&self, program: &str, stream: &str) -> String {
        wait_for("the demonstration says what to type", SOON, || {
            let said = self.process.output();
            let line = said.lines().find(|line| line.trim_start().starts_with(program) && line.contains(stream))?;
            line.split('"').nth(1).map(str::to_owned)
        })
    }

    fn page(&self, path: &str) -> String {
        let said = self.process.output();
        let address = said.lines().find_map(|line| line.trim().strip_prefix("http://")?.strip_suffix(path)).map(str::to_owned);
        http::get(&address.expect("the page's address was said"), path).expect("the page answers")
    }

    /// What a player writes in so many seconds of the stream.
    fn played(&self, url: &str, seconds: &str) -> Vec<Tag> {
        let file = self.dir.path().join("played.flv");
        let mut player = Command::new("ffmpeg");
        player.args(["-nostdin", "-v", "warning", "-y", "-i", url, "-t", seconds, "-c", "copy", "-f", "flv"]).arg(&file);
        Running::start("player", &mut player, self.dir.path()).succeed(CLIP);
        flv::read(&file)
    }
}

#[test]
fn the_lines_that_the_demonstration_prints_work() {
    let mut demo = Demo::start("127.0.0.1:0", "127.0.0.1:0");
    let frames = demo.played(&demo.url("ffplay", "/demo?"), "2");
    assert!(frames.iter().filter(|tag| tag.is_key_frame()).count() >= 2, "{} packets came", frames.len());

    let encoder = demo.url("ffmpeg", "/mine?");
    let mut publisher = Command::new("ffmpeg");
    publisher
        .args(["-nostdin", "-v", "warning", "-re", "-i"])
        .arg(crate::clip::normal())
        .args(["-c", "copy", "-f", "flv", &encoder]);
    let mut publisher = Running::start("publisher", &mut publisher, demo.dir.path());
    assert!(!demo.played(&demo.url("ffplay", "/mine?"), "1").is_empty());
    publisher.kill();

    assert!(demo.page("/status").contains("\"sessions\""));
    assert!(demo.page("/metrics").contains("rtmp_relay_active_connections"));
    wait_until("live figures are shown", SOON, || demo.process.output().contains("Mb/s in"));
    demo.process.terminate();
    assert!(demo.process.finish(SOON).success());
}

#[test]
fn a_port_that_is_taken_is_said_with_the_option_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let taken = taken.local_addr().map(|address| (address.to_string(), taken)).expect("a bound socket has an address");
    for (listen, http, option) in [(&taken.0[..], "", "--listen"), ("127.0.0.1:0", &taken.0[..], "--http")] {
        let mut demo = Demo::start(listen, http);
        assert_eq!(demo.process.finish(SOON).code(), Some(1));
        let said = demo.process.output();
        assert!(said.contains(&taken.0) && said.contains(option), "{said}");
    }
}

#[test]
fn its_parts_run_as_programs_of_their_own_and_a_probe_tells_whether_the_relay_is_well() {
    let dir = workdir("parts");
    let part = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        Running::start(name, command.args(arguments), dir.path())
    };
    let origin = part("origin", &["demo", "origin", "--listen", "127.0.0.1:0"]);
    let address = wait_for("the origin says where it listens", SOON, || {
        Some(origin.output().strip_prefix("The origin listens on ")?.trim_end().strip_suffix('.')?.to_owned())
    });
    let mut relay = Relay::to(&address);
    let mut publisher = part("publisher", &["demo", "publisher", &format!("rtmp://{}/live/demo", relay.address())]);
    wait_until("the test stream passes", SOON, || {
        relay.metric("rtmp_relay_bytes_total{direction=\"upstream\"}").is_some_and(|bytes| bytes > 100_000.0)
    });
    assert_eq!(publisher.output(), "The test stream is being published.\n");
    let http = relay.http().to_owned();
    let probe = |path: &str| {
        let mut probe = part("probe", &["health", &format!("http://{http}{path}")]);
        (probe.finish(SOON).code(), probe.output())
    };
    let (code, said) = probe("");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\"status\":\"ok\""), "{said}");
    assert_eq!(probe("/ready").0, Some(0));
    let (code, said) = probe("/nothing");
    assert!(code == Some(1) && said.contains("answers 404"), "{said}");
    publisher.kill();
    relay.wait_for_active(0);
    relay.shut_down(CLIP);
    let (code, said) = probe("/health");
    assert!(code == Some(1) && said.contains("does not answer"), "{said}");
}

#[test]
fn the_probe_asks_in_private_where_http_is_private() {
    let dir = workdir("private");
    let own = rcgen::generate_simple_self_signed(["relay.example.com".to_owned()]).expect("a certificate");
    let [cert, key] = [("cert.pem", own.cert.pem()), ("key.pem", own.signing_key.serialize_pem())].map(|(name, pem)| {
        std::fs::write(dir.path().join(name), pem).expect("a fresh directory takes a file");
        dir.path().join(name)
    });
    let security = json!({ "tls_cert": cert, "tls_key": key, "upstream_allowed_networks": ["127.0.0.0/8"] });
    let relay = Relay::start("127.0.0.1:9", json!({ "http_tls": true, "security": security }));
    for (scheme, code) in [("https", Some(0)), ("http", Some(1))] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        let mut probe =
            Running::start("probe", command.args(["health", &format!("{scheme}://{}/health", relay.http())]), dir.path());
        assert_eq!(probe.finish(SOON).code(), code, "{scheme}: {}", probe.output());
    }
}
