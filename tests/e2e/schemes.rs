//! Every scheme in, every scheme of its family out, to publish and to play: does the stream arrive, and does the relay say so?
//!
//! One table, whose rows are real programs. The origins are nginx with its RTMP module and gst-rtsp-server; for rtmps and
//! rtsps upstreams nginx's stream module stands before them and takes the TLS. The README has the same table.

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};

use crate::clip;
use crate::compare::{PLAYER_TAIL, identical, played};
use crate::flv::{self, Tag};
use crate::paper::Authority;
use crate::peers::{Front, Nginx, NginxOptions, Player, Publisher, Receiver, RtspMounts, RtspOrigin, Sender, Take};
use crate::pictures;
use crate::relay::Relay;
use crate::route::direct;
use crate::wait::{CLIP, SOON, wait_for};

/// Rows at the same time: they mostly wait for programs to start and for streams in real time.
const AT_ONCE: usize = 6;

/// Pictures of the clip's 150 that must have passed over RTSP: what is on its way when TEARDOWN comes, an origin drops.
const ENOUGH: usize = 125;

const SENDERS: [Sender; 5] = [Sender::Ffmpeg, Sender::Rtmp2Sink, Sender::RtmpSink, Sender::FfmpegRtsp, Sender::RtspClientSink];
const RECEIVERS: [Receiver; 5] =
    [Receiver::Ffmpeg, Receiver::Rtmp2Src, Receiver::RtmpDump, Receiver::FfmpegRtsp, Receiver::RtspSrc];

/// RTMP with and without TLS, RTSP with and without TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scheme {
    Rtmp,
    Rtmps,
    Rtsp,
    Rtsps,
}

use Scheme::{Rtmp, Rtmps, Rtsp, Rtsps};

/// From clients, and to upstreams.
const WAYS: [(Scheme, Scheme); 8] =
    [(Rtmp, Rtmp), (Rtmp, Rtmps), (Rtmps, Rtmp), (Rtmps, Rtmps), (Rtsp, Rtsp), (Rtsp, Rtsps), (Rtsps, Rtsp), (Rtsps, Rtsps)];

impl Scheme {
    fn is_rtsp(self) -> bool {
        matches!(self, Rtsp | Rtsps)
    }

    fn is_private(self) -> bool {
        matches!(self, Rtmps | Rtsps)
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Program {
    Publishes(Sender),
    Plays(Receiver),
}

impl Program {
    fn speaks_rtsp(self) -> bool {
        use Program::{Plays, Publishes};
        matches!(self, Publishes(Sender::FfmpegRtsp | Sender::RtspClientSink) | Plays(Receiver::FfmpegRtsp | Receiver::RtspSrc))
    }
}

/// One of the table: who comes by which scheme and is led on by which.
#[derive(Clone, Copy, Debug)]
struct Row {
    program: Program,
    client: Scheme,
    upstream: Scheme,
}

impl Row {
    fn all() -> Vec<Row> {
        let programs = SENDERS.map(Program::Publishes).into_iter().chain(RECEIVERS.map(Program::Plays));
        let programs: Vec<Program> = programs.collect();
        let of_way = |(client, upstream): (Scheme, Scheme)| {
            let able = programs.clone().into_iter().filter(move |program| program.speaks_rtsp() == client.is_rtsp());
            able.map(move |program| Row { program, client, upstream })
        };
        WAYS.into_iter().flat_map(of_way).collect()
    }

    /// What its stream is called: no other row's is called so.
    fn stream(&self) -> String {
        let (client, upstream) = (self.client.name(), self.upstream.name());
        match self.program {
            Program::Publishes(sender) => format!("{sender:?}-publishes-{client}-to-{upstream}"),
            Program::Plays(receiver) => format!("{receiver:?}-plays-{client}-from-{upstream}"),
        }
    }
}

/// The origins, the relays before them, and what was recorded without a relay.
struct World {
    authority: PathBuf,
    rtmp: Nginx,
    rtsp: RtspOrigin,
    relays: Vec<(Scheme, Relay)>,
    directly: Vec<(Sender, Vec<Tag>)>,
    clip: Vec<Tag>,
    pictures: Vec<Vec<u8>>,
    _front: Front,
    _authority: Authority,
}

impl World {
    fn start(rows: &[Row]) -> Self {
        let authority = Authority::new();
        let paper = authority.local();
        let rtmp = Nginx::start(&NginxOptions::default());
        let named = |is: &dyn Fn(Program) -> bool| rows.iter().filter(|row| is(row.program)).map(Row::stream).collect();
        let rtsp = RtspOrigin::with(&RtspMounts {
            plays: named(&|program| matches!(program, Program::Plays(_)) && program.speaks_rtsp()),
            records: named(&|program| program == Program::Publishes(Sender::FfmpegRtsp)),
            records_video: named(&|program| program == Program::Publishes(Sender::RtspClientSink)),
        });
        let front = Front::start(&[(&paper, rtmp.address()), (&paper, rtsp.address())]);
        let relay = |upstream: Scheme| {
            let to = match upstream {
                Rtmp => rtmp.address(),
                Rtsp => rtsp.address(),
                Rtmps => front.address(0),
                Rtsps => front.address(1),
            };
            let more = json!({
                "listeners": [{ "addr": "127.0.0.1:0", "tls": "only" }],
                "upstream_tls": { "ca_file": authority.file() },
                "security": { "tls_cert": paper.cert, "tls_key": paper.key, "upstream_allowed_networks": ["127.0.0.0/8"] },
                "log": { "format": "json", "level": "info", "stream_names": "plain" },
            });
            (upstream, Relay::configured(json!([{ "url": format!("{}://{to}", upstream.name()) }]), more))
        };
        let relays = [Rtmp, Rtmps, Rtsp, Rtsps].map(relay).into();
        let directly = [Sender::Rtmp2Sink, Sender::RtmpSink].map(|sender| (sender, recorded_directly(sender, &rtmp))).into();
        let clip = flv::read(clip::normal());
        let (file, pictures) = (authority.file(), pictures::of_tags(&clip));
        World { authority: file, rtmp, rtsp, relays, directly, clip, pictures, _front: front, _authority: authority }
    }

    fn relay(&self, upstream: Scheme) -> &Relay {
        self.relays.iter().find(|(to, _)| *to == upstream).map(|(_, relay)| relay).expect("there is one for each")
    }

    fn url(&self, row: &Row) -> String {
        let relay = self.relay(row.upstream);
        let port = relay.address().rsplit_once(':').map_or("", |(_, port)| port);
        let port = if row.client.is_private() { relay.private_port() } else { port };
        // By name where there is TLS: that is what the certificate is checked for.
        let host = if row.client.is_private() { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{port}/live/{}", row.client.name(), row.stream())
    }

    /// Lets the row's program do its work, and judges what arrived and how the relay tells it.
    fn try_row(&self, row: &Row) {
        let authority = row.client.is_private().then_some(self.authority.as_path());
        let (url, stream) = (self.url(row), row.stream());
        let arrived = match row.program {
            Program::Publishes(sender) if row.client.is_rtsp() => {
                // How it ends says nothing: rtspclientsink trips over its own PAUSE now and then, without a relay too.
                Publisher::believing(sender, &url, Take::live(), authority).leave();
                pictures::same(&self.pictures, &self.rtsp.pictures(&stream), ENOUGH)
            }
            Program::Publishes(sender) => {
                Publisher::believing(sender, &url, Take::unpaced(), authority).succeed();
                let sent = self.directly.iter().find(|(directly, _)| *directly == sender).map_or(&self.clip, |(_, sent)| sent);
                identical(sent, &self.rtmp.recorded(&stream, SOON))
            }
            Program::Plays(receiver) if row.client.is_rtsp() => {
                let received = Player::believing(receiver, &url, authority).pictures(CLIP);
                pictures::same(&self.pictures, &received, ENOUGH)
            }
            Program::Plays(receiver) => {
                let mut player = Player::believing(receiver, &url, authority);
                self.rtmp.wait_for_clients(&stream, 1);
                let origin = format!("rtmp://{}/live/{stream}", self.rtmp.address());
                Publisher::start(Sender::Ffmpeg, &origin, Take::unpaced()).succeed();
                played(&self.clip, &player.played(SOON), PLAYER_TAIL)
            }
        };
        arrived.unwrap_or_else(|problem| panic!("{stream} got something else: {problem}"));
        self.told(row);
    }

    /// The relay's closing line of the row's session: a success, with the names of both sides.
    fn told(&self, row: &Row) {
        let (relay, stream) = (self.relay(row.upstream), row.stream());
        let end = wait_for(&format!("the relay tells the end of {stream}"), SOON, || {
            relay.said("session_ended").into_iter().find(|line| line["stream"] == json!(stream))
        });
        let text = |key: &str| end[key].as_str().unwrap_or_default().to_owned();
        let action = if matches!(row.program, Program::Publishes(_)) { "publish" } else { "play" };
        assert_eq!((text("status").as_str(), text("action").as_str()), ("success", action), "{end}");
        assert!(text("upstream").starts_with(&format!("{}://", row.upstream.name())), "{end}");
        let bytes = end[if action == "publish" { "bytes_upstream" } else { "bytes_downstream" }].as_u64();
        assert!(bytes > Some(400_000), "{end}");
    }
}

/// GStreamer muxes the clip anew: its own direct recording is what its relayed one must equal.
fn recorded_directly(sender: Sender, origin: &Nginx) -> Vec<Tag> {
    let stream = format!("{sender:?}-directly");
    Publisher::start(sender, &format!("rtmp://{}/live/{stream}", origin.address()), Take::unpaced()).succeed();
    origin.recorded(&stream, SOON)
}

#[test]
fn every_scheme_in_and_out_passes_what_is_published_and_played() {
    if direct() {
        return;
    }
    let rows = Row::all();
    let world = World::start(&rows);
    let (queue, failed) = (Mutex::new(rows.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let work = || {
            while let Some(row) = { queue.lock().expect("no row holds it").next() } {
                // A thread of its own: what its peers said is printed where it fails, and the others go on.
                let tried = thread::scope(|scope| scope.spawn(|| world.try_row(row)).join());
                if tried.is_err() {
                    failed.lock().expect("no row holds it").push(row.stream());
                }
            }
        };
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().expect("no row holds it");
    assert!(failed.is_empty(), "of {} rows these failed: {failed:#?}", rows.len());
    for (upstream, relay) in &world.relays {
        relay.wait_for_active(0);
        let errors: Vec<Value> = relay.said("session_ended").into_iter().filter(|line| line["status"] != "success").collect();
        assert!(errors.is_empty(), "{upstream:?}: {errors:#?}");
    }
}

/// What the README calls it.
fn known_as(program: Program) -> &'static str {
    match program {
        Program::Publishes(Sender::Ffmpeg | Sender::FfmpegRtsp) | Program::Plays(Receiver::Ffmpeg | Receiver::FfmpegRtsp) => {
            "ffmpeg"
        }
        Program::Publishes(Sender::Rtmp2Sink) => "rtmp2sink",
        Program::Publishes(Sender::RtmpSink) => "rtmpsink (librtmp)",
        Program::Publishes(Sender::RtspClientSink) => "rtspclientsink",
        Program::Plays(Receiver::Rtmp2Src) => "rtmp2src",
        Program::Plays(Receiver::RtmpDump) => "rtmpdump (librtmp)",
        Program::Plays(Receiver::RtspSrc) => "rtspsrc",
    }
}

#[test]
fn the_readme_shows_this_table() {
    let readme = include_str!("../../README.md");
    let rows = Row::all();
    for (client, upstream) in WAYS {
        let who = |publishes: bool| {
            let here = rows.iter().filter(|row| (row.client, row.upstream) == (client, upstream));
            let able = here.filter(|row| matches!(row.program, Program::Publishes(_)) == publishes);
            able.map(|row| known_as(row.program)).collect::<Vec<_>>().join(", ")
        };
        let line = format!("| {} | {} | {} | {} |", client.name(), upstream.name(), who(true), who(false));
        assert!(readme.contains(&line), "README.md lacks:\n{line}");
    }
}
