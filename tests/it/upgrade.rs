//! SIGUSR2: a new process takes the listening sockets, nobody is refused, and whoever was in the old one goes in its own time.

use std::collections::BTreeSet;
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
use crate::speech::{Say, body};
use crate::wait::{SOON, pace, wait_equal, wait_for, wait_until};

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

/// An encoder of ten pictures a second, of which every twentieth is a key frame, that comes back when it is closed, as OBS does: with a
/// key frame at once. A picture is its number.
struct Live {
    stream: String,
    client: Client,
    key_due: bool,
    returned: usize,
}

impl Live {
    const GROUP: u32 = 20;
    const PACE: Duration = Duration::from_millis(100);

    fn publishing(face: &Face, stream: String) -> Self {
        let client = Self::connect(face, &stream);
        Self { stream, client, key_due: true, returned: 0 }
    }

    fn connect(face: &Face, stream: &str) -> Client {
        let mut client = Client::publishing(face, "live", stream);
        client.set_chunk_size(4096);
        let header = Say::full(6, 0, kind::VIDEO, 1, b"\x17\x00\0\0\0avc").bytes(4096);
        client.try_write(&header).expect("it was just let in");
        client
    }

    /// Sends picture `number`, or comes back in its stead.
    fn tick(&mut self, face: &Face, number: u32) {
        let key = self.key_due || number.is_multiple_of(Self::GROUP);
        let front: &[u8] = if key { b"\x17\x01\0\0\0" } else { b"\x27\x01\0\0\0" };
        let picture = [front, &number.to_be_bytes(), &body(number, 400)].concat();
        let said = Say::full(6, number * 100, kind::VIDEO, 1, &picture).bytes(4096);
        self.key_due = false;
        let gone = self.client.ear.record().end.is_some();
        if gone || self.client.try_write(&said).is_err() {
            self.client = Self::connect(face, &self.stream);
            (self.key_due, self.returned) = (true, self.returned + 1);
        }
    }

    /// Pictures up to `last` that reached the origin on none of its connections, and whether each of these began with a key frame.
    fn missing(&self, origin: &Origin, last: u32) -> (usize, bool) {
        let lines = origin.lines_of(&self.stream);
        let (mut numbers, mut whole) = (BTreeSet::new(), lines.len() == self.returned + 1);
        for line in lines {
            let record = line.ear.record();
            let pictures = record.messages.iter().filter(|m| m.kind == kind::VIDEO && m.body.get(1) == Some(&1));
            whole &= pictures.clone().next().is_none_or(|first| first.body[0] == 0x17);
            numbers.extend(pictures.map(|m| u32::from_be_bytes([m.body[5], m.body[6], m.body[7], m.body[8]])));
        }
        ((0..=last).filter(|number| !numbers.contains(number)).count(), whole)
    }
}

#[test]
fn publishers_that_come_back_lose_less_than_a_group_of_pictures() {
    const STREAMS: usize = 100;
    let origin = Origin::willing();
    let mut relay = Process::with(&origin.url(""), json!({ "drain": { "spread": "1s" }, "shutdown_timeout": "1m" }));
    let face: Face = *relay;
    let mut all: Vec<Live> = (0..STREAMS).map(|n| Live::publishing(&face, format!("cam{n}"))).collect();
    let (began, mut number, mut new) = (Instant::now(), 0, None);
    let mut late = None;
    while late.is_none_or(|late| number < late) {
        pace(began + Live::PACE * number);
        all.iter_mut().for_each(|live| live.tick(&face, number));
        if number == 30 {
            relay.signal(Signal::USR2);
            new = Some(New::of(&relay));
        }
        if late.is_none() && !relay.events("drain_finished").is_empty() {
            late = Some(number + Live::GROUP);
        }
        number += 1;
    }
    assert_eq!(relay.exit().code(), Some(0));
    assert!(new.as_ref().is_some_and(New::runs));
    let last = number - 3;
    let lost: Vec<usize> = all
        .iter()
        .map(|live| {
            wait_until("the last picture has come", || {
                live.missing(&origin, number - 1).0 == live.missing(&origin, number - 2).0
            });
            let (missing, whole) = live.missing(&origin, last);
            assert!(whole && live.returned == 1, "{}: {} times", live.stream, live.returned);
            missing
        })
        .collect();
    let most = lost.iter().max().expect("there are some");
    println!("pictures lost: {} at most, {:.1} as a rule", most, lost.iter().sum::<usize>() as f64 / lost.len() as f64);
    assert!(*most < Live::GROUP as usize, "{lost:?}");
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
