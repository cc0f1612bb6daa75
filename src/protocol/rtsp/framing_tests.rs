//! What is found in a stream of bytes, however it is split.

use proptest::prelude::*;

use super::*;

/// What a connection said, whatever the reads it came in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    messages: Vec<Vec<u8>>,
    passed: Vec<u8>,
    frames: u64,
    end: Option<FramingError>,
}

/// Feeds `bytes` in reads that end at `cuts`.
fn hear(bytes: &[u8], cuts: &[usize], channels: &Channels) -> Heard {
    let mut framer = Framer::default();
    let mut heard = Heard::default();
    let mut left = Vec::new();
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        left.extend_from_slice(&bytes[from..to]);
        from = to;
        loop {
            let len = match framer.next(&left, channels) {
                Ok(Piece::Nothing) => break,
                Ok(Piece::Taken { len }) => len,
                Ok(Piece::Message { len, message }) => {
                    heard.messages.push(message.to_bytes());
                    len
                }
                Ok(Piece::Frames { len, whole, settled }) => {
                    assert!(settled <= whole && whole <= len);
                    assert_eq!(framer.missing() > 0, whole < len);
                    heard.passed.extend_from_slice(&left[..len]);
                    len
                }
                Err(e) => {
                    heard.end = Some(e);
                    return heard;
                }
            };
            left.drain(..len);
        }
        assert!(left.len() <= MAX_LEFT, "{} bytes were left over", left.len());
    }
    heard.frames = framer.frames();
    heard
}

fn all() -> Channels {
    Channels { open: ChannelSet::ALL, video: ChannelSet::default() }
}

fn video_on_0() -> Channels {
    let mut channels = all();
    channels.video.set(0, true);
    channels
}

fn rtp(channel: u8, marker: bool, payload: usize) -> Vec<u8> {
    let mut frame = vec![b'$', channel];
    frame.extend_from_slice(&u16::try_from(payload + 2).expect("it fits").to_be_bytes());
    frame.extend([0x80, if marker { 0xe0 } else { 0x60 }]);
    frame.extend(std::iter::repeat_n(b'$', payload));
    frame
}

/// A server's half: an answer, frames, one inside which requests seem to stand, a request of its own, an answer with a body.
fn conversation() -> Vec<u8> {
    let mut bytes = b"\r\nRTSP/1.0 200 OK\r\nCSeq: 1\r\nSession: a\r\n\r\n".to_vec();
    bytes.extend(rtp(0, false, 30));
    bytes.extend(b"$\x01\x00\x18OPTIONS * RTSP/1.0\r\n\r\n$$");
    bytes.extend(b"$\x02\x00\x00");
    bytes.extend(rtp(0, true, 3));
    bytes.extend(b"OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n");
    bytes.extend(b"RTSP/1.0 200 OK\nCSeq: 2\nContent-Length: 9\n\nv=0\r\n$\0\0\x01");
    bytes.extend(rtp(7, false, 1));
    bytes
}

#[test]
fn every_split_in_two_is_heard_as_the_whole() {
    let bytes = conversation();
    for channels in [all(), video_on_0()] {
        let whole = hear(&bytes, &[], &channels);
        assert_eq!((whole.messages.len(), whole.frames, whole.end), (3, 5, None));
        assert!(whole.messages[2].ends_with(b"Content-Length: 9\r\n\r\nv=0\r\n$\0\0\x01"));
        for cut in 0..=bytes.len() {
            assert_eq!(hear(&bytes, &[cut], &channels), whole, "cut at {cut}");
        }
        let bytewise: Vec<usize> = (1..bytes.len()).collect();
        assert_eq!(hear(&bytes, &bytewise, &channels), whole);
    }
}

proptest! {
    #[test]
    fn every_split_is_heard_as_the_whole(mut cuts in proptest::collection::vec(0usize..220, 0..12), which in 0..2) {
        let bytes = conversation();
        cuts.sort_unstable();
        cuts.retain(|&cut| cut <= bytes.len());
        let channels = if which == 0 { all() } else { video_on_0() };
        prop_assert_eq!(hear(&bytes, &cuts, &channels), hear(&bytes, &[], &channels));
    }

    #[test]
    fn nothing_that_a_peer_sends_makes_it_panic_or_keep_more_than_its_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let heard = hear(&bytes, &[], &all());
        prop_assert!(heard.passed.len() <= bytes.len());
    }
}

#[test]
fn a_recorded_server_is_heard_the_same_in_every_split() {
    // What stands behind the HTTP answer of an RTSP-over-HTTP connection is what a server says on a plain one.
    let text = include_str!("../../../tests/golden/ffmpeg-5.1-rtsp-over-http.jsonl");
    let mut bytes = Vec::new();
    for line in text.lines().filter(|line| line.contains("\"S\"")) {
        let hex = line.rsplit('"').nth(1).expect("the bytes come last");
        bytes.extend((0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")));
    }
    let behind = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an HTTP answer") + 4;
    let bytes = &bytes[behind..];
    let whole = hear(bytes, &[], &video_on_0());
    assert_eq!(whole.end, None);
    assert!(whole.messages.len() >= 5 && whole.frames > 50, "{} messages, {} frames", whole.messages.len(), whole.frames);
    for step in [1, 3, 7, 1460] {
        let cuts: Vec<usize> = (step..bytes.len()).step_by(step).collect();
        assert_eq!(hear(bytes, &cuts, &video_on_0()), whole, "reads of {step}");
    }
}

#[test]
fn a_picture_is_settled_by_its_marker_and_everything_else_at_once() {
    let settled = |bytes: &[u8], channels: &Channels| {
        let mut framer = Framer::default();
        let Ok(Piece::Frames { len, settled, .. }) = framer.next(bytes, channels) else { panic!("frames") };
        assert_eq!(len, bytes.len());
        (settled, framer.in_picture())
    };
    let (first, last, audio) = (rtp(0, false, 20), rtp(0, true, 20), rtp(2, false, 10));
    let channels = video_on_0();
    assert_eq!(settled(&first, &channels), (0, true));
    assert_eq!(settled(&[first.clone(), audio.clone()].concat(), &channels), (0, true));
    let whole = [first.clone(), audio.clone(), last].concat();
    assert_eq!(settled(&whole, &channels), (whole.len(), false));
    assert_eq!(settled(&[whole.clone(), first.clone()].concat(), &channels), (whole.len(), true));
    assert_eq!(settled(&audio, &channels), (audio.len(), false));
    assert_eq!(settled(&first, &all()), (first.len(), false), "a channel that is not known as video");
    let mut framer = Framer::default();
    framer.distrust_markers();
    let piece = framer.next(&first, &channels);
    assert_eq!(piece, Ok(Piece::Frames { len: first.len(), whole: first.len(), settled: first.len() }));
}

#[test]
fn what_a_frame_lacks_is_known_and_never_kept() {
    let mut framer = Framer::default();
    assert_eq!(framer.next(b"$\0\xff\xff\x80", &all()), Ok(Piece::Frames { len: 5, whole: 0, settled: 0 }));
    assert_eq!(framer.missing(), 65_534);
    assert_eq!(framer.next(&[b'x'; 65_534], &all()), Ok(Piece::Frames { len: 65_534, whole: 65_534, settled: 65_534 }));
    assert!(framer.at_boundary());
}

#[test]
fn hostile_26_a_line_without_an_end_is_not_waited_for() {
    let end = |bytes: &[u8]| hear(bytes, &[], &all()).end;
    let line = [b"OPTIONS ", &vec![b'a'; 1 << 20][..]].concat();
    assert_eq!(end(&line), Some(MessageError::LineTooLong.into()));
    let flood = [b"OPTIONS * RTSP/1.0\r\n", &b"A: b\r\n".repeat(1000)[..]].concat();
    assert_eq!(end(&flood), Some(MessageError::TooManyHeaders.into()));
    let line = [b"A: ", &[b'b'; 1000][..], b"\r\n"].concat();
    assert_eq!(end(&[b"OPTIONS * RTSP/1.0\r\n", &line.repeat(20)[..]].concat()), Some(MessageError::HeadTooLong.into()));
    assert_eq!(end(b"\x16\x03\x01"), Some(MessageError::StartLine.into()), "at its first byte");
    assert_eq!(end(b"get / HTTP/1.1\r\n"), Some(MessageError::StartLine.into()));
}

#[test]
fn hostile_27_a_body_is_kept_as_it_comes_and_never_above_its_bound() {
    let head = |length: &str| format!("ANNOUNCE rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    assert_eq!(hear(&head("131073"), &[], &all()).end, Some(MessageError::BodyTooLong.into()));
    let mut framer = Framer::default();
    let bytes = head("131072");
    assert_eq!(framer.next(&bytes, &all()), Ok(Piece::Taken { len: bytes.len() }));
    let State::Body { message, .. } = &framer.state else { panic!("in the body") };
    assert_eq!(message.body.capacity(), 0, "nothing is allocated by what was announced");
    let Ok(Piece::Message { message, .. }) = framer.next(&[b'x'; 131_072], &all()) else { panic!("a message") };
    assert_eq!(message.body.len(), MAX_BODY_HERE);
}

const MAX_BODY_HERE: usize = 131_072;

#[test]
fn hostile_28_a_smuggled_request_is_one_message_or_an_error() {
    let heard = |bytes: &[u8]| hear(bytes, &[], &all());
    let inside = heard(b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 24\r\n\r\nOPTIONS * RTSP/1.0\r\n\r\n\r\n");
    assert_eq!((inside.messages.len(), inside.end), (1, None));
    assert_eq!(heard(b"SETUP a RTSP/1.0\r\nSession: a\rX: b\r\n\r\n").end, Some(MessageError::Header.into()));
    assert_eq!(heard(b"SETUP a RTSP/1.0\r\nSession: a\r\n X: b\r\n\r\n").end, Some(MessageError::Header.into()));
    let both = heard(b"SETUP a RTSP/1.0\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(both.end, Some(MessageError::ContentLength.into()));
}

#[test]
fn hostile_29_a_frame_before_setup_or_on_a_channel_of_nobody_is_refused() {
    let mut channels = Channels::default();
    let end = |channels: &Channels, bytes: &[u8]| hear(bytes, &[], channels).end;
    assert_eq!(end(&channels, b"$\0"), Some(FramingError::Channel), "before SETUP");
    channels.open.set(0, true);
    channels.open.set(1, true);
    assert_eq!(end(&channels, &rtp(1, false, 9)), None);
    assert_eq!(end(&channels, &rtp(2, false, 9)), Some(FramingError::Channel));
    assert_eq!(end(&channels, &rtp(65, false, 9)), Some(FramingError::Channel));
}
