//! Who is the service's main process when one relay takes the place of another? A service manager listens, as systemd does: to whom it is
//! told to, and knowing who speaks.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay::origin::Origin;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::clip;
use crate::http;
use crate::peers::{Publisher, Sender, Take};
use crate::process::workdir;
use crate::relay::Relay;
use crate::wait::{CLIP, SOON, wait_until};

/// What is asked of the watchdog: fed within this time.
const WATCHDOG: Duration = Duration::from_millis(400);

/// The other end of NOTIFY_SOCKET.
struct Manager {
    dir: TempDir,
    /// What was said, and by whom. Heard by a thread of its own: a few words that nobody takes hold up whoever speaks.
    said: mpsc::Receiver<(Pid, String)>,
    /// Whether it heeds every process of the service, or its main one alone: `NotifyAccess=` of our unit.
    heeds_all: bool,
    main: Option<Pid>,
}

impl Manager {
    fn new() -> Self {
        let dir = workdir("manager");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a directory takes a socket");
        set_socket_passcred(&socket, true).expect("the kernel tells who speaks");
        let (tell, said) = mpsc::channel();
        std::thread::spawn(move || while tell.send(listen(&socket)).is_ok() {});
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/relay.service");
        let unit = std::fs::read_to_string(unit).expect("the unit");
        let access = unit.lines().find_map(|line| line.strip_prefix("NotifyAccess=")).unwrap_or("main");
        Self { dir, said, heeds_all: access == "all", main: None }
    }

    /// A relay as its service: told where to speak, and that a watchdog waits for it alone.
    fn start(&self, origin: &Origin) -> Relay {
        let mut shell = Command::new("sh");
        // The shell's process becomes the relay's.
        shell.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$1\"", env!("CARGO_BIN_EXE_relay")]);
        let at = self.dir.path().join("notify");
        let microseconds = WATCHDOG.as_micros().to_string();
        let variables = [("NOTIFY_SOCKET", at.to_str().expect("a path of ours")), ("WATCHDOG_USEC", &microseconds)];
        let more = json!({ "drain": { "spread": "0s" }, "shutdown_timeout": "1m" });
        Relay::run_by(shell, &variables, json!([{ "url": format!("rtmp://{}", origin.addr()) }]), more)
    }

    /// The next thing that it heeds: who spoke, and what.
    fn hear(&mut self) -> (Pid, String) {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (speaker, said) = self.said.recv_timeout(left).expect("a relay that may speak says something");
            if self.heeds_all || self.main.is_none_or(|main| main == speaker) {
                self.main = self.main.or(Some(speaker));
                return (speaker, said);
            }
        }
    }

    /// Hears until something is said that ends so.
    fn hear_until(&mut self, end: &str) -> (Pid, String) {
        let deadline = Instant::now() + SOON;
        loop {
            let (speaker, said) = self.hear();
            assert!(Instant::now() < deadline, "nobody who may speak says {end}");
            if said.ends_with(end) {
                return (speaker, said);
            }
        }
    }
}

/// What is said next, and by whom.
fn listen(socket: &UnixDatagram) -> (Pid, String) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut said = [0; 256];
    let read =
        recvmsg(socket, &mut [IoSliceMut::new(&mut said)], &mut control, RecvFlags::empty()).expect("a socket hears").bytes;
    let speaker = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(of) => Some(of.pid),
        _ => None,
    });
    (speaker.expect("the kernel tells who speaks"), String::from_utf8_lossy(&said[..read]).trim().to_owned())
}

/// Ends a process with the test.
struct Ended(Pid);

impl Drop for Ended {
    fn drop(&mut self) {
        // Fails only where it has ended.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Connects again and again until told to stop; how often, and how that failed.
struct Knocking {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Knocking {
    fn at(relay: &Relay) -> Self {
        let (clients, page) = (relay.address().to_owned(), relay.http().to_owned());
        let stop = Arc::<AtomicBool>::default();
        let ours = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut count, mut refused) = (0, Vec::new());
            while !ours.load(SeqCst) {
                refused.extend(TcpStream::connect(&clients).err().map(|error| format!("clients, {count}: {error}")));
                refused.extend(http::get(&page, "/livez").err().map(|error| format!("HTTP, {count}: {error}")));
                count += 1;
                std::thread::park_timeout(Duration::from_millis(5));
            }
            (count, refused)
        });
        Self { stop, thread }
    }

    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, SeqCst);
        self.thread.join().expect("it only connects")
    }
}

#[test]
fn the_service_manager_follows_to_the_new_process_and_a_publisher_comes_back_to_it() {
    let origin = Origin::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("loopback has a free port");
    let mut manager = Manager::new();
    let mut relay = manager.start(&origin);
    let (old, said) = manager.hear();
    assert_eq!((old.as_raw_nonzero().get() as u32, said.as_str()), (relay.pid(), "READY=1"));
    assert_eq!(manager.hear(), (old, "WATCHDOG=1".to_owned()));

    let url = format!("rtmp://{}/live/cam", relay.address());
    let take = Take { clip: clip::small(), times: 100, ..Take::live() };
    let mut publisher = Publisher::start(Sender::Ffmpeg, &url, take);
    wait_until("the stream passes", SOON, || origin.figures().streams == 1);
    let knocking = Knocking::at(&relay);
    // Whoever has just come is given time to say what it wants: so long the old process lives.
    let _silent = TcpStream::connect(relay.address()).expect("the relay accepts");
    kill_process(old, Signal::USR2).expect("it runs");
    let (new, said) = manager.hear_until("READY=1");
    let _new = Ended(new);
    assert_eq!(said, format!("MAINPID={}\nREADY=1", new.as_raw_nonzero()));
    assert_ne!(new, old);

    // ffmpeg does not come back by itself: whoever runs it starts it again.
    publisher.finish(CLIP);
    let before = origin.figures().received;
    let mut again = Publisher::start(Sender::Ffmpeg, &url, take);
    wait_until("the stream passes again", SOON, || origin.figures().streams == 1 && origin.figures().received > before);
    assert!(relay.finish(SOON).success(), "{}", relay.log());
    // systemd takes whatever is said in the service's name for the service's word. One may have crossed the new process's.
    let (mut of_old, mut of_new) = (0, 0);
    while of_new < 15 {
        let (speaker, said) = manager.hear();
        assert_eq!(said, "WATCHDOG=1");
        *(if speaker == new { &mut of_new } else { &mut of_old }) += 1;
    }
    assert!(of_old <= 1, "the old process fed the watchdog {of_old} times");
    let (count, refused) = knocking.end();
    assert!(count > 0 && refused.is_empty(), "of {count}: {refused:#?}");
    again.kill();
    kill_process(new, Signal::TERM).expect("it runs");
    assert_eq!(manager.hear_until("STOPPING=1").0, new);
}
