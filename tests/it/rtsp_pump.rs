//! What flows between RTSP messages: a picture leaves in one send, nothing is lost, and no one waits for a marker that never comes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::relay::Relay;
use crate::rtsp::{playing, publishing};
use crate::rtsp_peer::{Door, Heard, frame, rtp};
use crate::wait::{pace, wait_for};

#[test]
fn the_packets_of_a_picture_leave_together() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "hold": { "max": "500ms" } }));
    let (mut publisher, mut origin) = publishing(&relay, &door);
    let relaying = |what: &str, messages: u64| {
        wait_for(what, || Some(relay.row(publisher.address())).filter(|row| row["to_upstream"]["messages"] == json!(messages)))
    };
    let before = relaying("the session relays", 0);
    const PICTURES: u16 = 20;
    const PACKETS: u16 = 7;
    let mut next = Instant::now();
    for picture in 0..PICTURES {
        for packet in 0..PACKETS {
            pace(next);
            let number = picture * PACKETS + packet;
            publisher.write(frame(0, &rtp(packet + 1 == PACKETS, number, 1400)));
            next += Duration::from_millis(1);
        }
    }
    for number in 0..PICTURES * PACKETS {
        assert_eq!(origin.hear(), Heard::Frame(0, rtp(number % PACKETS + 1 == PACKETS, number, 1400)));
    }
    let after = wait_for("every packet is counted", || {
        let messages = u64::from(PICTURES * PACKETS);
        Some(relay.row(publisher.address())).filter(|row| row["to_upstream"]["messages"] == json!(messages))
    });
    let writes = after["to_upstream"]["writes"].as_u64().unwrap_or(0) - before["to_upstream"]["writes"].as_u64().unwrap_or(0);
    // One a picture; where this machine was busy, the rest of one and the start of the next come in one read.
    assert!(writes <= u64::from(PICTURES) * 2, "{writes} writes for {PICTURES} pictures of {PACKETS} packets");
}

#[test]
fn half_a_picture_and_half_a_frame_leave_at_the_hold_deadline_and_audio_at_once() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "hold": { "max": "300ms" } }));
    let (mut player, mut origin) = playing(&relay, &door);
    origin.frame(0, &rtp(false, 1, 100));
    let held = Instant::now();
    assert_eq!(player.hear(), Heard::Frame(0, rtp(false, 1, 100)));
    assert!(held.elapsed() >= Duration::from_millis(200), "it was held");
    let audio = frame(1, b"what has no marker");
    origin.write(&audio);
    assert_eq!(player.hear(), Heard::Frame(1, b"what has no marker".to_vec()));
    // In two halves, the second after the deadline of the first.
    let packet = frame(0, &rtp(true, 2, 8000));
    origin.write(&packet[..4000]);
    wait_for("the first half has left", || {
        let row = relay.row(player.address());
        row["to_client"]["bytes"].as_u64().filter(|bytes| *bytes >= 4000)
    });
    origin.write(&packet[4000..]);
    assert_eq!(player.hear(), Heard::Frame(0, rtp(true, 2, 8000)));
}

#[test]
fn a_sender_that_marks_no_ends_is_soon_no_longer_waited_for() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "hold": { "max": "1s" } }));
    let (mut player, mut origin) = playing(&relay, &door);
    let began = Instant::now();
    for number in 0..20 {
        origin.frame(0, &rtp(false, number, 100));
        assert_eq!(player.hear(), Heard::Frame(0, rtp(false, number, 100)));
    }
    assert!(began.elapsed() < Duration::from_secs(12), "three are waited for, not twenty");
}

#[test]
fn every_split_of_frames_and_messages_passes_as_it_was_said() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "write_buffer": 4096, "hold": { "max": "5ms" } }));
    let (mut player, mut origin) = playing(&relay, &door);
    let mut said = Vec::new();
    let mut want = Vec::new();
    for number in 0..40_u16 {
        let payload = rtp(number % 3 == 0, number, usize::from(number) * 211);
        said.extend(frame((number % 2) as u8, &payload));
        want.push(Heard::Frame((number % 2) as u8, payload));
        if number % 7 == 0 {
            said.extend(format!("OPTIONS * RTSP/1.0\r\nCSeq: {number}\r\n\r\n").bytes());
        }
        if number % 11 == 0 {
            said.extend(b"\r\n");
        }
    }
    for piece in [1000, 7, 1461, 4096, 65_536] {
        for bytes in said.chunks(piece) {
            origin.write(bytes);
        }
        let mut asked = 0;
        let mut heard = Vec::new();
        while heard.len() < want.len() || asked < 6 {
            match player.hear() {
                Heard::Message(request) => {
                    player.answer(&request, "200 OK", "");
                    asked += 1;
                }
                frame @ Heard::Frame(..) => heard.push(frame),
                end => panic!("{end:?}"),
            }
        }
        assert!(heard == want, "in pieces of {piece}");
        assert!((0..6).all(|_| origin.message().status() == "200 OK"));
    }
}

#[test]
fn a_player_that_reads_nothing_costs_one_buffer_and_ends() {
    let door = Door::open();
    let relay = Relay::with(&door.url(""), json!({ "write_timeout": "1s" }));
    let (player, mut origin) = playing(&relay, &door);
    origin.socket.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let packet = frame(0, &rtp(true, 1, 60_000));
    wait_for("the relay no longer reads", || {
        use std::io::Write;
        origin.socket.write_all(&packet).err()
    });
    assert!(relay.status()["buffers"]["lent"].as_u64() <= Some(2));
    relay.wait_ended("client", "client_not_reading");
    drop((player, origin));
    relay.wait_empty();
}
