//! How does a new process take the listening sockets from an old one, so that no client is refused?
//!
//! The old process starts its own program again, from the path that it was started from, with a socket pair as standard input. Over it go
//! the listening sockets, each in a message with the key that it stands for; back comes one byte once clients are accepted. Until then both
//! could accept, and the old one does. What holds for the environment holds for the new process; its number of file descriptors says
//! nothing, and nobody's descriptors are inherited by accident.

use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use tokio::time::{Instant, sleep};

/// Tells a process that its standard input holds listening sockets: the number of the process that gives them.
const VARIABLE: &str = "RELAY_LISTEN_FDS";
/// Listening sockets, each with the key of the configuration that it stands for.
pub(super) type Given = Vec<(String, TcpListener)>;

/// What a new process gets to become ready.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(20);
/// Most sockets that are taken: far above what a configuration may name.
const MAX_SOCKETS: usize = 4096;
/// Longest key, bytes.
const MAX_KEY: usize = 256;
/// Says that clients are accepted.
const READY: &[u8] = b"ready";

/// How this process was started, kept since: a new binary may stand in the old one's place by the time it is asked for.
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at start.
    ///
    /// # Errors
    /// The path cannot be told.
    pub(super) fn of_process() -> std::io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }

    /// Starts the program again, and gives it `sockets`, which it must yet say that it serves. Dropping the answer ends it.
    ///
    /// # Errors
    /// Why there is no such process.
    pub(super) fn start(&self, sockets: &[(String, TcpListener)]) -> anyhow::Result<Successor> {
        if std::process::id() == 1 {
            bail!("this is process 1: whoever started it would take its end for the relay's. Start a new container instead");
        }
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .env(VARIABLE, std::process::id().to_string())
            // The watchdog waits for the process that is the service's main one, which will be the new one.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(theirs))
            .spawn()
            .with_context(|| format!("starting {}", self.path.display()))?;
        let successor = Successor { child: Some(child), line: ours };
        for (key, socket) in sockets {
            successor.give(key, socket).context("handing the sockets over")?;
        }
        // An empty message would look like the end of the connection.
        send(&successor.line, b".", SendFlags::NOSIGNAL).context("handing the sockets over")?;
        Ok(successor)
    }
}

/// A process that is to take over.
pub(super) struct Successor {
    child: Option<Child>,
    line: OwnedFd,
}

impl Successor {
    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn give(&self, key: &str, socket: &TcpListener) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [socket.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.line, &[IoSlice::new(key.as_bytes())], &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    /// Waits until it serves. From then on it lives without us.
    ///
    /// # Errors
    /// It ended, or is not ready in [`PATIENCE`]; it is gone then.
    pub(super) async fn ready(mut self) -> anyhow::Result<u32> {
        let (pid, deadline) = (self.pid(), Instant::now() + PATIENCE);
        let mut word = [0; 16];
        loop {
            match recv(&self.line, &mut word, RecvFlags::DONTWAIT) {
                Ok((read, _)) if word.get(..read) == Some(READY) => {
                    self.child = None;
                    return Ok(pid);
                }
                // Who closes the line without the word has failed; how will be known in a moment.
                Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                Err(error) => return Err(error).context("waiting for the new process"),
            }
            if let Some(ended) = self.child.as_mut().and_then(|child| child.try_wait().transpose()) {
                let status = ended.context("waiting for the new process")?;
                return Err(anyhow!("the new process ended at once with {status}: what it said stands above"));
            }
            if Instant::now() >= deadline {
                bail!("the new process was not ready within {} s, and was ended", PATIENCE.as_secs());
            }
            sleep(LOOK).await;
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The process that gave its sockets to this one.
#[derive(Debug)]
pub struct Predecessor(());

impl Predecessor {
    /// Takes the sockets, each with the key that it stands for; `None` where nobody gives any. To be called once, at start.
    ///
    /// # Errors
    /// Standard input is not what the variable says.
    pub(super) fn of_process() -> anyhow::Result<Option<(Self, Given)>> {
        let Some(giver) = std::env::var(VARIABLE).ok().and_then(|pid| pid.parse::<i32>().ok()) else { return Ok(None) };
        // A variable that was left over from a parent's parent is not meant for us.
        if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(giver) {
            return Ok(None);
        }
        let mut sockets = Vec::new();
        while let Some(taken) = take().with_context(|| format!("{VARIABLE} is set, but standard input gives no sockets"))? {
            if sockets.len() == MAX_SOCKETS {
                bail!("{VARIABLE}: more than {MAX_SOCKETS} sockets");
            }
            sockets.push(taken);
        }
        Ok(Some((Self(()), sockets)))
    }

    /// Clients are accepted here. The line is given up, so that nothing of the old process is left.
    pub(super) fn tell_ready(self) {
        // Where nobody listens any more, nobody waits.
        let _ = send(std::io::stdin(), READY, SendFlags::NOSIGNAL);
        if let Ok(nothing) = std::fs::File::open("/dev/null") {
            let _ = rustix::stdio::dup2_stdin(nothing);
        }
    }
}

/// One socket; `None` behind the last.
fn take() -> anyhow::Result<Option<(String, TcpListener)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut key = [0; MAX_KEY];
    let read = recvmsg(std::io::stdin(), &mut [IoSliceMut::new(&mut key)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    match (socket, key.get(..read)) {
        (Some(socket), Some(key)) => Ok(Some((String::from_utf8_lossy(key).into_owned(), TcpListener::from(socket)))),
        (None, Some(b".")) => Ok(None),
        _ => Err(anyhow!("the line ended too early")),
    }
}
