//! The committed corpus, `fuzz/corpus/<target>/<name>`. Files that begin with `seed-` follow from the recordings in `tests/golden` and from
//! this page; the others are what fuzzing found worth keeping, or found wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use relay::protocol::proxy::{Ends, Version, header};
use relay::protocol::rtmp::command::kind;
use relay::protocol::rtmp::handshake::TOTAL;

use crate::bodies;
use crate::parser::Parser;
use crate::recording::{Recording, recordings};

/// Bytes of a stream behind its handshake that a file holds: the command phase, and the head of the media.
const HEAD: usize = 2500;

/// The files of a target, in the order of their names.
pub fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())).collect();
    files.sort();
    files
}

/// Compares the committed seeds with what the recordings give; with `WRITE_CORPUS` set, writes them.
pub fn compare_or_write() {
    let write = std::env::var_os("WRITE_CORPUS").is_some();
    for (target, _, control) in bodies::ALL {
        let seeds = seeds(target, control);
        let folder = Path::new("fuzz/corpus").join(target);
        if write {
            fs::create_dir_all(&folder).unwrap();
            let old = files(target).into_iter().filter(|(name, _)| name.starts_with("seed-"));
            old.for_each(|(name, _)| fs::remove_file(folder.join(name)).unwrap());
            seeds.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
        }
        let there: BTreeMap<String, Vec<u8>> = files(target).into_iter().filter(|(name, _)| name.starts_with("seed-")).collect();
        let same = there.keys().eq(seeds.keys()) && there == seeds;
        assert!(
            same,
            "fuzz/corpus/{target} is not what the recordings give: WRITE_CORPUS=1 cargo test --test fuzz writes it anew"
        );
    }
}

/// The seeds of a target; `control` zeros stand before those that were not given any.
fn seeds(target: &str, control: usize) -> BTreeMap<String, Vec<u8>> {
    let plain = |list: Vec<(String, Vec<u8>)>| -> Vec<(String, Vec<u8>)> {
        list.into_iter().map(|(name, bytes)| (name, [vec![0; control], bytes].concat())).collect()
    };
    let list = match target {
        "sniff" => plain(openings()),
        "proxy" => plain(proxied()),
        "handshake" => plain(handshakes()),
        "chunk_reader" => plain(each(|r| vec![("client", behind(&r.client, HEAD)), ("server", behind(&r.server, HEAD))])),
        "joiner" => joined(),
        "amf0" => plain(payloads()),
        "rtmp_session" => command_phases(),
        "rtsp_framing" => plain(vec![("rtsp".to_owned(), rtsp_server()), ("conversation".to_owned(), rtsp_texts().concat())]),
        "rtsp_session" => conversations(),
        "name" => plain(names()),
        "config" => plain(configurations()),
        other => panic!("{other} has no seeds"),
    };
    list.into_iter().map(|(name, bytes)| (format!("seed-{name}"), bytes)).collect()
}

fn each(of: impl Fn(&Recording) -> Vec<(&'static str, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let named =
        |r: Recording| of(&r).into_iter().map(move |(side, bytes)| (format!("{}-{side}", r.name), bytes)).collect::<Vec<_>>();
    recordings().into_iter().flat_map(named).collect()
}

fn behind(stream: &[u8], most: usize) -> Vec<u8> {
    stream[TOTAL..stream.len().min(TOTAL + most)].to_vec()
}

/// One of each program that was recorded.
fn handshakes() -> Vec<(String, Vec<u8>)> {
    let all = each(|r| vec![("client", r.client[..TOTAL].to_vec()), ("server", r.server[..TOTAL].to_vec())]);
    let of_a_program = |name: &str| {
        ["play-client", "rtmp2sink-publish-client", "publish-client", "idle-ping-server"].iter().any(|end| name.ends_with(end))
    };
    all.into_iter().filter(|(name, _)| of_a_program(name)).collect()
}

fn openings() -> Vec<(String, Vec<u8>)> {
    let words: [&[u8]; 14] = [
        b"\x03\0\0\0",
        b"\x06\x80",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"GET /live/cam HTTP/1.1\r\nX-SessionCookie: a\r\n\r\n",
        b"POST /live/cam HTTP/1.1\r\nContent-Type: application/x-rtsp-tunnelled\r\n\r\n",
        b"POST /open/1 HTTP/1.1\r\n",
        b"POST /fcs/ident2 HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\nGET_PARAMETER rtsp://h/a RTSP/1.0\r\n",
        b"\r\nPLAY_NOTIFY rtsp://h/a RTSP/1.0\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
        b"$\0\0\x04abcd",
        b"SSH-2.0-client\r\n",
    ];
    words.iter().enumerate().map(|(n, word)| (format!("{n:02}"), word.to_vec())).collect()
}

fn proxied() -> Vec<(String, Vec<u8>)> {
    let ends = |client: &str, reached: &str| Ends { client: client.parse().unwrap(), reached: reached.parse().unwrap() };
    let mut list = Vec::new();
    for (name, ends) in [
        ("v4", Some(ends("192.0.2.1:40000", "198.51.100.7:1935"))),
        ("v6", Some(ends("[2001:db8::1]:40000", "[2001:db8::2]:1935"))),
        ("mixed", Some(ends("192.0.2.1:40000", "[2001:db8::2]:1935"))),
        ("own", None),
    ] {
        for (version, word) in [(Version::V1, "1"), (Version::V2, "2")] {
            list.push((format!("{name}-{word}"), [header(version, ends), b"\x03abc".to_vec()].concat()));
        }
    }
    let v2 = |rest: &[u8]| [&b"\r\n\r\n\0\r\nQUIT\n"[..], rest].concat();
    list.push(("tlv".to_owned(), v2(b"\x21\x11\0\x14\xc0\0\x02\x01\xc6\x33\x64\x07\x9c\x40\x07\x8f\x01\0\x05relay")));
    list.push(("unix".to_owned(), v2(&[&b"\x21\x31\0\xd8"[..], &[0; 216]].concat())));
    list.push(("long".to_owned(), v2(b"\x20\x00\xff\xff")));
    list.push(("unknown".to_owned(), b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec()));
    list
}

fn joined() -> Vec<(String, Vec<u8>)> {
    let control = |skip: u16, seed: u16, flags: u8| [&skip.to_le_bytes()[..], &seed.to_le_bytes(), &[flags]].concat();
    let mut list = each(|r| {
        let side = if r.name.contains("publish") { &r.client } else { &r.server };
        vec![
            ("joined", [control(900, 17, 0), behind(side, HEAD)].concat()),
            ("renamed", [control(333, 5, 2), behind(side, HEAD)].concat()),
        ]
    });
    for n in 0..8u16 {
        let recipe: Vec<u8> = (0..120).map(|i| (i * 37 + n * 101) as u8 ^ (i >> 3) as u8).collect();
        list.push((format!("spoken-{n}"), [control(n * 57, n * 4 + n % 4, 1 | (n as u8 & 3) << 1), recipe].concat()));
    }
    list
}

/// Payloads of commands and data.
fn payloads() -> Vec<(String, Vec<u8>)> {
    let of = |stream: &[u8]| -> Vec<Vec<u8>> {
        let messages = Parser::default().feed(&stream[TOTAL..]).unwrap().into_iter();
        messages.filter(|m| matches!(m.kind, kind::COMMAND | kind::DATA)).take(6).map(|m| m.body).collect()
    };
    let mut all: Vec<Vec<u8>> = recordings().iter().flat_map(|r| [of(&r.client), of(&r.server)].concat()).collect();
    all.sort();
    all.dedup();
    let mut list: Vec<_> = all.into_iter().enumerate().map(|(n, payload)| (format!("{n:02}"), payload)).collect();
    list.push(("deep".to_owned(), [0x0A, 0, 0, 0, 1].repeat(17)));
    list.push(("all".to_owned(), b"\x07\0\x01\x0b\0\0\0\0\0\0\0\0\0\0\x0c\0\0\0\x01a\x0d\x0f\0\0\0\x01x\x10\0\x01C\0\0\x09\x06\x08\0\0\0\x01\0\x01k\x01\x01\0\0\x09\x11\x04".to_vec()));
    list
}

fn command_phases() -> Vec<(String, Vec<u8>)> {
    let phase = |r: &Recording, way: u8| {
        let client = behind(&r.client, 1200);
        let length = (client.len() as u16).to_le_bytes();
        [&[1, 0, length[0], length[1], way][..], &client, &behind(&r.server, 1200)].concat()
    };
    each(|r| vec![("phase", phase(r, 0)), ("judged", phase(r, 2))])
}

/// What an RTSP server says: what stands behind the HTTP answer of a recorded RTSP-over-HTTP connection.
fn rtsp_server() -> Vec<u8> {
    let text = include_str!("../golden/ffmpeg-5.1-rtsp-over-http.jsonl");
    let mut bytes = Vec::new();
    for line in text.lines().filter(|line| line.contains("\"S\"")) {
        let hex = line.rsplit('"').nth(1).unwrap();
        bytes.extend((0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()));
    }
    let behind = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    bytes[behind..bytes.len().min(behind + HEAD)].to_vec()
}

/// What a player says and hears.
fn rtsp_texts() -> [Vec<u8>; 2] {
    let client = "OPTIONS rtsp://h/live/cam RTSP/1.0\r\nCSeq: 1\r\n\r\n\
        DESCRIBE rtsp://h/live/cam?token=S3CRET RTSP/1.0\r\nCSeq: 2\r\nAuthorization: Basic eDp5\r\nAccept: application/sdp\r\n\r\n\
        SETUP rtsp://h/live/cam/trackID=0 RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n\
        PLAY rtsp://h/live/cam/ RTSP/1.0\r\nCSeq: 4\r\nSession: abc\r\nRange: npt=0-\r\n\r\n\
        RTSP/1.0 200 OK\r\nCSeq: 77\r\n\r\n\
        PAUSE rtsp://h/live/cam/ RTSP/1.0\r\nCSeq: 5\r\nSession: abc\r\n\r\n\
        TEARDOWN rtsp://h/live/cam/ RTSP/1.0\r\nCSeq: 6\r\nSession: abc\r\n\r\n";
    let sdp = "v=0\r\nm=video 0 RTP/AVP 96\r\na=control:stream=0\r\nm=audio 0 RTP/AVP 8\r\na=control:rtsp://10.1.2.3/in/key/stream=1\r\n";
    let upstream = format!(
        "RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Base: rtsp://up.example/in/key/\r\nContent-Length: {}\r\n\r\n{sdp}\
        RTSP/1.0 200 OK\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=1\r\nSession: abc;timeout=60\r\n\r\n\
        OPTIONS rtsp://up.example/in/key RTSP/1.0\r\nCSeq: 77\r\n\r\n\
        REDIRECT rtsp://up.example/in/key RTSP/1.0\r\nCSeq: 78\r\nLocation: rtsp://evil/x\r\n\r\n\
        RTSP/1.0 200 OK\r\nCSeq: 3\r\nSession: abc\r\nRTP-Info: url=rtsp://up.example/in/key/stream=0;seq=1;rtptime=2\r\n\r\n\
        RTSP/1.0 302 Moved\r\nCSeq: 4\r\nLocation: rtsp://evil/x\r\n\r\n\
        RTSP/1.0 200 OK\r\nCSeq: 5\r\n\r\n",
        sdp.len()
    );
    [client.as_bytes().to_vec(), upstream.into_bytes()]
}

fn conversations() -> Vec<(String, Vec<u8>)> {
    let conversation = |seed: u16, flags: u8, client: &[u8], upstream: &[u8]| {
        let (seed, length) = (seed.to_le_bytes(), (client.len() as u16).to_le_bytes());
        [&[seed[0], seed[1], length[0], length[1], flags], client, upstream].concat()
    };
    let [client, upstream] = rtsp_texts();
    let publisher = b"ANNOUNCE rtsp://h/live/cam RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: 45\r\n\r\n\
        m=video 0 RTP/AVP 96\r\na=control:streamid=0\r\n\r\n\
        SETUP rtsp://h/live/cam/streamid=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n\r\n\
        RECORD rtsp://h/live/cam RTSP/1.0\r\nCSeq: 3\r\nSession: abc\r\n\r\n";
    let origin = b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\nWWW-Authenticate: Basic realm=\"a\"\r\n\r\n\
        RTSP/1.0 200 OK\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: abc\r\n\r\nRTSP/1.0 200 OK\r\nCSeq: 3\r\n\r\n";
    let mut list: Vec<_> =
        (0..6u8).map(|n| (format!("play-{n}"), conversation(u16::from(n) * 300 + 1, n, &client, &upstream))).collect();
    list.push(("publish".to_owned(), conversation(3, 0, publisher, &upstream)));
    list.push(("publish-trusting".to_owned(), conversation(9, 1, publisher, origin)));
    // What a real server said, to a player of ours.
    let server = rtsp_server();
    list.push(("recorded".to_owned(), conversation(5, 0, &client, &server)));
    list
}

fn names() -> Vec<(String, Vec<u8>)> {
    let words: [&[u8]; 12] = [
        b"live/cam",
        b"a/b/c/d?token=x&vhost=A.example&y=z",
        b"live?token=x/cam?token=y",
        b"live/../secret",
        b"live//cam",
        b"rtmp://user:p@ss@[2001:DB8::1]:1935/live",
        b"live?authmod=adobe&user=ann&challenge=AAA&response=BBB&opaque=CCC&x=1",
        b"live/cam?a=1?authmod=llnw&user=ann&nonce=1&cnonce=2&nc=3",
        b"[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=ann&salt=abc&challenge=def&opaque=ghi",
        b"rtsp://any:S3CRET@h:8554/live/cam?token=abc/streamid=0#x",
        b"rtsp://h/live/a%2f..%2fsecret",
        b"/live/%2e%2E",
    ];
    words.iter().enumerate().map(|(n, word)| (format!("{n:02}"), word.to_vec())).collect()
}

fn configurations() -> Vec<(String, Vec<u8>)> {
    let upstreams = r#"{"upstreams":[{"url":"rtmp://a.example/live","name":"a","weight":2},{"url":"rtsps://user:pw@b.example/{app}/{stream}","name":"b","backup":true}],"upstream_strategy":"consistent_hash","routes":[{"match":{"app":"live","stream":"cam-*"},"upstreams":["a"]}]}"#;
    let secrets = r#"{"upstream":"rtmp://a.example/live","security":{"auth_enabled":true,"auth_tokens":["S3CRET-one",{"token":"S3CRET-two","name":"x","actions":["publish"],"streams":["live/*"]}],"users":[{"user":"ann","password":"S3CRET-three"}],"admin_token":"S3CRET-and-long-enough-to-be-taken","auth_secret":"S3CRET-and-long-enough-to-be-taken-too"}}"#;
    let wrong = r#"{"listen_adr":":1935","upstream":"http://a.example","timeouts":{"connect":"soon"},"security":{"auth_tokens":["S3CRET S3CRET",7,{"token":["S3CRET"]}],"admin_token":"S3CRET"},"workers":-1}"#;
    let list = [
        ("least", r#"{"upstream":"rtmp://origin.example.com/live"}"#),
        ("upstreams", upstreams),
        ("secrets", secrets),
        ("wrong", wrong),
        ("broken", "{\"upstream\": \"rtmp://a\", // why\n \"listeners\": [{"),
        ("none", "[]"),
    ];
    list.into_iter().map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).collect()
}
