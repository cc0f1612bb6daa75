//! A program that runs beside the test: started with its output in a file, ended with the test.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::{CLIP, wait_for, wait_until};

/// A child process; killed when dropped. Its output is printed if the test fails.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command`, with both outputs in `dir/<name>.log`.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).expect("the working directory takes a log file");
        let err = out.try_clone().expect("a file handle can be cloned");
        Self::spawn(name, command.stdin(Stdio::null()).stdout(out).stderr(err), log)
    }

    /// The same with other descriptors 0 and 1; what it says on 2 is in `dir/<name>.log`.
    pub fn start_with(name: &str, command: &mut Command, dir: &Path, stdin: Stdio, stdout: Stdio) -> Self {
        let log = dir.join(format!("{name}.log"));
        let err = File::create(&log).expect("the working directory takes a log file");
        Self::spawn(name, command.stdin(stdin).stdout(stdout).stderr(err), log)
    }

    fn spawn(name: &str, command: &mut Command, log: PathBuf) -> Self {
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("{:?} is not installed: run tests/e2e/deps.sh", command.get_program())
            }
            Err(error) => panic!("{name} does not start: {error}"),
        };
        Running { name: name.to_owned(), child, log }
    }

    /// Everything it has said so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    pub fn finish(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait_for(&what, within, || self.exited())
    }

    /// Waits for its end, which must be a good one.
    pub fn succeed(&mut self, within: Duration) {
        let status = self.finish(within);
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// Waits for its end after a clip in real time. One that has forgotten it is asked by SIGINT: rtspclientsink loses the end of its stream
    /// now and then, on a busy machine, also without a relay; it has sent everything by then.
    pub fn leave(&mut self) -> ExitStatus {
        let enough = Instant::now() + CLIP / 2;
        wait_until(&format!("{} has had time enough", self.name), CLIP, || self.exited().is_some() || Instant::now() > enough);
        if self.exited().is_none() {
            kill_process(Pid::from_child(&self.child), Signal::INT).expect("a child of ours takes a signal");
        }
        self.finish(CLIP)
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&mut self) {
        if self.exited().is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a child of ours takes a signal");
        }
    }

    /// Ends it without asking (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of ours can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for already.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}---", self.name, tail(&self.output(), 60));
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("{line}\n")).collect()
}

/// A working directory under `target/tmp`, removed at the end unless `E2E_KEEP` is set.
pub fn workdir(name: &str) -> TempDir {
    let keep = std::env::var_os("E2E_KEEP").is_some();
    let mut builder = tempfile::Builder::new();
    builder.prefix(name).disable_cleanup(keep).tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp takes a directory")
}
