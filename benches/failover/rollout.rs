//! What does a rollout cost publishers? SIGUSR2 under many of them, who come back when they are closed, as encoders do, while somebody
//! else knocks all the time.

use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use relay::protocol::rtmp::command::kind;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{PATIENCE, Relay, origin, publisher, row};

/// From one picture to the next: ten a second, so that one core bears 500 publishers and both ends of them.
const FRAME: Duration = Duration::from_millis(100);
/// Bytes of a picture that stands for itself, and of others.
const KEY: usize = 12_000;
const INTER: usize = 2_000;
/// Pictures behind the end of the old process.
const AFTER: Duration = Duration::from_secs(3);
/// Before the signal.
const BEFORE: Duration = Duration::from_secs(3);

/// What the origin has heard: of each stream the numbers of its pictures, with when each came.
type Heard = Arc<Mutex<HashMap<usize, Vec<(u32, Instant)>>>>;

/// What one publisher knows of itself.
#[derive(Default)]
struct Known {
    sent: AtomicU32,
    /// Connections that were closed when their turn had come.
    returned: AtomicU32,
    /// Connections that were not to be had, or refused.
    refused: AtomicU32,
}

/// Everything the publishers and their origin share.
struct Stage {
    relay: SocketAddr,
    /// Pictures from one key frame to the next.
    group: u32,
    begin: Instant,
    over: AtomicBool,
    known: Vec<Known>,
}

/// Replaces the relay `tries` times, and prints what that cost.
pub(crate) fn measure(streams: usize, tries: usize, group: u64) {
    let group = u32::try_from(Duration::from_millis(group).as_millis() / FRAME.as_millis()).unwrap_or(20).max(1);
    println!("{streams} publishers, ten pictures a second, a key frame each {group} pictures; {tries} rollouts by SIGUSR2");
    let (mut gaps, mut lost) = (Vec::new(), Vec::new());
    let (mut refused, mut knocks, mut returned, mut took) = (0, 0, 0, Vec::new());
    for _ in 0..tries {
        let seen = rollout(streams, group);
        gaps.extend(seen.gaps);
        lost.extend(seen.lost);
        took.push(seen.took);
        (refused, knocks, returned) = (refused + seen.refused, knocks + seen.knocks, returned + seen.returned);
    }
    println!("| | p50, ms | p90 | p99 | longest |");
    println!("|---|---|---|---|---|");
    row("longest gap of a stream at the origin", &mut gaps);
    row("from the signal to the end of the old process", &mut took);
    lost.sort_unstable();
    let at = |part: f64| lost.get(((lost.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or(0);
    println!("pictures lost of a stream: p50 {}, p99 {}, most {} of {group} in a group", at(0.5), at(0.99), at(1.0));
    println!("refused: {refused} (of {returned} that came back, and {knocks} others that connected meanwhile)");
}

struct Seen {
    gaps: Vec<Duration>,
    lost: Vec<u32>,
    refused: usize,
    knocks: usize,
    returned: usize,
    took: Duration,
}

fn rollout(streams: usize, group: u32) -> Seen {
    let heard = Heard::default();
    let origin = origin_here(Arc::clone(&heard));
    let mut relay = Relay::of(&serde_json::json!({
        "listen_addr": "127.0.0.1:0", "http_addr": "", "admin_addr": "", "upstream": format!("rtmp://{origin}"),
        "security": { "upstream_allowed_networks": ["127.0.0.0/8"] },
        "connection_limit": { "max_total_connections": 2 * streams + 100 },
    }));
    let begin = Instant::now() + Duration::from_millis(200);
    let known = (0..streams).map(|_| Known::default()).collect();
    let stage = Arc::new(Stage { relay: relay.address, group, begin, over: AtomicBool::new(false), known });
    let publishers = publish_all(Arc::clone(&stage));
    wait("all streams have begun", || stage.known.iter().all(|known| known.sent.load(Relaxed) > 0));
    std::thread::sleep(BEFORE);
    let knocking = knock(Arc::clone(&stage));
    let (signalled, pid) = (Instant::now(), Pid::from_child(&relay.program.child));
    kill_process(pid, Signal::USR2).expect("it runs");
    let successor = wait_for(|| child_of(pid));
    let _successor = Successor(successor);
    wait("the old process ends", || relay.program.child.try_wait().expect("a child can be waited for").is_some());
    let took = signalled.elapsed();
    std::thread::sleep(AFTER);
    stage.over.store(true, Relaxed);
    let (knocks, knocked_in_vain) = knocking.join().expect("it only connects");
    publishers.join().expect("they only publish");
    let refused = stage.known.iter().map(|known| known.refused.load(Relaxed) as usize).sum::<usize>() + knocked_in_vain;
    let returned = stage.known.iter().map(|known| known.returned.load(Relaxed) as usize).sum();
    let heard = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    let (mut gaps, mut lost) = (Vec::new(), Vec::new());
    for (number, known) in stage.known.iter().enumerate() {
        let pictures = heard.get(&number).map_or(&[][..], Vec::as_slice);
        // What is under way at the end is nobody's loss.
        let last = known.sent.load(Relaxed).saturating_sub(5);
        let numbers: BTreeSet<u32> = pictures.iter().map(|(number, _)| *number).filter(|number| *number <= last).collect();
        let wanted = numbers.first().map_or(last, |first| last + 1 - first);
        lost.push(wanted.saturating_sub(u32::try_from(numbers.len()).unwrap_or(u32::MAX)));
        let mut times: Vec<Instant> = pictures.iter().map(|(_, at)| *at).collect();
        times.sort_unstable();
        gaps.push(times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(PATIENCE));
    }
    Seen { gaps, lost, refused, knocks, returned, took }
}

/// Ends the new process.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// The process that `pid` has started.
fn child_of(pid: Pid) -> Option<Pid> {
    let pid = pid.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    // Where the kernel keeps no such list, ps knows.
    let output = || Command::new("ps").args(["-o", "pid=", "--ppid", &pid.to_string()]).output().ok();
    let children = if children.trim().is_empty() { String::from_utf8(output()?.stdout).ok()? } else { children };
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

fn wait_for<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let mut answer = None;
    wait("there is a new process", || {
        answer = found();
        answer.is_some()
    });
    answer.expect("it was waited for")
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE * 2;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Connects fifty times a second; how often, and how often in vain.
fn knock(stage: Arc<Stage>) -> std::thread::JoinHandle<(usize, usize)> {
    std::thread::spawn(move || {
        let (mut count, mut refused) = (0, 0);
        while !stage.over.load(Relaxed) {
            refused += usize::from(TcpStream::connect(stage.relay).is_err());
            count += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        (count, refused)
    })
}

fn origin_here(heard: Heard) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback has a free port");
            socket.listen(4096).expect("it listens");
            socket.set_nonblocking(true).expect("a socket");
            let listener = tokio::net::TcpListener::from_std(socket.into()).expect("a listener");
            tell.send(listener.local_addr().expect("it is bound")).expect("it is waited for");
            while let Ok((stream, _)) = listener.accept().await {
                let heard = Arc::clone(&heard);
                tokio::spawn(async move {
                    let hear = |stream, picture| {
                        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                        heard.entry(stream).or_default().push((picture, Instant::now()));
                    };
                    drop(origin::serve_with(stream, hear).await);
                });
            }
        });
    });
    told.recv().expect("it starts")
}

fn publish_all(stage: Arc<Stage>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let tasks: Vec<_> = (0..stage.known.len()).map(|number| tokio::spawn(publish(Arc::clone(&stage), number))).collect();
            for task in tasks {
                let _ = task.await;
            }
        });
    })
}

/// One publisher: it begins again with a key frame whenever it is closed.
async fn publish(stage: Arc<Stage>, number: usize) {
    let known = &stage.known[number];
    // Spread over a group, as encoders are that were started one by one.
    let begin =
        stage.begin + FRAME * stage.group * u32::try_from(number).unwrap_or(0) / u32::try_from(stage.known.len()).unwrap_or(1);
    tokio::time::sleep_until(begin.into()).await;
    let mut next = 1;
    while !stage.over.load(Relaxed) {
        let accepted = async { publisher::over(tokio::net::TcpStream::connect(stage.relay).await?, stage.relay, number).await };
        let Ok((mut socket, mut writer)) = accepted.await else {
            known.refused.fetch_add(1, Relaxed);
            tokio::time::sleep(FRAME).await;
            continue;
        };
        let (mut from, mut to) = socket.split();
        let mut piece = [0; 4096];
        let closed = async { while matches!(from.read(&mut piece).await, Ok(read) if read > 0) {} };
        let sending = async {
            let mut out = Vec::new();
            writer.write(&mut out, 2, 0, kind::SET_CHUNK_SIZE, 0, &4096_u32.to_be_bytes());
            writer.set_chunk_size(4096);
            writer.write(&mut out, 6, 0, kind::VIDEO, relay::origin::script::STREAM_ID, b"\x17\x00\0\0\0avcC");
            let mut first = true;
            // What was taken while there was no connection is gone: a camera does not wait.
            next = next.max(u32::try_from(begin.elapsed().as_millis() / FRAME.as_millis()).unwrap_or(0));
            while !stage.over.load(Relaxed) {
                let due = next;
                tokio::time::sleep_until((begin + FRAME * due).into()).await;
                let is_key = first || due.is_multiple_of(stage.group);
                let front: &[u8; origin::FRONT] = if is_key { b"\x17\x01\0\0\0" } else { b"\x27\x01\0\0\0" };
                let mut picture = [&front[..], &due.to_be_bytes()].concat();
                picture.resize(if is_key { KEY } else { INTER }, due as u8);
                writer.write(&mut out, 6, 100 * due, kind::VIDEO, relay::origin::script::STREAM_ID, &picture);
                known.sent.store(due, Relaxed);
                if to.write_all(&out).await.is_err() {
                    return;
                }
                out.clear();
                (next, first) = (due + 1, false);
            }
        };
        tokio::select! {
            () = closed => {}
            () = sending => {}
        }
        if !stage.over.load(Relaxed) {
            known.returned.fetch_add(1, Relaxed);
        }
    }
}
