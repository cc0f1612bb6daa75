//! SIGUSR2: a new process takes the listening sockets, nobody is refused, and whoever was in the old one goes in its own time.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::Client;
use crate::ear::End;
use crate::origin::Origin;
use crate::parser::kind;
use crate::relay::{Face, Process, configured};
use crate::speech::body;
use crate::wait::{SOON, wait_equal, wait_for, wait_until};

/// The process that has taken over; ended with the test.
struct New(Pid);

impl New {
    fn of(relay: &Process) -> Self {
        let line = wait_for("a new process serves", || relay.events("upgrade_ready").pop());
        let pid = line["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32));
        Self(pid.expect("its number"))
    }

    fn runs(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.0.as_raw_nonzero())).is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // Fails only where it has ended.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Connects again and again until told to stop; how often, and how that failed.
struct Knocking {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Knocking {
    fn at(relay: &Face) -> Self {
        let (stop, face) = (Arc::<AtomicBool>::default(), *relay);
        let ours = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut count, mut refused) = (0, Vec::new());
            while !ours.load(SeqCst) {
                match face.get("/health") {
                    Ok((200, _)) => {}
                    other => refused.push(format!("HTTP, {count}: {other:?}")),
                }
                if let Err(error) = TcpStream::connect(face.address) {
                    refused.push(format!("clients, {count}: {error}"));
                }
                count += 1;
                // The machine has no more than some ten thousand ports for this.
                std::thread::park_timeout(Duration::from_millis(1));
            }
            (count, refused)
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, SeqCst);
        self.thread.take().expect("once").join().expect("it only connects")
    }
}

#[test]
fn nobody_is_refused_and_whoever_was_in_goes_in_its_own_time_and_comes_back_to_the_new_process() {
    const STREAMS: usize = 100;
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "300ms" }, "shutdown_timeout": "1m" }));
    let face: Face = *relay;
    let clients: Vec<Client> = (0..STREAMS).map(|n| Client::publishing(&relay, "live", &format!("cam{n}"))).collect();
    let started = relay.metric("process_start_time_seconds");
    let knocking = Knocking::at(&relay);
    relay.signal(Signal::USR2);
    let new = New::of(&relay);
    for (n, mut client) in clients.into_iter().enumerate() {
        assert_eq!(client.ended(), End::Fin, "cam{n}");
        client.leave();
        let told = client.ear.record().messages.iter().rev().find_map(|m| m.told()).expect("it was told why");
        assert_eq!(told.1, "the relay is shutting down");
        origin.line_of(&format!("cam{n}")).ear.wait_command("deleteStream");
        // Back, as encoders come back.
        let mut again = Client::publishing(&face, "live", &format!("cam{n}-again"));
        let said = again.say(6, 0, kind::VIDEO, 1, &body(n as u32, 3000));
        assert_eq!(origin.line_of(&format!("cam{n}-again")).ear.wait_count(&[kind::VIDEO], 1), [said]);
    }
    assert_eq!(relay.exit().code(), Some(0));
    let (count, refused) = knocking.end();
    assert!(count > 0 && refused.is_empty(), "of {count}: {refused:#?}");
    assert!(new.runs() && face.metric("process_start_time_seconds") >= started);
    assert_eq!(relay.events("drain_finished")[0]["closed"], STREAMS);
}

#[test]
fn a_successor_can_be_succeeded() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "0s" } }));
    relay.signal(Signal::USR2);
    let first = New::of(&relay);
    drop(Client::publishing(&relay, "live", "one"));
    wait_until("the old one has gone", || relay.events("stopped").len() == 1);
    kill_process(first.0, Signal::USR2).expect("it runs");
    wait_equal("successions", &2, || relay.events("upgrade_ready").len());
    let second = New::of(&relay);
    wait_until("the first successor has gone", || relay.events("stopped").len() == 2);
    drop(Client::publishing(&relay, "live", "two"));
    assert!(second.runs() && second.0 != first.0);
}

#[test]
fn a_successor_with_a_bad_configuration_changes_nothing() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({}));
    let mut running = Client::publishing(&relay, "live", "cam");
    relay.rewrite("{ \"upstream\": 5 }");
    relay.signal(Signal::USR2);
    let failed = wait_for("the failure is told", || relay.events("upgrade_failed").pop());
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("78")), "{failed}");
    let said = running.say(6, 0, kind::VIDEO, 1, &body(1, 3000));
    assert_eq!(origin.line_of("cam").ear.wait_count(&[kind::VIDEO], 1), [said]);
    drop(Client::publishing(&relay, "live", "late"));
    assert_eq!((relay.status()["draining"].clone(), relay.get("/ready").expect("/ready").0), (json!(false), 200));
    // And a good one still can take over.
    relay.rewrite(&configured(&origin.url(""), json!({})).to_string());
    relay.signal(Signal::USR2);
    let new = New::of(&relay);
    assert!(new.runs());
}

#[test]
fn a_successor_that_never_serves_is_ended_and_the_old_one_goes_on() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({}));
    // Reading its tokens, it waits for somebody who never writes.
    let fifo = relay.place("tokens");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe");
    let tokens = json!({ "security": { "auth_enabled": true, "auth_tokens_file": fifo } });
    relay.rewrite(&configured(&origin.url(""), tokens).to_string());
    relay.signal(Signal::USR2);
    let started = wait_for("it is started", || relay.events("upgrade_started").pop());
    let deadline = Instant::now() + SOON * 2;
    while relay.events("upgrade_failed").is_empty() {
        assert!(Instant::now() < deadline, "nobody ended it");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let gone = |pid: &Value| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(gone(&started["pid"]));
    drop(Client::publishing(&relay, "live", "late"));
}
