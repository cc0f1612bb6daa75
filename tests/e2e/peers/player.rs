//! Players: ffmpeg, GStreamer's rtmp2src, rtmpdump. Each writes what it gets as FLV.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use crate::flv::{self, Tag};
use crate::process::{Running, workdir};

/// Which program plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    Ffmpeg,
    Rtmp2Src,
    RtmpDump,
}

impl Receiver {
    /// All of them.
    pub const ALL: [Receiver; 3] = [Receiver::Ffmpeg, Receiver::Rtmp2Src, Receiver::RtmpDump];
}

/// A player at work.
pub struct Player {
    pub receiver: Receiver,
    process: Running,
    file: PathBuf,
    _dir: TempDir,
}

impl Player {
    /// Plays `url`.
    pub fn start(receiver: Receiver, url: &str) -> Self {
        let dir = workdir("player");
        let file = dir.path().join("played.flv");
        let mut command = match receiver {
            Receiver::Ffmpeg => Command::new("ffmpeg"),
            Receiver::Rtmp2Src => Command::new("gst-launch-1.0"),
            Receiver::RtmpDump => Command::new("rtmpdump"),
        };
        match receiver {
            Receiver::Ffmpeg => {
                command.args(["-nostdin", "-v", "warning", "-i", url, "-c", "copy", "-copyts", "-f", "flv"]).arg(&file)
            }
            Receiver::Rtmp2Src => {
                let (from, to) = (format!("location={url}"), format!("location={}", file.display()));
                command.args(["-q", "rtmp2src", &from, "!", "filesink", &to])
            }
            Receiver::RtmpDump => command.args(["--quiet", "--live", "--rtmp", url, "--flv"]).arg(&file),
        };
        let process = Running::start(&format!("{receiver:?}-player"), &mut command, dir.path());
        Player { receiver, process, file, _dir: dir }
    }

    /// One of each.
    pub fn start_all(url: &str) -> Vec<Player> {
        Receiver::ALL.map(|receiver| Player::start(receiver, url)).into()
    }

    /// Waits until the stream has ended for it, and reads what it wrote.
    pub fn played(&mut self, within: Duration) -> Vec<Tag> {
        self.process.succeed(within);
        flv::read(&self.file)
    }

    /// Waits until it gives up or is done.
    pub fn finish(&mut self, within: Duration) -> ExitStatus {
        self.process.finish(within)
    }

    /// What it told its user.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Ends it as a crash would: kill -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}
