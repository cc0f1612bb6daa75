//! An RTSP origin: gst-rtsp-server, which plays a live picture and records what it is sent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::clip;
use crate::pictures;
use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_for, wait_until};

/// What an origin has beside its own streams, each at `/live/<name>`.
#[derive(Default)]
pub struct RtspMounts {
    /// Plays the clip from its beginning to each who asks for one of these.
    pub plays: Vec<String>,
    /// Records picture and sound.
    pub records: Vec<String>,
    /// Records the picture of who sends no sound.
    pub records_video: Vec<String>,
}

/// A running origin.
pub struct RtspOrigin {
    port: u16,
    process: Running,
    dir: TempDir,
}

impl RtspOrigin {
    /// Plays and records for everyone.
    pub fn start() -> Self {
        Self::asking("")
    }

    /// The same, with further streams.
    pub fn with(mounts: &RtspMounts) -> Self {
        let lists = [("--play", &mounts.plays), ("--record", &mounts.records), ("--record-video", &mounts.records_video)];
        let named = lists.into_iter().flat_map(|(word, names)| names.iter().flat_map(move |name| [word, name]));
        let clip = clip::normal().display().to_string();
        let arguments: Vec<String> = ["--clip".to_owned(), clip].into_iter().chain(named.map(str::to_owned)).collect();
        Self::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same; plays only for user `op` with password `pa:ss`, whom it asks by `method`, `basic` or `digest`.
    pub fn asking(method: &str) -> Self {
        Self::run(if method.is_empty() { &[] } else { std::slice::from_ref(&method) })
    }

    fn run(arguments: &[&str]) -> Self {
        let dir = workdir("rtsp-origin");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/peers/rtsp_origin.py");
        // The system's own: GStreamer's bindings are installed for it.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(dir.path()).args(arguments);
        let mut process = Running::start("rtsp-origin", &mut command, dir.path());
        let port = wait_for("the RTSP origin listens", SOON, || {
            assert!(process.exited().is_none(), "it ended at once; run tests/e2e/deps.sh:\n{}", process.output());
            process.output().lines().find_map(|line| line.strip_prefix("listening ")?.parse().ok())
        });
        Self { port, process, dir }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has heard, a request a line.
    pub fn heard(&self) -> String {
        self.process.output()
    }

    /// What it has recorded of `name`, a file's, once its session is over and the file closed.
    pub fn recorded(&self, name: &str) -> Vec<u8> {
        let over = format!("closed {}", stem(name));
        wait_until(&format!("the recording of {name} is over"), SOON, || self.heard().lines().any(|line| line == over));
        fs::read(self.file(name)).expect("it was recorded")
    }

    /// The pictures that it has recorded of `/live/<stream>`.
    pub fn pictures(&self, stream: &str) -> Vec<Vec<u8>> {
        pictures::of_bytes(&self.recorded(&format!("{stream}.h264")))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

fn stem(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
