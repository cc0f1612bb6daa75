//! A client of the campaign: publishes or plays for a moment, in its own bytes, over RTMP or RTSP.

use std::time::{Duration, Instant};

use super::mouth::{Mouth, Over, Phase};
use super::plan::{Act, Role};
use crate::amf::{self, Amf, n, obj, s};
use crate::client::hello;
use crate::parser::kind;
use crate::rtsp::{SDP, TCP};
use crate::rtsp_peer::{frame, rtp};
use crate::speech::{Say, body, set_chunk_size};
use crate::wait::pace;

/// Messages of a publisher, and the time between them.
const MESSAGES: u32 = 150;
const EVERY: Duration = Duration::from_millis(2);
/// How long a player stays.
const PLAYED: Duration = Duration::from_millis(500);

/// A frame of a publisher or an origin: every tenth is a key frame.
pub(super) fn picture(number: u32, length: usize) -> Vec<u8> {
    let mut body = body(number, length);
    let first: &[u8] = if number.is_multiple_of(10) { b"\x17\x01\0\0\0" } else { b"\x27\x01\0\0\0" };
    body.splice(..0, first.iter().copied());
    body
}

/// Plays the part of `act` over RTMP.
pub(super) fn rtmp(mouth: &mut Mouth, act: &Act, stream: &str) -> Result<(), Over> {
    let command = |csid, stream, name: &str, number, args: &[Amf]| {
        Say::full(csid, 0, kind::COMMAND, stream, &amf::command(name, number, args)).bytes(128)
    };
    let app = act.app();
    let hello = hello();
    mouth.say(Phase::Hello, &hello[..1537])?;
    mouth.say(Phase::Echo, &hello[1537..])?;
    let object = obj(&[("app", s(&app)), ("tcUrl", s(&format!("rtmp://relay.test/{app}")))]);
    mouth.say(Phase::Connect, &command(3, 0, "connect", 1.0, &[object]))?;
    mouth.say(Phase::Create, &command(3, 0, "createStream", 2.0, &[Amf::Null]))?;
    let (name, last) = if act.role == Role::Publish { ("publish", s("live")) } else { ("play", n(-2000)) };
    mouth.say(Phase::Request, &command(8, 1, name, 3.0, &[Amf::Null, s(stream), last]))?;
    hear_times(mouth, b".Start", 1)?;
    if act.role == Role::Publish {
        mouth.say(Phase::Media, &set_chunk_size(4096))?;
        let mut next = Instant::now();
        for number in 0..MESSAGES {
            let length = 100 + number as usize * 797 % 9000;
            mouth.say(Phase::Media, &Say::full(6, number * 2, kind::VIDEO, 1, &picture(number, length)).bytes(4096))?;
            next += EVERY;
            pace(next);
        }
        mouth.say(Phase::Ending, &command(3, 0, "FCUnpublish", 4.0, &[Amf::Null, s(stream)]))?;
    } else {
        mouth.hurry();
        let until = Instant::now() + PLAYED;
        while Instant::now() < until {
            mouth.say(Phase::Media, &Say::full(2, 0, kind::ACK, 0, &[0, 0, 1, 0]).bytes(128))?;
            mouth.listen_for(EVERY)?;
        }
    }
    mouth.say(Phase::Ending, &command(3, 0, "deleteStream", 5.0, &[Amf::Null, n(1)]))?;
    mouth.finish();
    mouth.listen();
    Ok(())
}

/// The same over RTSP.
pub(super) fn rtsp(mouth: &mut Mouth, act: &Act, stream: &str) -> Result<(), Over> {
    let url = format!("rtsp://relay.test/{}/{stream}", act.app());
    let publish = act.role == Role::Publish;
    mouth.say(Phase::Hello, format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n").as_bytes())?;
    hear_times(mouth, b"RTSP/1.0 200", 1)?;
    if publish {
        let sdp = SDP.replace("stream=", "streamid=");
        let request = format!("ANNOUNCE {url} RTSP/1.0\r\nCSeq: 2\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len());
        mouth.say(Phase::Request, request.as_bytes())?;
    } else {
        mouth.say(Phase::Request, format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 2\r\n\r\n").as_bytes())?;
    }
    hear_times(mouth, b"RTSP/1.0 200", 1)?;
    let (track, mode) = if publish { ("streamid=0", ";mode=record") } else { ("trackID=0", "") };
    mouth.say(Phase::Create, format!("SETUP {url}/{track} RTSP/1.0\r\nCSeq: 3\r\n{TCP}{mode}\r\n\r\n").as_bytes())?;
    hear_times(mouth, b"RTSP/1.0 200", 1)?;
    let name = if publish { "RECORD" } else { "PLAY" };
    mouth.say(Phase::Begin, format!("{name} {url} RTSP/1.0\r\nCSeq: 4\r\nSession: s1\r\n\r\n").as_bytes())?;
    hear_times(mouth, b"RTSP/1.0 200", 1)?;
    if publish {
        let mut next = Instant::now();
        for number in 0..MESSAGES {
            let packet = rtp(number % 5 == 4, number as u16, 100 + number as usize * 797 % 1300);
            mouth.say(Phase::Media, &frame(0, &packet))?;
            next += EVERY;
            pace(next);
        }
    } else {
        mouth.hurry();
        let until = Instant::now() + PLAYED;
        while Instant::now() < until {
            mouth.say(Phase::Media, &frame(1, b"a receiver's report"))?;
            mouth.listen_for(EVERY)?;
        }
    }
    mouth.say(Phase::Ending, format!("TEARDOWN {url} RTSP/1.0\r\nCSeq: 5\r\nSession: s1\r\n\r\n").as_bytes())?;
    mouth.finish();
    mouth.listen();
    Ok(())
}

/// Hears until `word` has come so many times.
pub(super) fn hear_times(mouth: &mut Mouth, word: &[u8], times: usize) -> Result<(), Over> {
    let (mut heard, mut piece) = (Vec::new(), [0; 16_384]);
    while heard.windows(word.len()).filter(|w| w == &word).count() < times {
        let count = mouth.hear(&mut piece)?;
        heard.extend_from_slice(&piece[..count]);
    }
    Ok(())
}
