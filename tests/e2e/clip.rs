//! The stream that everyone publishes: made once, the same for every test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Running, workdir};

/// Six seconds of H.264 (25 frames a second, a key frame each second, some 600 kb/s) and AAC.
pub fn normal() -> &'static Path {
    static CLIP: OnceLock<PathBuf> = OnceLock::new();
    CLIP.get_or_init(|| make("clip-1.flv", "320x180", "25", "600k"))
}

/// The same at 80 kb/s, for tests that send hours of it.
pub fn small() -> &'static Path {
    static CLIP: OnceLock<PathBuf> = OnceLock::new();
    CLIP.get_or_init(|| make("small-1.flv", "160x90", "15", "80k"))
}

/// Milliseconds of stream in either clip.
pub const LENGTH: u32 = 6_000;

fn make(name: &str, size: &str, rate: &str, bits: &str) -> PathBuf {
    let done = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if done.exists() {
        return done;
    }
    let dir = workdir("clip");
    let fresh = dir.path().join(name);
    let picture = format!("testsrc2=size={size}:rate={rate}:duration=6");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", &picture]);
    ffmpeg.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=6"]);
    ffmpeg.args(["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-b:v", bits]);
    ffmpeg.args(["-g", rate, "-keyint_min", rate, "-sc_threshold", "0", "-threads", "1"]);
    ffmpeg.args(["-c:a", "aac", "-b:a", "48k", "-ac", "1", "-fflags", "+bitexact", "-f", "flv"]).arg(&fresh);
    Running::start("ffmpeg-clip", &mut ffmpeg, dir.path()).succeed(Duration::from_secs(60));
    // Renamed when whole: another run of the tests may be making it too.
    fs::rename(&fresh, &done).expect("both are under target/tmp");
    done
}
