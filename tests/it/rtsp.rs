//! RTSP sessions through the relay: who is called what on which side, and what passes.

use serde_json::{Value, json};

use crate::private::{Authority, Tunnel, believing};
use crate::relay::{Face, Relay};
use crate::rtsp_peer::{Door, Heard, Peer, frame, rtp};
use crate::wait::wait_until;

pub(crate) const TCP: &str = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1";
pub(crate) const SDP: &str = "v=0\nm=video 0 RTP/AVP 96\na=control:stream=0\nm=audio 0 RTP/AVP 8\na=control:stream=1\n";

/// A player of `/live/cam` through `relay` to `door`, up to the answer to PLAY.
pub(crate) fn playing(relay: &Face, door: &Door) -> (Peer, Peer) {
    let mut player = Peer::to(relay);
    player.request("DESCRIBE", "rtsp://relay.test/live/cam", "");
    let mut origin = door.accept();
    origin.serve("DESCRIBE ", "200 OK", &format!("Content-Base: {}\n\n{SDP}", door.url("/live/cam/")));
    assert_eq!(player.message().status(), "200 OK");
    player.request("SETUP", "rtsp://relay.test/live/cam/trackID=0", TCP);
    origin.serve("SETUP ", "200 OK", &format!("{TCP};ssrc=1\nSession: s1;timeout=60"));
    assert_eq!(player.message().status(), "200 OK");
    player.request("PLAY", "rtsp://relay.test/live/cam/", "Session: s1");
    origin.serve("PLAY ", "200 OK", "Session: s1");
    assert_eq!(player.message().status(), "200 OK");
    (player, origin)
}

/// A publisher of `/live/cam`, up to the answer to RECORD.
pub(crate) fn publishing(relay: &Face, door: &Door) -> (Peer, Peer) {
    publishing_to(relay, door, "rtsp://relay.test/live/cam")
}

/// A publisher of `url`.
pub(crate) fn publishing_to(relay: &Face, door: &Door, url: &str) -> (Peer, Peer) {
    let mut publisher = Peer::to(relay);
    publisher.request("ANNOUNCE", url, &format!("\n\n{}", SDP.replace("stream=", "streamid=")));
    let mut origin = door.accept();
    origin.serve("ANNOUNCE ", "200 OK", "");
    assert_eq!(publisher.message().status(), "200 OK");
    publisher.request("SETUP", &format!("{url}/streamid=0"), &format!("{TCP};mode=record"));
    origin.serve("SETUP ", "200 OK", &format!("{TCP}\nSession: s1"));
    assert_eq!(publisher.message().status(), "200 OK");
    publisher.request("RECORD", url, "Session: s1");
    origin.serve("RECORD ", "200 OK", "Session: s1");
    assert_eq!(publisher.message().status(), "200 OK");
    (publisher, origin)
}

fn row_when(relay: &Face, peer: &Peer, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    crate::wait::wait_for(what, || Some(relay.row(peer.address())).filter(|row| is(row)))
}

#[test]
fn a_player_s_session_is_led_in_each_side_s_names_and_its_token_stays_here() {
    let door = Door::open();
    let tokens = json!({ "security": { "auth_enabled": true, "auth_tokens": ["s3cret"] } });
    let relay = Relay::with(&door.url("/up/{stream}?key=k1"), tokens);
    let mut player = Peer::to(&relay);
    let public = player.ask("OPTIONS", "rtsp://relay.test/live/cam?token=s3cret", "");
    assert!(public.get("Public").is_some_and(|public| public.contains("DESCRIBE") && !public.contains("GET_PARAMETER")));
    assert!(door.is_quiet(), "nobody is dialled for OPTIONS");

    player.request("DESCRIBE", "rtsp://relay.test/live/cam?a=1&token=s3cret&b=2", "Accept: application/sdp");
    let mut origin = door.accept();
    let absolute = format!("v=0\na=control:*\nm=video 0 RTP/AVP 96\na=control:{}\n", door.url("/up/cam/v"));
    let base = format!("Content-Base: {}\nContent-Type: application/sdp\n\n{absolute}", door.url("/up/cam/"));
    let request = origin.serve("DESCRIBE ", "200 OK", &base);
    assert_eq!(request.start, format!("DESCRIBE {} RTSP/1.0", door.url("/up/cam?key=k1&a=1&b=2")));
    assert_eq!(request.get("Accept"), Some("application/sdp"));
    let described = player.message();
    assert_eq!(described.get("Content-Base"), Some("rtsp://relay.test/live/cam/"));
    assert_eq!(described.body, "v=0\na=control:*\nm=video 0 RTP/AVP 96\na=control:trackID=0\n");

    player.request("SETUP", "rtsp://relay.test/live/cam/trackID=0", TCP);
    let request = origin.serve(
        "SETUP ",
        "200 OK",
        "Transport: RTP/AVP/TCP;unicast;source=10.1.2.3;interleaved=0-1\nSession: s1;timeout=60",
    );
    assert_eq!(request.start, format!("SETUP {} RTSP/1.0", door.url("/up/cam/v")));
    let set_up = player.message();
    assert_eq!(
        (set_up.get("Transport"), set_up.get("Session")),
        (Some("RTP/AVP/TCP;unicast;interleaved=0-1"), Some("s1;timeout=60"))
    );

    player.request("PLAY", "rtsp://relay.test/live/cam/", "Session: s1\nRange: npt=0-");
    let request = origin.message();
    assert_eq!(request.start, format!("PLAY {} RTSP/1.0", door.url("/up/cam/")));
    // Media may come before the answer.
    origin.frame(0, &rtp(true, 1, 100));
    origin.answer(&request, "200 OK", &format!("Session: s1\nRTP-Info: url={};seq=1", door.url("/up/cam/v")));
    origin.frame(1, b"report");
    assert_eq!(player.hear(), Heard::Frame(0, rtp(true, 1, 100)));
    assert_eq!(player.message().get("RTP-Info"), Some("url=rtsp://relay.test/live/cam/trackID=0;seq=1"));
    assert_eq!(player.hear(), Heard::Frame(1, b"report".to_vec()));
    player.frame(1, b"receiver's report");
    assert_eq!(origin.hear(), Heard::Frame(1, b"receiver's report".to_vec()));

    let row = row_when(&relay, &player, "frames are counted", |row| row["to_client"]["messages"] == 2);
    assert_eq!((&row["protocol"], &row["action"], &row["to_upstream"]["messages"]), (&json!("rtsp"), &json!("play"), &json!(1)));
    assert_eq!((&row["token"], &row["state"]), (&json!("token-1"), &json!("relaying")));

    player.request("TEARDOWN", "rtsp://relay.test/live/cam/", "Session: s1");
    origin.serve("TEARDOWN ", "200 OK", "");
    assert_eq!(player.message().status(), "200 OK");
    player.finish();
    assert_eq!(origin.end(), Heard::Fin);
    drop(origin);
    relay.wait_ended("client", "client_closed");
    relay.wait_empty();
    assert_eq!(relay.connections(), (1, 0, 0));
}

#[test]
fn a_publisher_s_frames_pass_untouched_in_both_styles_of_track_urls() {
    for setup in ["rtsp://relay.test/live/cam?token=s3cret/streamid=0", "rtsp://relay.test/live/cam/streamid=0?token=s3cret"] {
        let door = Door::open();
        let tokens = json!({ "security": { "auth_enabled": true, "auth_tokens": ["s3cret"] } });
        let relay = Relay::with(&door.url(""), tokens);
        let mut publisher = Peer::to(&relay);
        let sdp = "v=0\nm=video 0 RTP/AVP 96\na=control:streamid=0\n";
        publisher.request(
            "ANNOUNCE",
            "rtsp://relay.test/live/cam?token=s3cret",
            &format!("Content-Type: application/sdp\n\n{sdp}"),
        );
        let mut origin = door.accept();
        let request = origin.serve("ANNOUNCE ", "200 OK", "");
        assert_eq!((request.start, request.body), (format!("ANNOUNCE {} RTSP/1.0", door.url("/live/cam")), sdp.to_owned()));
        publisher.message();
        publisher.request("SETUP", setup, &format!("{TCP};mode=record"));
        let request = origin.serve("SETUP ", "200 OK", &format!("{TCP}\nSession: s1"));
        assert_eq!(request.start, format!("SETUP {} RTSP/1.0", door.url("/live/cam/streamid=0")));
        publisher.message();
        publisher.request("RECORD", "rtsp://relay.test/live/cam?token=s3cret", "Session: s1");
        // As ffmpeg does: reports at once.
        publisher.frame(1, b"sender's report");
        publisher.frame(0, &rtp(true, 1, 9000));
        origin.serve("RECORD ", "200 OK", "");
        assert_eq!(origin.hear(), Heard::Frame(1, b"sender's report".to_vec()));
        assert_eq!(origin.hear(), Heard::Frame(0, rtp(true, 1, 9000)));
        assert_eq!(publisher.message().status(), "200 OK");
        let row = relay.row(publisher.address());
        assert_eq!((&row["protocol"], &row["action"]), (&json!("rtsp"), &json!("publish")));
        publisher.finish();
        let request = origin.message();
        assert_eq!(request.start, format!("TEARDOWN {} RTSP/1.0", door.url("/live/cam")), "said by the relay");
        assert_eq!(request.get("Session"), Some("s1"));
        drop(origin);
        relay.wait_ended("client", "client_closed");
    }
}

#[test]
fn udp_is_refused_in_words_and_tcp_is_taken_on_the_same_connection() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let mut player = Peer::to(&relay);
    player.request("DESCRIBE", "rtsp://relay.test/live/cam", "");
    let mut origin = door.accept();
    origin.serve("DESCRIBE ", "200 OK", &format!("\n\n{SDP}"));
    player.message();
    let track = "rtsp://relay.test/live/cam/trackID=1";
    // As GStreamer's rtspsrc does: UDP, multicast, TCP.
    for udp in ["RTP/AVP;unicast;client_port=5000-5001", "RTP/AVP;multicast"] {
        let answer = player.ask("SETUP", track, &format!("Transport: {udp}"));
        assert_eq!(answer.status(), "461 Use TCP (interleaved): this relay passes no UDP");
        assert_eq!(answer.get("Connection"), None, "clients ask again on the same connection");
    }
    player.request("SETUP", track, &format!("Transport: RTP/AVP;unicast;client_port=1-2, {}", &TCP["Transport: ".len()..]));
    let request = origin.serve("SETUP ", "200 OK", TCP);
    assert_eq!(request.get("Transport"), Some(&TCP["Transport: ".len()..]));
    assert_eq!(player.message().status(), "200 OK");
}

#[test]
fn one_connection_is_one_stream() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let (mut player, mut origin) = playing(&relay, &door);
    for (method, uri) in [
        ("DESCRIBE", "rtsp://relay.test/live/secret"),
        ("PLAY", "rtsp://relay.test/live/secret"),
        ("SETUP", "rtsp://relay.test/live/secret/trackID=7"),
        ("ANNOUNCE", "rtsp://relay.test/live/cam"),
        ("RECORD", "rtsp://relay.test/live/cam"),
    ] {
        let answer = player.ask(method, uri, TCP);
        assert!(answer.status().starts_with("455 "), "{method} {uri}: {answer:?}");
    }
    assert_eq!(player.ask("SETUP", "rtsp://relay.test/live/cam/..%2Fsecret", TCP).status(), "404 There is no such track");
    player.request("GET_PARAMETER", "rtsp://relay.test/live/cam/", "Session: s1");
    let request = origin.serve("GET_PARAMETER ", "200 OK", "");
    assert_eq!(request.start, format!("GET_PARAMETER {} RTSP/1.0", door.url("/live/cam/")), "the origin heard nothing else");
    assert_eq!(player.message().status(), "200 OK");
}

#[test]
fn the_upstream_may_ask_too() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let (mut player, mut origin) = playing(&relay, &door);
    origin.request("OPTIONS", "*", "");
    let asked = player.message();
    assert_eq!(asked.start, "OPTIONS * RTSP/1.0");
    player.answer(&asked, "200 OK", "Public: OPTIONS");
    assert_eq!(origin.message().status(), "200 OK");
    assert_eq!(origin.ask("REDIRECT", "*", "Location: rtsp://127.0.0.1:1/x").status(), "501 Not relayed");
    origin.frame(0, &rtp(true, 1, 10));
    assert_eq!(player.hear(), Heard::Frame(0, rtp(true, 1, 10)), "the redirect went no further");
}

#[test]
fn what_came_with_the_first_request_is_heard_behind_it() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let mut publisher = Peer::to(&relay);
    publisher.write(
        "ANNOUNCE rtsp://relay.test/live/cam RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 39\r\n\r\nm=audio 0 RTP/AVP 8\r\na=control:streamid=0\
         SETUP rtsp://relay.test/live/cam/streamid=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;interl"
            .replace("39", "41"),
    );
    let mut origin = door.accept();
    publisher.write("eaved=0-1\r\n\r\n");
    origin.serve("ANNOUNCE ", "200 OK", "");
    let request = origin.serve("SETUP ", "200 OK", TCP);
    assert_eq!(request.start, format!("SETUP {} RTSP/1.0", door.url("/live/cam/streamid=0")));
    for cseq in ["1", "2"] {
        assert_eq!(publisher.message().get("CSeq"), Some(cseq));
    }
}

#[test]
fn rtsp_inside_http_is_refused_by_name() {
    let relay = Relay::to("rtmp://127.0.0.1:9/live");
    let tunnel = "x-sessioncookie: abc\r\nAccept: application/x-rtsp-tunnelled\r\n\r\n";
    for line in ["GET /live/cam HTTP/1.1\r\n", "POST /live/cam HTTP/1.0\r\n"] {
        let mut client = Peer::to(&relay);
        client.write(format!("{line}{tunnel}"));
        let answer = client.message();
        assert_eq!(answer.start, "HTTP/1.1 501 RTSP over HTTP is not supported");
        assert!(answer.body.contains("rtsp://"), "{answer:?}");
    }
    relay.wait_ended("client", "rtsp_over_http");
}

#[test]
fn a_frame_before_any_request_is_refused_by_name() {
    let relay = Relay::to("rtsp://127.0.0.1:9");
    let mut client = Peer::to(&relay);
    client.write(frame(0, &rtp(true, 1, 100)));
    client.end();
    relay.wait_ended("client", "stray_rtsp_frame");
}

#[test]
fn a_quiet_session_holds_no_buffer() {
    let door = Door::open();
    let relay = Relay::to(&door.url(""));
    let (mut player, mut origin) = playing(&relay, &door);
    origin.frame(0, &rtp(true, 1, 5000));
    player.hear();
    // The start of a frame does not keep one either.
    origin.write(b"$\0\x20");
    wait_until("no buffer is lent", || relay.status()["buffers"]["lent"] == 0);
}

#[test]
fn rtsps_passes_on_both_sides_and_asks_for_the_token_itself() {
    let (authority, dir, door) = (Authority::new(), tempfile::tempdir().expect("a directory"), Door::open());
    let front = Tunnel::before(door.address(), &authority.paper(&["127.0.0.1"]));
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("it can be written");
    let (cert, key) = authority.paper(&["localhost"]).put_into(dir.path());
    let security = json!({ "tls_enabled": true, "tls_cert": cert, "tls_key": key });
    let config = |auth: Value| {
        let mut security = security.clone();
        security.as_object_mut().expect("an object").extend(auth.as_object().cloned().unwrap_or_default());
        json!({ "security": security, "upstream_tls": { "ca_file": ca } })
    };
    let url = format!("rtsps://{}", front.address);
    let relay = Relay::with(&url, config(json!({})));
    let tunnel = Tunnel::to(relay.address, "localhost", believing(&authority, None));
    let face = Face { address: tunnel.address, http: relay.http };
    let (mut player, mut origin) = playing(&face, &door);
    for number in 0..50 {
        origin.frame(0, &rtp(number % 5 == 0, number, 9000));
    }
    for number in 0..50 {
        assert_eq!(player.hear(), Heard::Frame(0, rtp(number % 5 == 0, number, 9000)));
    }
    let (mut publisher, mut origin) = publishing(&face, &door);
    publisher.frame(0, &rtp(true, 1, 60_000));
    assert_eq!(origin.hear(), Heard::Frame(0, rtp(true, 1, 60_000)));
    drop((player, publisher));

    let relay = Relay::with(&url, config(json!({ "auth_enabled": true, "auth_tokens": ["s3cret"] })));
    let tunnel = Tunnel::to(relay.address, "localhost", believing(&authority, None));
    let mut client = Peer::to(&Face { address: tunnel.address, http: relay.http });
    let asked = client.ask("DESCRIBE", "rtsps://relay.test/live/cam", "");
    assert_eq!(asked.headers.iter().filter(|(name, _)| name == "WWW-Authenticate").count(), 1);
    assert_eq!(asked.get("WWW-Authenticate"), Some("Basic realm=\"relay\""));
    let mut plain = Peer::to(&relay);
    let told = plain.ask("OPTIONS", "*", "");
    assert!(told.status().starts_with("403 ") && told.status().contains("rtsps://"), "{told:?}");
}
