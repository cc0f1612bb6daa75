//! RTSP with real encoders, players and an origin: ffmpeg, GStreamer and gst-rtsp-server.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clip;
use crate::peers::{RtspMounts, RtspOrigin};
use crate::pictures;
use crate::process::{Running, workdir};
use crate::relay::Relay;
use crate::wait::{CLIP, SOON, wait_until};

const TOKEN: &str = "tok-1";

/// Packets of video that a player takes before it leaves.
const FRAMES: usize = 60;

struct Tool {
    process: Running,
    dir: TempDir,
}

impl Tool {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let dir = workdir(program);
        let mut command = Command::new(program);
        command.args(arguments).current_dir(dir.path());
        Self { process: Running::start(program, &mut command, dir.path()), dir }
    }

    fn succeed(mut self) -> Self {
        self.process.succeed(CLIP);
        self
    }

    /// GStreamer sees so many pictures as it was to see and leaves. On leaving it may trip over its own PAUSE, also without a relay.
    fn sees_all(mut self) {
        let status = self.process.finish(CLIP);
        assert!(status.success() || self.process.output().contains("gst_rtspsrc_pause"), "it ended with {status}");
    }

    /// What it tells its user when it fails.
    fn complains(mut self) -> String {
        assert!(!self.process.finish(CLIP).success(), "it should not have worked");
        self.process.output()
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).expect("it has written a file")
    }
}

/// Publishes the clip with ffmpeg as it is.
fn ffmpeg_sends(url: &str, more: &[&str]) -> Tool {
    let clip = clip::normal().display().to_string();
    let start = ["-nostdin", "-v", "warning", "-re", "-i", &clip, "-c", "copy", "-f", "rtsp"];
    Tool::start("ffmpeg", &[&start[..], more, &[url]].concat())
}

/// Publishes the clip's video with GStreamer.
fn gstreamer_sends(url: &str, more: &[&str]) -> Tool {
    let (clip, location) = (format!("location={}", clip::normal().display()), format!("location={url}"));
    let start = ["-q", "filesrc", &clip, "!", "flvdemux", "name=d", "d.video", "!", "queue", "!", "h264parse", "!", "s.sink_0"];
    Tool::start("gst-launch-1.0", &[&start[..], &["rtspclientsink", "name=s", &location], more].concat())
}

/// Plays with ffmpeg; `digests` holds one line a packet.
fn ffmpeg_plays(url: &str, more: &[&str]) -> Tool {
    let frames = FRAMES.to_string();
    let end = ["-i", url, "-map", "0:v", "-c", "copy", "-frames:v", &frames, "-f", "framemd5", "digests"];
    Tool::start("ffmpeg", &[&["-nostdin", "-v", "warning"], more, &end[..]].concat())
}

fn gstreamer_plays(url: &str, more: &[&str]) -> Tool {
    let (location, count) = (format!("location={url}"), format!("eos-after={FRAMES}"));
    let end =
        ["!", "application/x-rtp,media=video", "!", "rtph264depay", "!", "h264parse", "!", "identity", &count, "!", "fakesink"];
    Tool::start("gst-launch-1.0", &[&["-q", "rtspsrc", &location], more, &end[..]].concat())
}

/// The digests of the packets that a player has written down.
fn digests(tool: &Tool) -> Vec<String> {
    let text = String::from_utf8(tool.file("digests")).expect("text");
    let packets = text.lines().filter(|line| !line.starts_with('#'));
    packets.map(|line| line.split(", ").nth(5).unwrap_or_default().split(',').next().unwrap_or_default().to_owned()).collect()
}

fn relay(upstream: &str, more: Value) -> Relay {
    let mut security = json!({ "auth_enabled": true, "auth_tokens": [TOKEN], "upstream_allowed_networks": ["127.0.0.0/8"] });
    if let (Value::Object(security), Value::Object(more)) = (&mut security, more) {
        security.extend(more);
    }
    Relay::configured(json!([{ "url": upstream }]), json!({ "security": security }))
}

fn before(origin: &RtspOrigin) -> Relay {
    relay(&format!("rtsp://{}", origin.address()), json!({}))
}

/// Whether two recordings hold the same pictures. rtspclientsink loses its last one now and then, also without a relay.
fn alike_but_for_the_last(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (pictures::of_bytes(one), pictures::of_bytes(other));
    one.len().abs_diff(other.len()) <= 1 && one.iter().zip(&other).all(|(a, b)| a == b)
}

#[test]
fn what_is_published_is_recorded_as_if_it_had_come_straight() {
    let origin = RtspOrigin::start();
    let relay = before(&origin);
    let (there, here) = (format!("rtsp://{}/in", origin.address()), format!("rtsp://{}/in", relay.address()));
    let with = |name: &str| format!("{here}/{name}?token={TOKEN}");
    let user = |name: &str| format!("rtsp://any:{TOKEN}@{}/in/{name}", relay.address());
    let senders = [
        ffmpeg_sends(&format!("{there}/av-0"), &["-rtsp_transport", "tcp"]),
        ffmpeg_sends(&with("av-1"), &["-rtsp_transport", "tcp"]),
        // Asks for UDP first, and is told.
        ffmpeg_sends(&with("av-2"), &[]),
        ffmpeg_sends(&user("av-3"), &["-rtsp_transport", "tcp"]),
        gstreamer_sends(&format!("{there}/v-0"), &["protocols=tcp"]),
        gstreamer_sends(&with("v-1"), &["protocols=tcp"]),
        gstreamer_sends(&format!("{here}/v-2"), &["protocols=tcp", "user-id=any", &format!("user-pw={TOKEN}")]),
    ];
    // What is recorded tells: rtspclientsink trips over its own PAUSE now and then, also without a relay, and says so as an error.
    senders.into_iter().for_each(|mut sender| {
        sender.process.leave();
    });
    for (direct, relayed) in [("av-0", ["av-1", "av-2", "av-3"].as_slice()), ("v-0", &["v-1", "v-2"])] {
        let kinds: &[&str] = if direct == "av-0" { &["h264", "aac"] } else { &["h264"] };
        for kind in kinds {
            let want = origin.recorded(&format!("{direct}.{kind}"));
            assert!(want.len() > 10_000, "{direct}.{kind}: {} bytes", want.len());
            for name in relayed {
                let got = origin.recorded(&format!("{name}.{kind}"));
                let same = got.iter().zip(&want).take_while(|(a, b)| a == b).count();
                let (there, here) = (want.len(), got.len());
                let alike = if direct == "av-0" { got == want } else { alike_but_for_the_last(&got, &want) };
                assert!(alike, "{name}.{kind} differs from what came straight: {there} bytes, {here} relayed, {same} alike");
            }
        }
    }
    assert!(!origin.heard().contains(TOKEN) && !relay.log().contains(TOKEN), "the token stays between client and relay");
    relay.wait_for_active(0);
}

#[test]
fn every_player_gets_the_origin_s_packets() {
    // To each from the clip's beginning.
    let origin = RtspOrigin::with(&RtspMounts { plays: vec!["clip".to_owned()], ..RtspMounts::default() });
    let relay = before(&origin);
    let url = format!("rtsp://{}/live/clip?token={TOKEN}", relay.address());
    let direct = ffmpeg_plays(&format!("rtsp://{}/live/clip", origin.address()), &["-rtsp_transport", "tcp"]);
    let tcp = ffmpeg_plays(&url, &["-rtsp_transport", "tcp"]);
    let udp_first = ffmpeg_plays(&url, &[]);
    let login = ffmpeg_plays(&format!("rtsp://any:{TOKEN}@{}/live/clip", relay.address()), &["-rtsp_transport", "tcp"]);
    let user = format!("user-pw={TOKEN}");
    let others = [
        // UDP, multicast, TCP.
        gstreamer_plays(&url, &[]),
        gstreamer_plays(&format!("rtsp://{}/live/clip", relay.address()), &["protocols=tcp", "user-id=any", &user]),
    ];
    let want = digests(&direct.succeed());
    assert_eq!(want.len(), FRAMES);
    for player in [tcp, udp_first, login] {
        assert_eq!(digests(&player.succeed()), want);
    }
    others.into_iter().for_each(Tool::sees_all);
    relay.wait_for_active(0);
}

#[test]
fn the_relay_logs_in_at_the_origin() {
    for method in ["basic", "digest"] {
        let origin = RtspOrigin::asking(method);
        let with = |login: &str| relay(&format!("rtsp://{login}{}", origin.address()), json!({}));
        let url = |relay: &Relay| format!("rtsp://{}/live/cam?token={TOKEN}", relay.address());
        let right = with("op:pa%3Ass@");
        let wrong = with("op:nonsense@");
        let none = with("");
        ffmpeg_plays(&url(&right), &["-rtsp_transport", "tcp"]).succeed();
        let told = ffmpeg_plays(&url(&wrong), &["-rtsp_transport", "tcp"]).complains();
        assert!(told.contains("502 The upstream does not take the user name and password of its URL"), "{told}");
        let told = ffmpeg_plays(&url(&none), &["-rtsp_transport", "tcp"]).complains();
        assert!(told.contains("502 The upstream asks for a password: put credentials into the upstream URL"), "{told}");
        for relay in [&right, &wrong, &none] {
            let said = [relay.log(), relay.metrics(), relay.status().to_string()].concat();
            assert!(!said.contains("pa:ss") && !said.contains("pa%3Ass") && !said.contains("nonsense"), "{said}");
        }
    }
}

#[test]
fn who_is_refused_reads_why() {
    let origin = RtspOrigin::start();
    let relay = before(&origin);
    let host = relay.address();
    let tcp = ["-rtsp_transport", "tcp"];
    for (url, more, want) in [
        (format!("rtsp://{host}/live/cam"), &tcp, "401 A token is needed: as the password, or as ?token= in the URL"),
        (format!("rtsp://any:wrong@{host}/live/cam"), &tcp, "401 authentication failed: the token is not known"),
        (format!("rtsp://{host}/live/none?token={TOKEN}"), &tcp, "404 Not Found"),
        (format!("rtsp://{host}/live/cam?token={TOKEN}"), &["-rtsp_transport", "http"], "501 RTSP over HTTP is not supported"),
    ] {
        let told = ffmpeg_plays(&url, more).complains();
        assert!(told.contains(want), "{want} was awaited: {told}");
    }
    let told =
        gstreamer_plays(&format!("rtsp://{host}/live/cam"), &["protocols=tcp", "user-id=any", "user-pw=wrong"]).complains();
    assert!(told.contains("authentication failed: the token is not known (401)"), "{told}");
    // It does not ask again after 461: its user has to say protocols=tcp.
    gstreamer_sends(&format!("rtsp://{host}/in/v-3?token={TOKEN}"), &[]).complains();
    relay.wait_for_active(0);
}

#[test]
fn publishers_hear_of_an_origin_that_dies() {
    let mut origin = RtspOrigin::start();
    let relay = before(&origin);
    let url = |name: &str| format!("rtsp://{}/in/{name}?token={TOKEN}", relay.address());
    let ffmpeg = ffmpeg_sends(&url("av-0"), &["-rtsp_transport", "tcp"]);
    let mut gstreamer = gstreamer_sends(&url("v-0"), &["protocols=tcp"]);
    wait_until("both are recorded", SOON, || origin.heard().matches("record ").count() == 2);
    origin.kill();
    ffmpeg.complains();
    // It ends, or connects anew and sends frames without a word.
    wait_until("it has ended, or its frames are known for what they are", SOON, || {
        gstreamer.process.exited().is_some() || relay.log().contains("stray_rtsp_frame")
    });
    gstreamer.process.kill();
    relay.wait_for_active(0);
}

#[test]
fn rtsps_clients_publish_and_play() {
    let origin = RtspOrigin::start();
    let dir = workdir("certificate");
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let put = |name: &str, pem: String| {
        let file = dir.path().join(name);
        std::fs::write(&file, pem).expect("a fresh directory takes a file");
        file.display().to_string()
    };
    let (cert, key) = (put("cert.pem", own.cert.pem()), put("key.pem", own.signing_key.serialize_pem()));
    let relay = relay(&format!("rtsp://{}", origin.address()), json!({ "tls_enabled": true, "tls_cert": cert, "tls_key": key }));
    let url = |path: &str| format!("rtsps://{}/{path}?token={TOKEN}", relay.address());
    ffmpeg_sends(&url("in/av-0"), &[]).succeed();
    assert!(origin.recorded("av-0.h264").len() > 100_000);
    ffmpeg_plays(&url("live/cam"), &[]).succeed();
    ffmpeg_plays(&format!("rtsps://any:{TOKEN}@{}/live/cam", relay.address()), &[]).succeed();
    let told = ffmpeg_plays(&format!("rtsp://{}/live/cam", relay.address()), &["-rtsp_transport", "tcp"]).complains();
    assert!(told.contains("rtsps://"), "{told}");
}
