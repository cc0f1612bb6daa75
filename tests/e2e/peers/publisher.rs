//! Encoders: ffmpeg, and GStreamer with its own RTMP sink or with librtmp's.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use crate::clip;
use crate::process::{Running, workdir};
use crate::wait::CLIP;

/// Which program publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Sends the packets of the clip as they are.
    Ffmpeg,
    /// GStreamer's own; muxes the clip anew.
    Rtmp2Sink,
    /// GStreamer over librtmp, the ancestor of what OBS uses; muxes the clip anew.
    RtmpSink,
}

/// What is published, and how fast.
#[derive(Clone, Copy)]
pub struct Take {
    pub clip: &'static Path,
    /// In real time, as a camera would; else as fast as it goes.
    pub paced: bool,
    /// How many times the clip is sent, one behind the other (ffmpeg).
    pub times: u32,
    /// At which second of stream time it begins (ffmpeg).
    pub starts_at: u32,
}

impl Take {
    /// The clip once, in real time.
    pub fn live() -> Self {
        Take { clip: clip::normal(), paced: true, times: 1, starts_at: 0 }
    }

    /// The clip once, as fast as it goes.
    pub fn unpaced() -> Self {
        Take { paced: false, ..Take::live() }
    }
}

/// An encoder at work.
pub struct Publisher {
    process: Running,
    _dir: TempDir,
}

impl Publisher {
    /// Publishes to `url`. Words behind a blank are properties of rtmp2sink, and options of librtmp.
    pub fn start(sender: Sender, url: &str, take: Take) -> Self {
        let dir = workdir("publisher");
        let mut command = match sender {
            Sender::Ffmpeg => ffmpeg(url, take),
            Sender::Rtmp2Sink => gstreamer("rtmp2sink", url, take),
            Sender::RtmpSink => gstreamer("rtmpsink", url, take),
        };
        Publisher { process: Running::start(&format!("{sender:?}-publisher"), &mut command, dir.path()), _dir: dir }
    }

    /// Waits until it has sent everything.
    pub fn succeed(&mut self) {
        self.process.succeed(CLIP);
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

fn ffmpeg(url: &str, take: Take) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "warning"]);
    if take.paced {
        command.arg("-re");
    }
    if take.times > 1 {
        command.args(["-stream_loop", &(take.times - 1).to_string()]);
    }
    command.arg("-i").arg(take.clip).args(["-c", "copy"]);
    if take.starts_at > 0 {
        command.args(["-output_ts_offset", &take.starts_at.to_string()]);
    }
    command.args(["-f", "flv", url]);
    command
}

fn gstreamer(sink: &str, url: &str, take: Take) -> Command {
    assert!(take.times == 1 && take.starts_at == 0, "only ffmpeg loops the clip or moves its start");
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(["filesrc", &format!("location={}", take.clip.display()), "!", "flvdemux", "name=in"]);
    command.args(["flvmux", "name=out", "streamable=true", "!"]);
    let (location, properties) = url.split_once(' ').filter(|_| sink == "rtmp2sink").unwrap_or((url, ""));
    command.args([sink, &format!("location={location}"), &format!("sync={}", take.paced)]);
    command.args(properties.split_whitespace());
    command.args(["in.video", "!", "queue", "!", "h264parse", "!", "out.video"]);
    command.args(["in.audio", "!", "queue", "!", "aacparse", "!", "out.audio"]);
    command
}
