//! What the machine and the network do wrong: descriptors run out, the log's disk is full or its reader sleeps, DNS hangs, an upstream flaps,
//! one address floods. Meanwhile an honest publisher loses nothing.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::client::Client;
use crate::origin::{Origin, Script};
use crate::parser::kind;
use crate::relay::{Face, Process, configured, configured_for_several};
use crate::siege::Honest;
use crate::speech::body;
use crate::wait::{pace, wait_equal, wait_for, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_relay");

/// The relay, started by a line of shell in which `"$@"` is its command.
fn by_shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line, "sh", PROGRAM]);
    command
}

/// Publishes a few frames, and sees them arrive.
fn passes(relay: &Face, origin: &Origin, stream: &str) {
    let mut client = Client::publishing(relay, "live", stream);
    let said: Vec<_> = (0..5).map(|n| client.say(6, n * 40, kind::VIDEO, 1, &body(n, 3000))).collect();
    assert_eq!(origin.line_of(stream).ear.wait_count(&[kind::VIDEO], 5), said);
    client.leave();
    origin.line_of(stream).finish();
    client.ended();
}

/// `relay` may have so many descriptors from now on.
fn limit_descriptors(relay: &Process, current: u64) {
    let pid = Pid::from_raw(relay.id().try_into().expect("a process id")).expect("a process id");
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(current), maximum };
    prlimit(Some(pid), Resource::Nofile, limit).expect("a child of ours takes a limit");
}

#[test]
fn when_descriptors_run_out_streams_go_on_and_who_waits_is_let_in_when_some_are_free() {
    let origin = Origin::willing();
    let relay = Process::with(&origin.url(""), json!({ "retry": { "enabled": false } }));
    let honest = Honest::begin(&relay, "honest");
    origin.line_of("honest");
    let mut early = Client::hello(&relay);
    wait_until("it is heard", || relay.row(early.address())["state"] == "negotiating");
    limit_descriptors(&relay, 8);
    let late = Client::asking_to_publish(&relay, "live", "late");
    wait_until("the relay says so", || !relay.events("accept_failed").is_empty());
    early.connect("live").create_stream().publish("early");
    assert_eq!(early.refused().0, "NetStream.Publish.Failed");
    assert_eq!(relay.outcome(early.address()), "upstream local error");
    wait_until("it goes on trying", || relay.events("accept_failed").len() > 3);
    // Accepting rests 200 ms each time: it neither spins nor floods the log.
    assert!(relay.events("accept_failed").len() < 200);
    limit_descriptors(&relay, 1024);
    late.started();
    drop(late);
    passes(&relay, &origin, "after");
    wait_until("it was counted", || relay.metric("rtmp_relay_accept_errors_total") > 0);
    honest.lost_nothing(&origin);
}

#[test]
fn whoever_asks_for_status_takes_no_descriptor_that_the_limit_holds_for_a_client() {
    let origin = Origin::willing();
    let relay = Process::spawn(by_shell("ulimit -n 600 && exec \"$@\""), &configured(&origin.url(""), json!({})));
    let places = relay.status()["connections"]["limits"]["max_total"].as_u64().expect("a number");
    let told = |line: &Value| line["message"].as_str().is_some_and(|text| text.contains(&format!("only {places} connections")));
    assert!(relay.events("config_warning").iter().any(told), "start says how many fit");
    // More than are answered at once; those that say nothing make place for the next.
    let _hoard: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(relay.http).expect("the kernel takes it")).collect();
    let clients: Vec<Client> = (0..places).map(|n| Client::publishing(&relay, "live", &format!("cam{n}"))).collect();
    assert_eq!(relay.events("accept_failed").len(), 0);
    drop(clients);
}

/// Lets `path` lead to `target`, in one step.
fn lead(path: &Path, target: &str) {
    let new = path.with_extension("new");
    symlink(target, &new).expect("a link can be made");
    std::fs::rename(&new, path).expect("it can be renamed");
}

/// A relay that logs to a path that leads to its standard error.
fn logging_to(path: &Path, origin: &Origin) -> Process {
    lead(path, "/dev/stderr");
    Process::with(&origin.url(""), json!({ "log": { "output": path } }))
}

#[test]
fn a_full_disk_for_the_log_costs_lines_that_are_counted_and_nothing_else() {
    let (origin, dir) = (Origin::willing(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().join("relay.log");
    let relay = logging_to(&path, &origin);
    let honest = Honest::begin(&relay, "honest");
    lead(&path, "/dev/full");
    relay.signal(Signal::HUP);
    let mut number = 0;
    wait_until("lines are lost, and counted", || {
        number += 1;
        passes(&relay, &origin, &format!("cam{number}"));
        relay.metric("rtmp_relay_log_lines_dropped_total") > 20
    });
    let lost = relay.log().len();
    lead(&path, "/dev/stderr");
    wait_until("lines come again", || {
        number += 1;
        passes(&relay, &origin, &format!("cam{number}"));
        relay.log().len() > lost + 5
    });
    assert!(relay.log().iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "no line is torn");
    honest.lost_nothing(&origin);
}

#[test]
fn a_log_that_nobody_reads_holds_neither_streams_nor_the_end_up() {
    let (origin, dir) = (Origin::willing(), tempfile::tempdir().expect("a directory"));
    let (path, pipe) = (dir.path().join("relay.log"), dir.path().join("pipe"));
    let mut relay = logging_to(&path, &origin);
    let honest = Honest::begin(&relay, "honest");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there").success());
    // Open for both, so that opening waits for nobody; never read.
    let reader = OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe");
    lead(&path, pipe.to_str().expect("a path"));
    relay.signal(Signal::HUP);
    let full = || rustix::io::ioctl_fionread(&reader).is_ok_and(|bytes| bytes > 60_000);
    let mut number = 0;
    wait_until("the pipe is full", || {
        (0..20).for_each(|_| Client::to(&relay).reset());
        full()
    });
    for _ in 0..5 {
        number += 1;
        passes(&relay, &origin, &format!("cam{number}"));
    }
    honest.lost_nothing(&origin);
    relay.signal(Signal::TERM);
    assert_eq!(relay.exit().code(), Some(0));
}

/// Upstreams whose names nobody answers for, each with a route by its app.
const UNANSWERED: usize = 80;

fn unanswered(origin: &Origin) -> Value {
    let mut upstreams = vec![json!({ "name": "good", "url": origin.url("") })];
    let mut routes = Vec::new();
    for number in 0..UNANSWERED {
        let name = format!("lost{number}");
        upstreams.push(json!({ "name": name, "url": format!("rtmp://{name}.example.com") }));
        routes.push(json!({ "match": { "app": name }, "upstreams": [name] }));
    }
    routes.push(json!({ "upstreams": ["good"] }));
    json!({ "upstreams": upstreams, "routes": routes, "dial_timeout": "500ms", "retry": { "enabled": false }, "shutdown_timeout": "1s" })
}

/// Threads of the relay that ask for names.
fn asking(relay: &Process) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", relay.id())).expect("it runs").flatten();
    tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "relay-resolve"))
        .count()
}

#[test]
fn while_dns_hangs_other_streams_go_on_threads_are_bounded_and_the_end_is_not_delayed() {
    let nobody = UdpSocket::bind("127.53.53.53:53");
    let may_mount = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    let (Ok(_nobody), true) = (nobody, may_mount) else {
        return eprintln!("not tried: it takes root to have a DNS server of one's own");
    };
    let (origin, dir) = (Origin::willing(), tempfile::tempdir().expect("a directory"));
    let resolver = dir.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.53.53.53\noptions timeout:30 attempts:5\n").expect("a file");
    let line = format!(
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin unshare -m -- /bin/sh -c 'mount --bind {} /etc/resolv.conf && exec \"$@\"' sh \"$@\"",
        resolver.display()
    );
    let mut relay = Process::spawn(by_shell(&format!("exec env {line}")), &configured_for_several(unanswered(&origin)));
    let honest = Honest::begin(&relay, "honest");
    let mut clients: Vec<Client> =
        (0..UNANSWERED).map(|number| Client::asking_to_publish(&relay, &format!("lost{number}"), "cam")).collect();
    for client in &mut clients {
        assert_eq!(client.refused().0, "NetStream.Publish.Failed");
    }
    let outcome = relay.outcome(clients[0].address());
    assert_eq!(outcome, "upstream dns error");
    wait_until("as many ask as may", || asking(&relay) == 64);
    passes(&relay, &origin, "meanwhile");
    honest.lost_nothing(&origin);
    relay.wait_empty();
    relay.signal(Signal::TERM);
    assert_eq!(relay.exit().code(), Some(0));
}

/// An address that is open and closed in turn, until it calms down; then it is open.
struct Flapping {
    address: SocketAddr,
    calm: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Origin>>,
}

fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    Ok(socket.into())
}

impl Flapping {
    fn begin(every: Duration) -> Self {
        // Nobody else is on this address, so that its port stays free in between.
        let first = open(([127, 83, 7, 1], 0).into()).expect("a free port");
        let address = first.local_addr().expect("it is bound");
        let calm = Arc::<AtomicBool>::default();
        let ours = Arc::clone(&calm);
        let thread = std::thread::spawn(move || {
            let (mut origin, mut next) = (Origin::over(first, |_| Script::default()), Instant::now());
            while !ours.load(SeqCst) {
                next += every;
                pace(next);
                drop(origin);
                next += every;
                pace(next);
                let socket = wait_for("the address is free", || open(address).ok());
                origin = Origin::over(socket, |_| Script::default());
            }
            origin
        });
        Self { address, calm, thread: Some(thread) }
    }

    fn calms_down(mut self) -> Origin {
        self.calm.store(true, SeqCst);
        self.thread.take().expect("it runs").join().expect("it goes on")
    }
}

#[test]
fn an_upstream_that_flaps_twenty_times_a_second_serves_publishers_in_the_end_and_the_log_is_bounded() {
    let (origin, flapping) = (Origin::willing(), Flapping::begin(Duration::from_millis(50)));
    let more = json!({
        "upstreams": [{ "name": "good", "url": origin.url("") }, { "name": "flaps", "url": format!("rtmp://{}", flapping.address) }],
        "routes": [{ "match": { "app": "flaps" }, "upstreams": ["flaps"] }, { "upstreams": ["good"] }],
        "circuit_breaker": { "max_failures": 3, "reset_timeout_sec": 0.2, "success_threshold": 1 },
        "retry": { "max_attempts": 5, "initial_delay_sec": 0.05, "max_delay_sec": 0.2 },
        "publish_hold": { "max_time": "5s" },
        "dial_timeout": "1s",
    });
    let relay = Process::several(more);
    let honest = Honest::begin(&relay, "honest");
    let began = Instant::now();
    // As encoders do: whoever is refused, or cut off, comes again.
    let mut clients: Vec<Client> = (0..8).map(|n| Client::asking_to_publish(&relay, "flaps", &format!("cam{n}"))).collect();
    let mut refusals = 0;
    while began.elapsed() < Duration::from_secs(2) {
        for (n, client) in clients.iter_mut().enumerate() {
            client.write(&[]);
            if client.ear.record().end.is_some() {
                refusals += 1;
                client.leave();
                *client = Client::asking_to_publish(&relay, "flaps", &format!("cam{n}"));
            }
        }
        pace(Instant::now() + Duration::from_millis(20));
    }
    let calm = flapping.calms_down();
    for (n, client) in clients.iter_mut().enumerate() {
        let stream = format!("cam{n}");
        wait_until("it is served", || {
            if client.ear.record().end.is_some() {
                client.leave();
                *client = Client::asking_to_publish(&relay, "flaps", &stream);
            }
            client.say(6, 0, kind::VIDEO, 1, b"\x17\x01\0\0\0key");
            pace(Instant::now() + Duration::from_millis(20));
            calm.lines_of(&stream).iter().any(|line| line.ear.record().messages.iter().any(|m| m.kind == kind::VIDEO))
        });
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("not for ever") + 2;
    let lines = relay.log().iter().filter(|line| !line.contains("http_request")).count();
    assert!(lines < 100 * seconds + 20 * refusals, "{lines} lines in {seconds} s, with {refusals} refusals");
    honest.lost_nothing(&origin);
    drop(clients);
    relay.wait_empty();
    assert_eq!(relay.ended("relay", "panic"), 0);
}

#[test]
fn ten_thousand_connects_of_one_address_are_counted_and_cost_nobody_a_frame() {
    const CONNECTS: usize = 10_000;
    let origin = Origin::willing();
    let more = json!({
        "rate_limit": { "enabled": true, "requests_per_sec": 50, "burst": 100 },
        "connection_limit": { "max_total_connections": 200 },
    });
    let relay = Process::with(&origin.url(""), more);
    let honest = Honest::begin(&relay, "honest");
    passes(&relay, &origin, "before");
    relay.wait_active(1);
    let (descriptors, resident) = (relay.settled_descriptors(), relay.resident());
    let to = relay.address;
    let made = std::thread::spawn(move || {
        let connects = (0..CONNECTS).filter(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::from(([127, 66, 6, 6], 0)).into()).expect("all of 127.0.0.0/8 is ours");
            let connected = socket.connect(&to.into()).is_ok();
            // A reset leaves no port behind.
            let _ = socket.set_linger(Some(Duration::ZERO));
            connected
        });
        connects.count() as u64
    });
    let made = made.join().expect("the flood goes on");
    // `before` is among them.
    wait_equal("connections counted", &(made + 1), || {
        let (success, error, rejected) = relay.connections();
        let empty = relay.metric("rtmp_relay_empty_connections_total");
        success + error + rejected + empty
    });
    // How many of them, and how many find no socket left, is a matter of speed.
    assert!(relay.metric("rtmp_relay_rate_limit_rejections_total") > 0, "of {made}");
    passes(&relay, &origin, "after");
    relay.wait_active(1);
    relay.wait_descriptors(descriptors);
    let now = relay.resident();
    assert!(now < resident + (24 << 20), "resident memory has grown from {resident} to {now} bytes");
    // Each kind of line has its bound a second.
    let refused = relay.events("session_refused").len() + relay.events("socket_refused").len();
    assert!(refused < 2_000, "{refused} lines");
    honest.lost_nothing(&origin);
    relay.wait_empty();
}
