//! An RTSP origin: gst-rtsp-server, led by a script.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::clip;
use crate::pictures;
use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_for, wait_until};

/// What an RTSP origin has. Streams are at `/live/<name>`.
#[derive(Default)]
pub struct RtspOptions {
    /// Plays the clip from its beginning to each who asks for one of these.
    pub plays: Vec<String>,
    /// Records picture and sound.
    pub records: Vec<String>,
    /// Records a picture without sound.
    pub records_video: Vec<String>,
    /// "basic" or "digest": players must be user "op" with password "pa:ss".
    pub auth: Option<&'static str>,
}

/// A running origin on a free port of 127.0.0.1.
pub struct RtspOrigin {
    process: Running,
    port: u16,
    dir: TempDir,
}

impl RtspOrigin {
    /// Starts one and waits until it says where it listens.
    pub fn start(options: &RtspOptions) -> Self {
        let dir = workdir("rtsp-origin");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/peers/rtsp_origin.py");
        // Debian's modules are for Debian's Python, whatever else is in the path.
        let python = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
        let mut command = Command::new(python);
        command.arg(script).arg(dir.path()).arg(clip::normal());
        for (word, names) in [("--play", &options.plays), ("--record", &options.records), ("--video", &options.records_video)] {
            command.args(names.iter().flat_map(|name| [word, name]));
        }
        command.args(options.auth.iter().flat_map(|method| ["--auth", method]));
        let mut process = Running::start("rtsp-origin", &mut command, dir.path());
        let port = wait_for("the RTSP origin says where it listens", SOON, || {
            assert!(process.exited().is_none(), "gst-rtsp-server ended at once (tests/e2e/deps.sh):\n{}", process.output());
            process.output().lines().find_map(|line| line.strip_prefix("listening ")?.parse().ok())
        });
        RtspOrigin { process, port, dir }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The requests it has heard, one a line, with their URLs.
    pub fn heard(&self) -> String {
        self.process.output()
    }

    /// Waits until the publisher of `stream` has left and at least so many pictures are recorded, and reads these.
    pub fn recorded(&self, stream: &str, least: usize, within: Duration) -> Vec<Vec<u8>> {
        let left = |line: &str| line.starts_with("teardown ") && line.contains(&format!("/live/{stream}"));
        wait_until(&format!("the origin sees the end of {stream}"), within, || self.heard().lines().any(left));
        let file = self.dir.path().join(format!("{stream}.h264"));
        // It writes on what has come, behind the end.
        let mut seen = Vec::new();
        let mut enough = || {
            seen = pictures::of_bytes(&std::fs::read(&file).unwrap_or_default());
            seen.len() > least
        };
        wait_until(&format!("more than {least} pictures of {stream} are recorded"), within, &mut enough);
        // The last one may be in the making.
        seen.pop();
        seen
    }
}
