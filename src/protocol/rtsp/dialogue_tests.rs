//! Conversations between client and upstream, in each side's names.

use secrecy::SecretString;

use super::*;

fn address(url: &str) -> Address {
    Address::parse(url.as_bytes()).expect("an URL")
}

/// A message with LF for CRLF; a body behind a blank line.
fn message(text: &str) -> Message {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let (message, _) = Message::parse_head(format!("{head}\n\n").as_bytes()).expect("a message");
    Message { body: body.as_bytes().to_vec(), ..message }
}

/// A dialogue with its two ends.
struct Talk(Dialogue);

impl Talk {
    fn new(action: Action, upstream: &str, trust: Trust) -> Self {
        let client = address("rtsp://relay.example/live/cam?token=S3CRET");
        Self(Dialogue::new(action, client, address(upstream), trust))
    }

    /// A player that has described the stream.
    fn playing() -> Self {
        let mut talk = Self::new(Action::Play, "rtsp://up/in/key", Trust::Nobody);
        talk.client("DESCRIBE rtsp://relay.example/live/cam?token=S3CRET RTSP/1.0\nCSeq: 1");
        let sdp =
            "v=0\nm=video 0 RTP/AVP 96\na=control:stream=0\nm=audio 0 RTP/AVP 8\na=control:rtsp://10.1.2.3/in/key/stream=1\n";
        talk.upstream(&format!("RTSP/1.0 200 OK\nCSeq: 1\nContent-Base: rtsp://up/in/key/\n\n{sdp}"));
        talk
    }

    fn publishing() -> Self {
        let mut talk = Self::new(Action::Publish, "rtsp://up/in/key", Trust::Nobody);
        talk.client("ANNOUNCE rtsp://relay.example/live/cam?token=S3CRET RTSP/1.0\nCSeq: 1\n\nm=video 0 RTP/AVP 96\na=control:streamid=0\n");
        talk.upstream("RTSP/1.0 200 OK\nCSeq: 1");
        talk
    }

    /// What the two are told after the client said `text`.
    fn client(&mut self, text: &str) -> (String, String) {
        self.try_client(text).expect("the conversation goes on")
    }

    fn try_client(&mut self, text: &str) -> Result<(String, String), DialogueError> {
        let result = self.0.handle_client(message(text), &mut |bytes| bytes.fill(1));
        result.map(|()| self.said())
    }

    fn upstream(&mut self, text: &str) -> (String, String) {
        self.0.handle_upstream(message(text), &mut |bytes| bytes.fill(1));
        self.said()
    }

    /// To the client, to the upstream.
    fn said(&mut self) -> (String, String) {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text").replace("\r\n", "\n");
        (text(self.0.take_to_client()), text(self.0.take_to_upstream()))
    }
}

#[test]
fn a_player_s_session_is_led_in_each_side_s_names() {
    let mut talk = Talk::new(Action::Play, "rtsp://up/in/key", Trust::Nobody);
    let (_, up) = talk.client("DESCRIBE rtsp://relay.example/live/cam?token=S3CRET RTSP/1.0\nCSeq: 7\nAccept: application/sdp\nAuthorization: Basic eDp5\nReferer: x");
    assert_eq!(up, "DESCRIBE rtsp://up/in/key RTSP/1.0\nCSeq: 1\nAccept: application/sdp\n\n");
    assert_eq!(talk.0.word(), None);
    let (down, _) = talk.upstream("RTSP/1.0 200 OK\nCSeq: 1\nContent-Type: application/sdp\nContent-Base: rtsp://10.1.2.3/in/key/\n\nm=video 0 RTP/AVP 96\na=control:stream=0\n");
    assert_eq!(
        down,
        "RTSP/1.0 200 OK\nCSeq: 7\nContent-Type: application/sdp\nContent-Base: rtsp://relay.example/live/cam/\nContent-Length: 41\n\n\
         m=video 0 RTP/AVP 96\na=control:trackID=0\n"
    );
    assert_eq!(talk.0.word(), Some(&Word::Taken));

    let (_, up) = talk.client("SETUP rtsp://relay.example/live/cam/trackID=0 RTSP/1.0\nCSeq: 8\nTransport: RTP/AVP;unicast;client_port=1-2,RTP/AVP/TCP;unicast;interleaved=0-1");
    assert_eq!(up, "SETUP rtsp://10.1.2.3/in/key/stream=0 RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\n\n");
    let (down, _) = talk.upstream("RTSP/1.0 200 OK\nCSeq: 2\nTransport: RTP/AVP/TCP;unicast;source=10.1.2.3;interleaved=2-3;ssrc=1\nSession: abc;timeout=60");
    assert_eq!(
        down,
        "RTSP/1.0 200 OK\nCSeq: 8\nTransport: RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=1\nSession: abc;timeout=60\n\n"
    );
    let channels = talk.0.channels();
    assert!([2, 3].iter().all(|&n| channels.open.has(n)) && !channels.open.has(0));
    assert!(channels.video.has(2) && !channels.video.has(3));

    let (_, up) = talk.client("PLAY rtsp://relay.example/live/cam/ RTSP/1.0\nCSeq: 9\nSession: abc\nRange: npt=0-");
    assert_eq!(up, "PLAY rtsp://10.1.2.3/in/key/ RTSP/1.0\nCSeq: 3\nSession: abc\nRange: npt=0-\n\n");
    assert_eq!(talk.0.phase(), Phase::Setup);
    let (down, _) =
        talk.upstream("RTSP/1.0 200 OK\nCSeq: 3\nSession: abc\nRTP-Info: url=rtsp://10.1.2.3/in/key/stream=0;seq=1;rtptime=2");
    assert_eq!(
        down,
        "RTSP/1.0 200 OK\nCSeq: 9\nSession: abc\nRTP-Info: url=rtsp://relay.example/live/cam/trackID=0;seq=1;rtptime=2\n\n"
    );
    assert_eq!(talk.0.phase(), Phase::Flowing);

    let (_, up) = talk.client("OPTIONS rtsp://relay.example/live/cam/ RTSP/1.0\nCSeq: 10\nSession: abc");
    assert!(up.starts_with("OPTIONS rtsp://10.1.2.3/in/key/ RTSP/1.0\n"), "a keep-alive is the upstream's to hear: {up}");
    let (down, _) = talk.upstream("RTSP/1.0 200 OK\nCSeq: 4\nPublic: OPTIONS, PLAY, GET_PARAMETER, REDIRECT");
    assert!(down.contains("Public: OPTIONS, PLAY, GET_PARAMETER\n"), "{down}");

    talk.client("PAUSE rtsp://relay.example/live/cam/ RTSP/1.0\nCSeq: 11\nSession: abc");
    talk.upstream("RTSP/1.0 200 OK\nCSeq: 5");
    assert_eq!((talk.0.phase(), talk.0.over()), (Phase::Paused, false));
    let (_, up) = talk.client("TEARDOWN rtsp://relay.example/live/cam/ RTSP/1.0\nCSeq: 12\nSession: abc");
    assert!(up.starts_with("TEARDOWN rtsp://10.1.2.3/in/key/ RTSP/1.0\n") && talk.0.over());
    assert!(!talk.0.tear_down(&mut |_| ()), "once is enough");
}

#[test]
fn a_publisher_s_tracks_are_found_in_both_styles_and_its_token_stays_here() {
    for setup in
        ["rtsp://relay.example/live/cam?token=S3CRET/streamid=0", "rtsp://relay.example/live/cam/streamid=0?token=S3CRET"]
    {
        let mut talk = Talk::publishing();
        let (_, up) =
            talk.client(&format!("SETUP {setup} RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"));
        assert_eq!(
            up,
            "SETUP rtsp://up/in/key/streamid=0 RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\n\n"
        );
        talk.upstream("RTSP/1.0 200 OK\nCSeq: 2\nSession: a\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1");
        assert!(talk.0.channels().video.has(0));
        let (_, up) = talk.client("RECORD rtsp://relay.example/live/cam?token=S3CRET RTSP/1.0\nCSeq: 3\nSession: a");
        assert_eq!(up, "RECORD rtsp://up/in/key RTSP/1.0\nCSeq: 3\nSession: a\n\n");
        talk.upstream("RTSP/1.0 200 OK\nCSeq: 3");
        assert_eq!(talk.0.phase(), Phase::Flowing);
        assert!(talk.0.tear_down(&mut |_| ()));
        assert_eq!(talk.said().1, "TEARDOWN rtsp://up/in/key RTSP/1.0\nCSeq: 4\nSession: a\n\n");
    }
}

#[test]
fn udp_is_answered_461_in_words_and_the_upstream_hears_nothing_of_it() {
    let mut talk = Talk::playing();
    for transport in ["RTP/AVP/UDP;unicast;client_port=1-2", "RTP/AVP;multicast"] {
        let setup = format!("SETUP rtsp://relay.example/live/cam/trackID=0 RTSP/1.0\nCSeq: 2\nTransport: {transport}");
        let (down, up) = talk.client(&setup);
        assert_eq!(down, "RTSP/1.0 461 Use TCP (interleaved): this relay passes no UDP\nCSeq: 2\n\n");
        assert_eq!(up, "");
    }
}

#[test]
fn what_names_another_stream_or_another_direction_is_refused() {
    let mut talk = Talk::playing();
    for (request, code) in [
        ("DESCRIBE rtsp://relay.example/live/secret", 455),
        ("DESCRIBE rtsp://relay.example/live/cam/trackID=0", 455),
        ("DESCRIBE *", 455),
        ("ANNOUNCE rtsp://relay.example/live/cam", 455),
        ("RECORD rtsp://relay.example/live/cam", 455),
        ("PLAY rtsp://relay.example/live/secret", 455),
        ("PLAY rtsp://relay.example/live/camera", 455),
        ("SETUP rtsp://relay.example/live/cam/../secret", 404),
        ("SETUP rtsp://relay.example/live/cam/trackID=9", 404),
        ("REDIRECT rtsp://relay.example/live/cam", 501),
        ("PLAY_NOTIFY rtsp://relay.example/live/cam", 501),
    ] {
        let (down, up) = talk.client(&format!("{request} RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP"));
        assert!(down.starts_with(&format!("RTSP/1.0 {code} ")) && up.is_empty(), "{request}: {down}");
    }
    let (down, _) =
        talk.client("SETUP rtsp://relay.example/live/cam/trackID=0 RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP;mode=record");
    assert!(down.starts_with("RTSP/1.0 455 "), "{down}");
    let mut talk = Talk::publishing();
    for request in [
        "DESCRIBE rtsp://relay.example/live/cam",
        "PLAY rtsp://relay.example/live/cam",
        "ANNOUNCE rtsp://relay.example/live/other",
    ] {
        let (down, up) = talk.client(&format!("{request} RTSP/1.0\nCSeq: 2"));
        assert!(down.starts_with("RTSP/1.0 455 ") && up.is_empty(), "{request}: {down}");
    }
    for suffix in ["..", "%2e%2e", "a/../b", "a%2f..%2fb"] {
        let (down, up) =
            talk.client(&format!("SETUP rtsp://relay.example/live/cam/{suffix} RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP"));
        assert!(down.starts_with("RTSP/1.0 404 ") && up.is_empty(), "{suffix}: {down}");
    }
}

#[test]
fn a_track_in_place_of_the_stream_s_name_is_found() {
    let mut talk = Talk::playing();
    let (_, up) = talk.client("SETUP rtsp://relay.example/live/trackID=1 RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP");
    assert!(up.starts_with("SETUP rtsp://10.1.2.3/in/key/stream=1 RTSP/1.0\n"), "{up}");
}

#[test]
fn answers_come_in_the_order_of_their_requests() {
    let mut talk = Talk::playing();
    let setup = |n: u8, transport: &str| {
        format!("SETUP rtsp://relay.example/live/cam/trackID={n} RTSP/1.0\nCSeq: 1{n}\nTransport: {transport}")
    };
    talk.client(&setup(0, "RTP/AVP/TCP;interleaved=0-1"));
    assert_eq!(talk.client(&setup(1, "RTP/AVP;multicast")).0, "", "waits for the one before it");
    talk.client(&setup(1, "RTP/AVP/TCP;interleaved=2-3"));
    assert_eq!(talk.upstream("RTSP/1.0 200 OK\nCSeq: 3\nTransport: RTP/AVP/TCP;interleaved=2-3").0, "");
    let (down, _) = talk.upstream("RTSP/1.0 200 OK\nCSeq: 2\nTransport: RTP/AVP/TCP;interleaved=0-1");
    let codes: Vec<_> = down.lines().filter(|line| line.starts_with("RTSP/1.0")).map(|line| &line[9..12]).collect();
    assert_eq!(codes, ["200", "461", "200"]);
    assert_eq!(talk.upstream("RTSP/1.0 200 OK\nCSeq: 99").0, "", "an answer to nothing is nobody's");
}

#[test]
fn hostile_30_a_pipelined_flood_ends_at_sixteen() {
    let mut talk = Talk::playing();
    let options = "OPTIONS * RTSP/1.0\nCSeq: 5";
    for _ in 0..MAX_IN_FLIGHT {
        talk.client(options);
    }
    assert_eq!(talk.try_client(options), Err(DialogueError::TooMany));
    assert!(talk.said().0.starts_with("RTSP/1.0 400 More than 16 requests"));
    let mut talk = Talk::playing();
    assert!(talk.try_client("OPTIONS * RTSP/1.0").is_err());
    assert!(talk.said().0.starts_with("RTSP/1.0 400 CSeq"));
}

#[test]
fn the_relay_answers_the_upstream_s_challenges_itself() {
    let login = || Login { user: "u".into(), password: SecretString::from("P4SS") };
    let mut talk = Talk::new(Action::Play, "rtsp://up/in/key", Trust::Own(login()));
    talk.client("DESCRIBE rtsp://relay.example/live/cam?token=S3CRET RTSP/1.0\nCSeq: 1\nAuthorization: Basic eDp5");
    let (down, up) =
        talk.upstream("RTSP/1.0 401 Unauthorized\nCSeq: 1\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"");
    assert!(down.is_empty() && up.contains("\nCSeq: 2\n"), "{up}");
    assert!(up.contains("Authorization: Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"rtsp://up/in/key\""), "{up}");
    talk.upstream("RTSP/1.0 200 OK\nCSeq: 2\n\nm=video 0 RTP/AVP 96\na=control:a\n");
    assert_eq!(talk.0.word(), Some(&Word::Taken));
    let (_, up) = talk.client("SETUP rtsp://relay.example/live/cam/trackID=0 RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP");
    assert!(up.contains("nc=00000002"), "without being asked again: {up}");
    let (down, up) = talk.upstream("RTSP/1.0 401 No\nCSeq: 3\nWWW-Authenticate: Digest realm=\"r\", nonce=\"m\", stale=TRUE");
    assert!(down.is_empty() && up.contains("nonce=\"m\""), "{up}");

    let mut talk = Talk::new(Action::Play, "rtsp://up/in/key", Trust::Own(login()));
    talk.client("DESCRIBE rtsp://relay.example/live/cam RTSP/1.0\nCSeq: 1");
    talk.upstream("RTSP/1.0 401 Unauthorized\nCSeq: 1\nWWW-Authenticate: Basic realm=\"r\"");
    let (down, up) = talk.upstream("RTSP/1.0 401 Unauthorized\nCSeq: 2\nWWW-Authenticate: Basic realm=\"r\"");
    assert!(down.starts_with("RTSP/1.0 502 The upstream does not take the user name and password of its URL\n"), "{down}");
    assert!(up.is_empty());
    assert_eq!(talk.0.word(), Some(&Word::Refused(401)));
}

#[test]
fn without_authentication_here_basic_passes_both_ways_and_digest_is_explained() {
    let describe = "DESCRIBE rtsp://relay.example/live/cam RTSP/1.0\nCSeq: 1\nAuthorization: Basic eDp5";
    let basic = "RTSP/1.0 401 Unauthorized\nCSeq: 1\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\", Basic realm=\"cam 1\"";
    let digest = "RTSP/1.0 401 Unauthorized\nCSeq: 1\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\"";
    let mut talk = Talk::new(Action::Play, "rtsp://up/in/key", Trust::Client);
    assert!(talk.client(describe).1.contains("Authorization: Basic eDp5\n"));
    assert_eq!(talk.upstream(basic).0, "RTSP/1.0 401 Unauthorized\nCSeq: 1\nWWW-Authenticate: Basic realm=\"cam 1\"\n\n");
    assert_eq!(talk.0.word(), Some(&Word::Challenged));
    for (trust, answer) in [(Trust::Client, digest), (Trust::Nobody, basic), (Trust::Nobody, digest)] {
        let mut talk = Talk::new(Action::Play, "rtsp://up/in/key", trust);
        let up = talk.client(describe).1;
        let down = talk.upstream(answer).0;
        assert!(
            down.starts_with("RTSP/1.0 502 The upstream asks for a password: put credentials into the upstream URL\n"),
            "{down}"
        );
        assert_eq!(talk.0.word(), Some(&Word::Refused(401)));
        assert!(matches!(talk.0.trust, Trust::Client) || !up.contains("Authorization"), "{up}");
    }
}

#[test]
fn nothing_leads_the_client_past_the_relay() {
    let mut talk = Talk::playing();
    for request in [
        "REDIRECT rtsp://relay.example/x RTSP/1.0\nCSeq: 5\nLocation: rtsp://10.1.2.3/x",
        "ANNOUNCE rtsp://h/x RTSP/1.0\nCSeq: 5",
    ] {
        assert_eq!(talk.upstream(request), (String::new(), "RTSP/1.0 501 Not relayed\nCSeq: 5\n\n".to_owned()));
    }
    let mut talk = Talk::new(Action::Play, "rtsp://up/in/key", Trust::Nobody);
    talk.client("DESCRIBE rtsp://relay.example/live/cam RTSP/1.0\nCSeq: 1");
    let (down, _) = talk.upstream("RTSP/1.0 302 Moved\nCSeq: 1\nLocation: rtsp://10.1.2.3/in/key");
    assert!(down.starts_with("RTSP/1.0 502 The upstream sends elsewhere") && !down.contains("10.1.2.3"), "{down}");
}

#[test]
fn the_upstream_s_own_questions_reach_the_client_and_its_answers_the_upstream() {
    let mut talk = Talk::playing();
    let (down, _) = talk.upstream("OPTIONS rtsp://up/in/key RTSP/1.0\nCSeq: 77");
    assert_eq!(down, "OPTIONS rtsp://relay.example/live/cam/ RTSP/1.0\nCSeq: 77\n\n");
    assert_eq!(talk.client("RTSP/1.0 200 OK\nCSeq: 78"), (String::new(), String::new()), "an answer to nothing");
    let (_, up) = talk.client("RTSP/1.0 200 OK\nCSeq: 77\nPublic: OPTIONS");
    assert_eq!(up, "RTSP/1.0 200 OK\nCSeq: 77\nPublic: OPTIONS\n\n");
    for n in 0..=MAX_IN_FLIGHT {
        let (down, up) = talk.upstream(&format!("OPTIONS * RTSP/1.0\nCSeq: {n}"));
        assert_eq!((down.is_empty(), up.is_empty()), (n == MAX_IN_FLIGHT, n < MAX_IN_FLIGHT), "{n}");
    }
}

#[test]
fn who_waits_when_the_upstream_dies_is_answered() {
    let mut talk = Talk::playing();
    talk.client("SETUP rtsp://relay.example/live/cam/trackID=0 RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP");
    talk.0.abandon(502, "The upstream is gone");
    assert_eq!(talk.said().0, "RTSP/1.0 502 The upstream is gone\nCSeq: 2\n\n");
}

#[test]
fn no_secret_reaches_the_other_side() {
    let mut talk = Talk::new(Action::Play, "rtsp://up/in/KEY?k=UPS3CRET", Trust::Nobody);
    let (_, up) = talk.client("DESCRIBE rtsp://relay.example/live/cam?token=S3CRET RTSP/1.0\nCSeq: 1\nReferer: rtsp://x?token=S3CRET\nAuthorization: Bearer S3CRET");
    assert!(!up.contains("token") && !up.contains("Bearer") && !up.replace("UPS3CRET", "").contains("S3CRET"), "{up}");
    let sdp = "m=video 0 RTP/AVP 96\na=control:rtsp://up/in/KEY?k=UPS3CRET/1\n";
    let (down, _) = talk.upstream(&format!(
        "RTSP/1.0 200 OK\nCSeq: 1\nContent-Base: rtsp://up/in/KEY?k=UPS3CRET/\nContent-Location: rtsp://up/in/KEY\n\n{sdp}"
    ));
    assert!(!down.contains("UPS3CRET") && !down.contains("KEY"), "{down}");
    let (_, up) = talk.client("SETUP rtsp://relay.example/live/cam/trackID=0 RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP/TCP");
    assert!(up.starts_with("SETUP rtsp://up/in/KEY?k=UPS3CRET/1 RTSP/1.0\n"), "{up}");
}
