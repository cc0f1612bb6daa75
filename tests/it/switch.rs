//! From the command phase to passing bytes: what each side must hear, whatever headers, chunk sizes and stream ids the other
//! one uses.

use serde_json::json;

use crate::amf::{self, Amf, n, obj, s};
use crate::client::Client;
use crate::origin::{At, Deed, Line, Origin, Script, Style};
use crate::parser::{Message, kind, parse};
use crate::relay::Relay;
use crate::speech::{Say, body, set_chunk_size, user_control};

const MEDIA: &[u8] = &[kind::AUDIO, kind::VIDEO, kind::DATA];

/// What an encoder may say that uses all it may: short headers, type 3 starts, messages inside messages, a chunk size that changes
/// inside one, high chunk stream ids, timestamps from `start` on. Begins and ends with the chunk size `size`.
fn lively(size: usize, start: u32, stream: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let long = |number| body(number, 3 * size.min(700) + 5);
    let resize = |to: usize| (to as u32).to_be_bytes();
    out.extend(Say::full(4, 0, kind::DATA, stream, &body(0, 90)).bytes(size));
    out.extend(Say::full(6, start, kind::VIDEO, stream, &long(1)).bytes(size));
    out.extend(Say::full(4, start, kind::AUDIO, stream, &long(2)).bytes(size));
    // The delta, then the same again without a word about it; once more with another length.
    out.extend(Say::full(6, 40, kind::VIDEO, stream, &long(3)).fmt(1).bytes(size));
    out.extend(Say::full(6, 40, kind::VIDEO, stream, &long(4)).fmt(3).bytes(size));
    out.extend(Say::full(6, 41, kind::VIDEO, stream, &long(5)).fmt(2).bytes(size));
    out.extend(Say::full(4, 23, kind::AUDIO, stream, &body(6, 7)).fmt(1).bytes(size));
    out.extend(Say::full(4, 23, kind::AUDIO, stream, &body(7, 7)).fmt(3).bytes(size));
    // A delta that needs the extended field, repeated by a type 3 start.
    out.extend(Say::full(6, 0x0100_0000, kind::VIDEO, stream, &long(8)).fmt(1).bytes(size));
    out.extend(Say::full(6, 0x0100_0000, kind::VIDEO, stream, &long(9)).fmt(3).bytes(size));
    // Audio, and another chunk size, between the chunks of a picture.
    let (picture, twice) = (body(10, 5 * size + 1), size * 2);
    let mut chunks = Say::full(6, 1, kind::VIDEO, stream, &picture).fmt(1).chunks(size);
    out.extend(chunks.remove(0));
    out.extend(Say::full(70, 5, kind::AUDIO, stream, &body(11, size.min(9))).bytes(size));
    out.extend(chunks.remove(0));
    out.extend(Say::full(2, 0, kind::SET_CHUNK_SIZE, 0, &resize(twice)).bytes(size));
    for piece in picture[2 * size..].chunks(twice) {
        out.push(0xC6);
        out.extend(piece);
    }
    out.extend(Say::full(400, 6, kind::VIDEO, stream, &body(12, 1000)).bytes(twice));
    // Back again, with a type 3 header.
    out.extend(Say::full(2, 0, kind::SET_CHUNK_SIZE, 0, &resize(size)).fmt(3).bytes(twice));
    // Nothing at all is a message too.
    out.extend(Say::full(4, 9, kind::AUDIO, stream, &[]).bytes(size));
    out
}

/// Chunk sizes of an encoder.
const SIZES: [usize; 4] = [1, 128, 4096, 60_000];

fn media_of(messages: &[Message], stream: u32) -> Vec<Message> {
    let mut media: Vec<_> = messages.iter().filter(|m| MEDIA.contains(&m.kind)).cloned().collect();
    media.iter_mut().for_each(|m| m.stream = stream);
    media
}

fn scripts() -> Vec<Script> {
    let script = |style, stream_id, chunk_size| Script { style, stream_id, chunk_size, ..Script::default() };
    vec![
        script(Style::Nginx, 1, 4096),
        script(Style::Nginx, 5, 60_000),
        script(Style::Gortmplib, 1, 65_536),
        script(Style::Gortmplib, 5, 128),
    ]
}

#[test]
fn the_lively_stream_is_what_it_claims_to_be() {
    for size in SIZES {
        let messages = parse(&[set_chunk_size(size as u32), lively(size, 40, 1)].concat());
        assert_eq!(media_of(&messages, 1).len(), 14, "chunk size {size}");
        assert!(messages.iter().any(|m| m.fmt == 3 && m.kind == kind::VIDEO && m.time > 0x0100_0000));
        let inside = messages.windows(2).any(|pair| pair[0].csid == 70 && pair[1].kind == kind::SET_CHUNK_SIZE);
        assert!(inside, "the audio and the chunk size end before the picture around them");
    }
}

#[test]
fn a_publisher_of_any_chunk_size_and_header_style_arrives_as_it_spoke_at_any_kind_of_origin() {
    for script in scripts() {
        let origin = Origin::new(script.clone());
        let relay = Relay::to(&origin.url(""));
        for (number, size) in SIZES.into_iter().enumerate() {
            for start in [0, 16_777_190, 16_777_300] {
                let context = format!("{script:?}, chunks of {size}, from {start}");
                let stream = format!("cam{number}-{start}");
                let mut client = Client::hello(&relay);
                // As OBS does: before connect.
                client.set_chunk_size(size as u32);
                client.connect("live").create_stream().publish(&stream);
                client.started();
                let said = lively(size, start, 1);
                said.chunks(977).for_each(|piece| client.write(piece));
                let line = origin.line_of(&stream);
                let want = media_of(&parse(&[set_chunk_size(size as u32), said].concat()), script.stream_id);
                let got = line.ear.wait_count(MEDIA, want.len());
                assert_eq!(got, want, "{context}");
                assert_eq!(line.ear.record().wrong, None, "{context}");
                assert_eq!(client.ear.record().wrong, None, "{context}");
            }
        }
    }
}

#[test]
fn a_player_hears_any_kind_of_origin_as_it_spoke() {
    for script in scripts() {
        let origin = Origin::new(script.clone());
        let relay = Relay::to(&origin.url(""));
        for (number, start) in [0, 16_777_190, 16_777_300].into_iter().enumerate() {
            let stream = format!("cam{number}");
            let client = Client::playing(&relay, "live", &stream);
            let said = lively(script.chunk_size as usize, start, script.stream_id);
            let line = origin.line_of(&stream);
            said.chunks(977).for_each(|piece| line.write(piece));
            let want = media_of(&parse(&[set_chunk_size(script.chunk_size), said].concat()), 1);
            let got = client.ear.wait_count(MEDIA, want.len());
            assert_eq!(got, want, "{script:?}, from {start}");
            let record = client.ear.record();
            assert_eq!(record.wrong, None, "{script:?}");
            let size = script.chunk_size.to_be_bytes();
            let told = record.messages.iter().position(|m| m.kind == kind::SET_CHUNK_SIZE && m.body == size);
            let first = record.messages.iter().position(|m| MEDIA.contains(&m.kind));
            assert!(told.is_some() && told < first, "{script:?}: the chunk size comes before the first byte cut by it");
        }
    }
}

#[test]
fn a_client_that_counts_streams_otherwise_than_its_origin_is_understood_in_both_directions() {
    let origin = Origin::new(Script { stream_id: 5, ..Script::default() });
    let relay = Relay::to(&origin.url(""));
    let mut client = Client::hello(&relay);
    // As librtmp does before play, and again behind it with a header of one byte.
    let buffer = |stream| [&user_control(3, stream)[..], &3000_u32.to_be_bytes()].concat();
    client.connect("live").create_stream();
    client.say(2, 0, kind::USER_CONTROL, 0, &buffer(1));
    client.play("cam");
    client.write(&Say::full(2, 0, kind::USER_CONTROL, 0, &buffer(1)).fmt(3).bytes(128));
    client.started();
    client.write(&Say::full(2, 0, kind::USER_CONTROL, 0, &buffer(1)).fmt(3).bytes(128));
    client.command(3, 0, "deleteStream", &[Amf::Null, n(1)]);
    let line = origin.line_of("cam");
    let delete = line.ear.wait_command("deleteStream").command().expect("a command");
    assert_eq!(delete.2, [Amf::Null, n(5)]);
    let heard = line.ear.record().messages.clone();
    let controls: Vec<_> = heard.iter().filter(|m| m.kind == kind::USER_CONTROL).map(|m| m.body.clone()).collect();
    assert_eq!(controls, vec![buffer(5); 3]);
    assert_eq!(heard.iter().find(|m| m.is("play")).map(|m| m.stream), Some(5));
    // What the origin says of stream 5 is about the client's 1; stream 0 is nobody's.
    line.write(&Say::full(2, 0, kind::USER_CONTROL, 0, &user_control(1, 5)).bytes(128));
    line.write(&Say::full(2, 0, kind::USER_CONTROL, 0, &user_control(6, 5)).bytes(128));
    line.say(7, 10, kind::VIDEO, &body(1, 99));
    client.ear.wait_count(&[kind::VIDEO], 1);
    let heard = client.ear.record().messages.clone();
    assert!(heard.iter().all(|m| m.stream < 2), "{heard:?}");
    let controls: Vec<_> = heard.iter().filter(|m| m.kind == kind::USER_CONTROL).map(|m| m.body.clone()).collect();
    // A ping is no stream's, and its number stays.
    assert_eq!(controls, [user_control(0, 1), user_control(1, 1), user_control(6, 5)]);
}

#[test]
fn a_header_of_one_byte_behind_the_switch_means_to_the_origin_what_it_meant_to_the_client() {
    for stream_id in [1, 5] {
        let origin = Origin::new(Script { stream_id, ..Script::default() });
        let relay = Relay::with(&origin.url(""), json!({ "security": { "auth_enabled": true, "auth_tokens": ["abc"] } }));
        let mut client = Client::hello(&relay);
        let buffer = [&user_control(3, 1)[..], &3000_u32.to_be_bytes()].concat();
        let control = Say::full(2, 0, kind::USER_CONTROL, 0, &buffer);
        client.connect("live").create_stream();
        client.write(&[control.bytes(128), Say { time: 7, ..control }.fmt(1).bytes(128)].concat());
        let play = amf::command("play", 3.0, &[Amf::Null, s("cam?token=abc"), n(-2000)]);
        client.say(8, 0, kind::COMMAND, 1, &play);
        client.started();
        // The origin saw the second control message with a full header: by itself it would take the next for 7 later than that.
        client.write(&[control.fmt(3).bytes(128), control.fmt(3).bytes(128)].concat());
        // It saw a shorter play, too; this is as long as the client's was.
        let next = amf::command("seek", 0.0, &[Amf::Null, s("a name")]);
        let next = [&next[..], &vec![5; play.len() - next.len()]].concat();
        client.write(&Say::full(8, 0, kind::COMMAND, 1, &next).fmt(3).bytes(128));
        let line = origin.line_of("cam");
        let heard = line.ear.wait_command("seek");
        assert_eq!((&heard.body, heard.stream), (&next, stream_id));
        let controls = line.ear.wait_count(&[kind::USER_CONTROL], 4);
        assert_eq!(controls.iter().map(|m| m.time).collect::<Vec<_>>(), [0, 7, 14, 21], "stream {stream_id}");
        let want = [&user_control(3, stream_id)[..], &3000_u32.to_be_bytes()].concat();
        assert!(controls.iter().all(|m| m.body == want));
    }
}

#[test]
fn publish_on_the_second_of_two_streams_reaches_the_one_that_the_origin_gives() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let mut client = Client::hello(&relay);
    client.connect("live").create_stream().create_stream();
    client.command(8, 2, "publish", &[Amf::Null, s("cam"), s("live")]);
    client.started();
    let said: Vec<_> = (0..5).map(|i| client.say(6, i * 40, kind::VIDEO, 2, &body(i, 300))).collect();
    let line = origin.line_of("cam");
    let got = line.ear.wait_count(&[kind::VIDEO], 5);
    assert_eq!(got, media_of(&said, 1));
    let heard = line.ear.record().messages.clone();
    assert_eq!(heard.iter().filter(|m| m.is("createStream")).count(), 1, "the stream that is not used is not asked for");
    let status = client.ear.wait_command("onStatus");
    assert_eq!(status.stream, 2, "the client hears of the stream it published on");
}

/// A connect with everything that Enhanced RTMP and the wild put into it.
fn rich_connect(app: &str, tc_url: &str, flash_url: &str) -> Vec<Amf> {
    let object = obj(&[
        ("app", s(app)),
        ("fourCcList", Amf::List(vec![s("av01"), s("hvc1"), s("Opus")])),
        ("videoFourCcInfoMap", obj(&[("*", n(4)), ("hvc1", n(7))])),
        ("audioFourCcInfoMap", Amf::Ecma(vec![("Opus".into(), n(6))])),
        ("capsEx", n(7)),
        ("type", s("nonprivate")),
        ("swfUrl", s(flash_url)),
        ("tcUrl", s(tc_url)),
        ("pageUrl", Amf::Null),
        ("fpad", Amf::Bool(false)),
        ("nothing", Amf::Undefined),
        ("audioCodecs", n(4071)),
        ("objectEncoding", n(0)),
    ]);
    vec![object, s("an argument of its own"), obj(&[("more", n(2))])]
}

#[test]
fn every_field_of_connect_reaches_the_origin_unchanged_and_in_order() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url("/studio"));
    let mut client = Client::hello(&relay);
    client.command(3, 0, "connect", &rich_connect("live", "rtmp://relay.test/live", "rtmp://relay.test/live/player.swf"));
    client.create_stream().publish("cam");
    client.started();
    let connect = origin.line_of("cam").ear.wait_command("connect");
    let tc_url = origin.url("/studio");
    let want = rich_connect("studio", &tc_url, &format!("{tc_url}/player.swf"));
    assert_eq!(connect.command().map(|(.., args)| args), Some(want.clone()));
    assert_eq!(connect.body, amf::command("connect", 1.0, &want), "byte for byte");
    // The relay offers of Enhanced RTMP what it can do itself: Reconnect.
    let result = client.ear.wait_command("_result").command().expect("a command");
    assert_eq!(result.2[0].get("capsEx"), Some(&n(1)));
    assert_eq!(result.2[0].get("fourCcList"), None);
}

#[test]
fn urls_that_do_not_begin_with_the_tc_url_are_the_clients_own() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let mut client = Client::hello(&relay);
    client.command(3, 0, "connect", &rich_connect("live", "rtmp://relay.test/live", "https://cdn.test/player.swf"));
    client.create_stream().publish("cam");
    let connect = origin.line_of("cam").ear.wait_command("connect");
    let want = rich_connect("live", &origin.url("/live"), "https://cdn.test/player.swf");
    assert_eq!(connect.command().map(|(.., args)| args), Some(want));
}

#[test]
fn commands_in_amf3_messages_are_understood_and_stay_what_they_are() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url("/live"));
    let mut client = Client::hello(&relay);
    let mut say = |csid, stream, name, transaction, args: &[Amf]| {
        let payload = [&[0][..], &amf::command(name, transaction, args)].concat();
        client.say(csid, 0, kind::COMMAND_AMF3, stream, &payload);
    };
    say(3, 0, "connect", 1.0, &[obj(&[("app", s("other")), ("objectEncoding", n(3))])]);
    say(3, 0, "createStream", 2.0, &[Amf::Null]);
    say(8, 1, "publish", 3.0, &[Amf::Null, s("cam"), s("live")]);
    client.started();
    let line = origin.line_of("cam");
    let heard = line.ear.record().messages.clone();
    let commands: Vec<_> = heard.iter().filter_map(|m| Some((m.kind, m.command()?.0))).collect();
    let want = ["connect", "createStream", "publish"].map(|name| (kind::COMMAND_AMF3, name.to_owned()));
    assert_eq!(commands, want);
    let connect = heard[0].command().expect("connect");
    assert_eq!(connect.2[0].get("app"), Some(&s("live")));
    let said = client.say(6, 0, kind::VIDEO, 1, &body(1, 500));
    assert_eq!(line.ear.wait_count(&[kind::VIDEO], 1), [said]);
}

/// What was said before the origin's word reaches it behind that word; the client hears nothing before.
fn waits_for_the_origin(ask: fn(&Relay) -> Client, begin: &str) {
    let origin = Origin::new(Script::doing(At::Request, Deed::Stall));
    let relay = Relay::to(&origin.url(""));
    let mut client = ask(&relay);
    // An encoder that does not wait either: more than the relay keeps meanwhile.
    client.set_chunk_size(4096);
    let said: Vec<_> = (0..40).map(|i| client.say(6, i * 40, kind::VIDEO, 1, &body(i, 4000))).collect();
    let line = origin.line_of("cam");
    assert_eq!(client.ear.record().told(), None, "nobody has begun anything");
    assert_eq!(line.ear.record().messages.iter().filter(|m| m.kind == kind::VIDEO).count(), 0);
    line.start();
    let (code, _) = client.told();
    assert_eq!(code, begin);
    assert_eq!(line.ear.wait_count(&[kind::VIDEO], 40), said);
}

#[test]
fn a_publisher_hears_its_start_only_when_the_origin_says_so_and_loses_nothing_meanwhile() {
    waits_for_the_origin(|relay| Client::asking_to_publish(relay, "live", "cam"), "NetStream.Publish.Start");
}

#[test]
fn a_player_that_waits_for_its_stream_is_passed_on_without_a_start_and_hears_it_when_it_comes() {
    // nginx-rtmp says nothing to a player while nobody publishes.
    let origin = Origin::new(Script::doing(At::Request, Deed::Stall));
    let relay = Relay::to(&origin.url(""));
    let client = Client::asking_to_play(&relay, "live", "cam");
    let line = origin.line_of("cam");
    assert_eq!(client.ear.record().told(), None);
    crate::wait::wait_until("the session relays", || relay.row(client.address())["state"] == "relaying");
    assert_eq!(client.ear.record().told(), None, "the relay has no start of its own");
    line.start();
    assert_eq!(client.told().0, "NetStream.Play.Start");
    let said = line.say(7, 0, kind::VIDEO, &body(1, 9000));
    assert_eq!(client.ear.wait_count(&[kind::VIDEO], 1), [said]);
}

#[test]
fn chunk_sizes_beyond_what_origins_take_are_passed_on_as_the_largest_they_do() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let mut client = Client::publishing(&relay, "live", "cam");
    let line = origin.line_of("cam");
    // The first bit is to be ignored.
    client.set_chunk_size(0xFFFF_FFFF);
    client.chunk_size = 1 << 24;
    let said = client.say(6, 0, kind::VIDEO, 1, &body(1, 100_000));
    assert_eq!(line.ear.wait_count(&[kind::VIDEO], 1), [said]);
    let size = line.ear.wait_message("Set Chunk Size is heard", |m| m.kind == kind::SET_CHUNK_SIZE);
    assert_eq!(size.body, 10_485_760_u32.to_be_bytes());
    // A message in one chunk that is larger than the origin was told of cannot be passed on.
    let header = Say::full(6, 0, kind::VIDEO, 1, &vec![0; 10_485_761]).header();
    client.write(&header);
    relay.wait_ended("client", "message_too_long");
}

/// onStatus on message stream 0, as a server sends it to the connection.
fn reconnect_request(line: &Line) {
    let info = obj(&[("level", s("status")), ("code", s("NetConnection.Connect.ReconnectRequest")), ("tcUrl", s("rtmp://x/"))]);
    let payload = amf::command("onStatus", 0.0, &[Amf::Null, info]);
    line.write(&Say::full(3, 0, kind::COMMAND, 0, &payload).bytes(4096));
}

#[test]
fn an_origin_cannot_send_a_client_past_the_relay() {
    let origin = Origin::willing();
    let relay = Relay::to(&origin.url(""));
    let client = Client::playing(&relay, "live", "cam");
    let line = origin.line_of("cam");
    line.say(7, 0, kind::VIDEO, &body(1, 300));
    reconnect_request(&line);
    // Chunk stream 3 goes on behind the message that was left out, with a header that leans on it.
    let done = amf::command("onBWDone", 0.0, &[Amf::Null]);
    line.write(&Say::full(3, 0, kind::COMMAND, 0, &done).fmt(1).bytes(4096));
    line.write(&Say::full(3, 0, kind::COMMAND, 0, &done).fmt(3).bytes(4096));
    line.say(7, 40, kind::VIDEO, &body(2, 300));
    client.ear.wait_count(&[kind::VIDEO], 2);
    let record = client.ear.record();
    assert!(record.messages.iter().all(|m| m.told().is_none_or(|(code, _)| !code.contains("Reconnect"))));
    assert_eq!(record.messages.iter().filter(|m| m.is("onBWDone")).count(), 2);
    assert_eq!(record.wrong, None);
}
