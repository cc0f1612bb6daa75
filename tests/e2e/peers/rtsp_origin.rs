//! An RTSP origin: gst-rtsp-server, which plays a live picture and records what it is sent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_for};

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

    /// The same; plays only for user `op` with password `pa:ss`, whom it asks by `method`, `basic` or `digest`.
    pub fn asking(method: &str) -> Self {
        let dir = workdir("rtsp-origin");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/peers/rtsp_origin.py");
        // The system's own: GStreamer's bindings are installed for it.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(dir.path()).args([method].iter().filter(|method| !method.is_empty()));
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

    /// What it has recorded of `name`, once its session is over and it says no more.
    pub fn recorded(&self, name: &str) -> Vec<u8> {
        wait_for("the session is over at the origin", SOON, || {
            self.heard().contains(&format!("/in/{}", stem(name))).then_some(())
        });
        wait_for("TEARDOWN is heard", SOON, || {
            self.heard()
                .lines()
                .any(|line| line.starts_with("teardown ") && line.ends_with(&format!("/in/{}", stem(name))))
                .then_some(())
        });
        fs::read(self.file(name)).expect("it was recorded")
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
