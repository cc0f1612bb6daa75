//! Encoders: ffmpeg, and GStreamer with its own RTMP sink or with librtmp's; both over RTSP too.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use crate::clip;
use crate::process::{Running, workdir};
use crate::wait::CLIP;

/// For GStreamer: name and dates of a certificate are checked, not who signed it.
pub(super) const UNSIGNED: &str = "tls-validation-flags=bad-identity+expired";

/// Which program publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Sends the packets of the clip as they are.
    Ffmpeg,
    /// GStreamer's own; muxes the clip anew.
    Rtmp2Sink,
    /// GStreamer over librtmp, the ancestor of what OBS uses; muxes the clip anew.
    RtmpSink,
    /// The packets of the clip over RTSP.
    FfmpegRtsp,
    /// GStreamer over RTSP: the picture alone, which is what its origin is asked to record.
    RtspClientSink,
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
        Self::believing(sender, url, take, None)
    }

    /// Publishes to `url`, whose certificate the authority in this file must have signed. GStreamer can be told no file:
    /// without one it believes this machine's authorities, with one it checks everything but who signed. ffmpeg
    /// checks nothing without one, librtmp and ffmpeg's RTSP nothing at all.
    pub fn believing(sender: Sender, url: &str, take: Take, authority: Option<&Path>) -> Self {
        let dir = workdir("publisher");
        let mut command = match sender {
            Sender::Ffmpeg => ffmpeg("flv", url, take, authority),
            Sender::FfmpegRtsp => ffmpeg("rtsp", url, take, None),
            Sender::Rtmp2Sink => gstreamer("rtmp2sink", url, take, authority),
            Sender::RtmpSink => gstreamer("rtmpsink", url, take, None),
            Sender::RtspClientSink => rtspclientsink(url, take, authority),
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

    /// Waits until it is done with a clip in real time, however that ends.
    pub fn leave(&mut self) {
        self.process.leave();
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

fn ffmpeg(format: &str, url: &str, take: Take, authority: Option<&Path>) -> Command {
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
    if format == "rtsp" {
        command.args(["-rtsp_transport", "tcp"]);
    }
    if let Some(file) = authority {
        command.args(["-tls_verify", "1", "-ca_file"]).arg(file);
    }
    command.args(["-f", format, url]);
    command
}

fn gstreamer(sink: &str, url: &str, take: Take, authority: Option<&Path>) -> Command {
    assert!(take.times == 1 && take.starts_at == 0, "only ffmpeg loops the clip or moves its start");
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(["filesrc", &format!("location={}", take.clip.display()), "!", "flvdemux", "name=in"]);
    command.args(["flvmux", "name=out", "streamable=true", "!"]);
    let (location, properties) = url.split_once(' ').filter(|_| sink == "rtmp2sink").unwrap_or((url, ""));
    command.args([sink, &format!("location={location}"), &format!("sync={}", take.paced)]);
    command.args(properties.split_whitespace());
    command.args(authority.map(|_| UNSIGNED));
    command.args(["in.video", "!", "queue", "!", "h264parse", "!", "out.video"]);
    command.args(["in.audio", "!", "queue", "!", "aacparse", "!", "out.audio"]);
    command
}

fn rtspclientsink(url: &str, take: Take, authority: Option<&Path>) -> Command {
    assert!(take.times == 1 && take.starts_at == 0 && take.paced, "it sends the clip in real time, once");
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(["filesrc", &format!("location={}", take.clip.display()), "!", "flvdemux", "name=in"]);
    command.args(["in.video", "!", "queue", "!", "h264parse", "!", "rtspclientsink", "protocols=tcp"]);
    command.arg(format!("location={url}")).args(authority.map(|_| UNSIGNED));
    command
}
