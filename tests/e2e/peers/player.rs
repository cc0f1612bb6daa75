//! Players: ffmpeg, GStreamer's rtmp2src, rtmpdump, each of which writes what it gets as FLV; and over RTSP ffmpeg and
//! rtspsrc, which write the picture as H.264.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use super::publisher::UNSIGNED;
use crate::flv::{self, Tag};
use crate::pictures;
use crate::process::{Running, workdir};

/// Which program plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    Ffmpeg,
    Rtmp2Src,
    RtmpDump,
    FfmpegRtsp,
    RtspSrc,
}

impl Receiver {
    /// All of them that speak RTMP.
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
        Self::believing(receiver, url, None)
    }

    /// Plays `url`, whose certificate the authority in this file must have signed; see [`super::Publisher::believing`].
    pub fn believing(receiver: Receiver, url: &str, authority: Option<&Path>) -> Self {
        let dir = workdir("player");
        let file = dir.path().join(match receiver {
            Receiver::FfmpegRtsp | Receiver::RtspSrc => "played.h264",
            _ => "played.flv",
        });
        let mut command = command(receiver, url, authority, &file);
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

    /// The same over RTSP.
    pub fn pictures(&mut self, within: Duration) -> Vec<Vec<u8>> {
        self.process.succeed(within);
        pictures::of_bytes(&std::fs::read(&self.file).unwrap_or_default())
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

fn command(receiver: Receiver, url: &str, authority: Option<&Path>, file: &Path) -> Command {
    let (from, to) = (format!("location={url}"), format!("location={}", file.display()));
    let mut command = Command::new(match receiver {
        Receiver::Ffmpeg | Receiver::FfmpegRtsp => "ffmpeg",
        Receiver::Rtmp2Src | Receiver::RtspSrc => "gst-launch-1.0",
        Receiver::RtmpDump => "rtmpdump",
    });
    match receiver {
        Receiver::Ffmpeg => {
            command.args(["-nostdin", "-v", "warning"]);
            if let Some(file) = authority {
                command.args(["-tls_verify", "1", "-ca_file"]).arg(file);
            }
            command.args(["-i", url, "-c", "copy", "-copyts", "-f", "flv"]).arg(file);
        }
        Receiver::FfmpegRtsp => {
            command.args(["-nostdin", "-v", "warning", "-rtsp_transport", "tcp", "-i", url]);
            command.args(["-map", "0:v", "-c", "copy", "-f", "h264"]).arg(file);
        }
        Receiver::Rtmp2Src => {
            command.args(["-q", "rtmp2src", &from]).args(authority.map(|_| UNSIGNED)).args(["!", "filesink", &to]);
        }
        Receiver::RtspSrc => {
            command.args(["-q", "rtspsrc", &from, "protocols=tcp", "name=in"]).args(authority.map(|_| UNSIGNED));
            command.args(["in.", "!", "application/x-rtp,media=video", "!", "rtph264depay", "!", "h264parse", "!"]);
            command.args(["video/x-h264,stream-format=byte-stream,alignment=au", "!", "filesink", &to]);
        }
        Receiver::RtmpDump => {
            command.args(["--quiet", "--live", "--rtmp", url, "--flv"]).arg(file);
        }
    }
    command
}
