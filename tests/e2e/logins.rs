//! Do the user name and password of real encoders let them in? Each knows Adobe authentication in a way of its own.
//!
//! Not here: librtmp's. Where it is built with GnuTLS, as in Debian, it overruns a buffer of its own while it answers any server's challenge
//! (base64 without a NUL, printed as a string). `tests/it/logins.rs` answers as it does elsewhere.

use serde_json::json;

use crate::flv;
use crate::peers::{Nginx, NginxOptions, Player, Publisher, Receiver, Sender, Take};
use crate::relay::Relay;
use crate::route::direct;
use crate::tap::Tap;
use crate::wait::SOON;

const PASSWORD: &str = "Xq7-tOkEn_93zKw";

/// Asks everybody who connects without a token.
fn asking(origin: &str) -> Relay {
    let security = json!({
        "auth_enabled": true,
        "auth_tokens": [{ "token": PASSWORD, "name": "everybody" }],
        "users": [{ "user": "ann", "password": "ann-has-another", "streams": ["live/ann"] }],
        "adobe_auth": "all",
        "upstream_allowed_networks": ["127.0.0.0/8"],
    });
    // A login counts once: with fewer passes the second step would be refused.
    let rate = json!({ "enabled": true, "requests_per_sec": 0.01, "burst": 1 });
    Relay::start(origin, json!({ "security": security, "rate_limit": rate, "connection_limit": { "max_per_ip": 1 } }))
}

/// Where `sender` publishes `stream`, as its users write it.
fn url(sender: Sender, relay: &str, stream: &str, user: &str, password: &str) -> String {
    match sender {
        Sender::Ffmpeg => format!("rtmp://{user}:{password}@{relay}/live/{stream}"),
        Sender::Rtmp2Sink => format!("rtmp://{relay}/live/{stream} username={user} password={password}"),
        Sender::RtmpSink | Sender::FfmpegRtsp | Sender::RtspClientSink => unreachable!("{sender:?} is not here"),
    }
}

fn published(sender: Sender, words: impl Fn(&str) -> String, stream: &str) {
    let origin = Nginx::start(&NginxOptions::default());
    let tap = Tap::start(origin.address());
    let relay = asking(&tap.address());
    let mut publisher = Publisher::start(sender, &words(relay.address()), Take::unpaced());
    publisher.succeed();
    assert!(!origin.recorded(stream, SOON).is_empty());
    for secret in ["authmod", "opaque", "response=", PASSWORD, "ann-has-another"] {
        assert!(!tap.saw(secret), "{sender:?}: {secret} reached the origin");
        assert!(!relay.log().contains(secret), "{sender:?}: {secret} is in the log:\n{}", relay.log());
    }
    relay.wait_for_active(0);
    assert_eq!(relay.metric("rtmp_relay_auth_failures_total"), Some(0.0));
    assert_eq!(relay.metric("rtmp_relay_connections_total{status=\"error\"}"), Some(0.0));
    assert_eq!(relay.metric("rtmp_relay_connections_total{status=\"success\"}"), Some(1.0));
    assert!(!relay.log().contains("\"WARN\""), "{}", relay.log());
}

#[test]
fn encoders_log_in_with_any_name_and_a_token_as_password() {
    if direct() {
        return;
    }
    for sender in [Sender::Ffmpeg, Sender::Rtmp2Sink] {
        published(sender, |relay| url(sender, relay, "cam", "whoever", PASSWORD), "cam");
    }
}

#[test]
fn encoders_log_in_as_a_user() {
    if direct() {
        return;
    }
    for sender in [Sender::Ffmpeg, Sender::Rtmp2Sink] {
        published(sender, |relay| url(sender, relay, "ann", "ann", "ann-has-another"), "ann");
    }
}

#[test]
fn rtmp2sink_logs_in_by_the_method_that_it_was_told_and_by_its_url() {
    if direct() {
        return;
    }
    let told = |relay: &str| format!("rtmp://{relay}/live/cam username=whoever password={PASSWORD} authmod=adobe");
    published(Sender::Rtmp2Sink, told, "cam");
    published(Sender::Rtmp2Sink, |relay| format!("rtmp://whoever:{PASSWORD}@{relay}/live/cam"), "cam");
}

#[test]
fn a_player_logs_in_too() {
    if direct() {
        return;
    }
    let origin = Nginx::start(&NginxOptions::default());
    let relay = asking(&origin.address());
    let mut player = Player::start(Receiver::Ffmpeg, &format!("rtmp://whoever:{PASSWORD}@{}/live/cam", relay.address()));
    origin.wait_for_clients("cam", 1);
    let mut publisher = Publisher::start(Sender::Ffmpeg, &format!("rtmp://{}/live/cam", origin.address()), Take::live());
    publisher.succeed();
    assert!(!player.played(SOON).is_empty());
    assert!(!flv::read(&origin.recording("cam")).is_empty());
}

#[test]
fn a_wrong_password_and_none_are_told_in_words() {
    if direct() {
        return;
    }
    let origin = Nginx::start(&NginxOptions::default());
    for (user, password, words) in
        [("whoever", "wr0ng-one", "user name or the password is not known"), ("", "", "a user name and a password")]
    {
        for sender in [Sender::Ffmpeg, Sender::Rtmp2Sink, Sender::RtmpSink] {
            if sender == Sender::RtmpSink && !user.is_empty() {
                continue;
            }
            let relay = asking(&origin.address());
            let plain = format!("rtmp://{}/live/cam", relay.address());
            let url = if user.is_empty() { plain } else { url(sender, relay.address(), "cam", user, password) };
            let mut publisher = Publisher::start(sender, &url, Take::live());
            let status = publisher.finish(SOON);
            let said = publisher.output();
            assert!(!status.success(), "{sender:?} thinks that all went well: {said}");
            match sender {
                Sender::Ffmpeg => assert!(said.contains("Server error: ") && said.contains(words), "{said}"),
                // Without a name it says so in its own words.
                Sender::Rtmp2Sink => {
                    assert!(said.contains(words) || said.contains("no username for adobe authentication"), "{said}")
                }
                // librtmp keeps the sentence for its debug log.
                Sender::RtmpSink => (),
                Sender::FfmpegRtsp | Sender::RtspClientSink => unreachable!("not RTMP"),
            }
            relay.wait_for_active(0);
            let failures = if user.is_empty() { 0.0 } else { 1.0 };
            assert_eq!(relay.metric("rtmp_relay_auth_failures_total"), Some(failures), "{sender:?}:\n{}", relay.log());
            assert!(!relay.log().contains("wr0ng"), "{}", relay.log());
        }
    }
    assert_eq!(origin.heard(), 0, "the origin was dialled for somebody unknown");
}
