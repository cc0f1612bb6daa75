//! Wrong certificate, wrong token, wrong transport, wrong port: does the client's user read what to do about it?

use std::process::Command;

use serde_json::{Value, json};

use crate::clip;
use crate::compare::identical;
use crate::flv;
use crate::paper::Authority;
use crate::peers::{Front, Nginx, NginxOptions, Player, Publisher, Receiver, RtspMounts, RtspOrigin, Sender, Take};
use crate::pictures;
use crate::process::{Running, workdir};
use crate::relay::Relay;
use crate::route::direct;
use crate::wait::{CLIP, SOON, wait_for, wait_until};

const TOKEN: &str = "s3cr3t-0f-the-door";

/// The end of a session, for this reason.
fn ended(relay: &Relay, reason: &str) -> Value {
    let what = format!("the relay tells of an end by {reason}");
    wait_for(&what, SOON, || relay.said("session_ended").into_iter().find(|line| line["reason"] == reason))
}

/// A relay with a door for TLS beside its plain one, and what its certificate is signed by.
fn relay_to(upstream: &str, security: Value) -> (Relay, Authority) {
    let authority = Authority::new();
    let paper = authority.local();
    let mut all = json!({ "tls_cert": paper.cert, "tls_key": paper.key, "upstream_allowed_networks": ["127.0.0.0/8"] });
    if let (Value::Object(all), Value::Object(security)) = (&mut all, security) {
        all.extend(security);
    }
    let more = json!({ "listeners": [{ "addr": "127.0.0.1:0", "tls": "only" }], "security": all });
    (Relay::configured(json!([{ "url": upstream }]), more), authority)
}

/// Fails, and says `words`.
fn publisher_reads(sender: Sender, url: &str, words: &[&str]) {
    let mut publisher = Publisher::start(sender, url, Take::live());
    let status = publisher.finish(SOON);
    reads(&format!("{sender:?}"), status.success(), &publisher.output(), words);
}

fn player_reads(receiver: Receiver, url: &str, words: &[&str]) {
    let mut player = Player::start(receiver, url);
    let status = player.finish(SOON);
    reads(&format!("{receiver:?}"), status.success(), &player.output(), words);
}

fn reads(who: &str, content: bool, said: &str, words: &[&str]) {
    assert!(!content, "{who} thinks that all went well: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{who} does not say {words:?}: {said}");
}

#[test]
fn who_does_not_believe_the_relay_s_certificate_is_told_by_its_own_program() {
    if direct() {
        return;
    }
    let (relay, _authority) = relay_to("rtmp://127.0.0.1:9", json!({}));
    let stranger = Authority::new();
    let [rtmps, rtsps] = ["rtmps", "rtsps"].map(|scheme| format!("{scheme}://localhost:{}/live/cam", relay.private_port()));
    let mut publisher = Publisher::believing(Sender::Ffmpeg, &rtmps, Take::live(), Some(&stranger.file()));
    let status = publisher.finish(SOON);
    reads("ffmpeg", status.success(), &publisher.output(), &["Peer certificate failed verification"]);
    let mut player = Player::believing(Receiver::Ffmpeg, &rtmps, Some(&stranger.file()));
    let status = player.finish(SOON);
    reads("ffmpeg", status.success(), &player.output(), &["Peer certificate failed verification"]);
    // GStreamer believes this machine's authorities, of which the tests' is none.
    publisher_reads(Sender::Rtmp2Sink, &rtmps, &["Unacceptable TLS certificate"]);
    player_reads(Receiver::Rtmp2Src, &rtmps, &["Unacceptable TLS certificate"]);
    player_reads(Receiver::RtspSrc, &rtsps, &["Failed to connect"]);
    // What tells them from others: an alert, or that they leave behind the certificate. ffmpeg looks at it when the
    // handshake is over, and then leaves without a word.
    let doubt = |line: &Value| line["detail"].as_str().is_some_and(|text| text.contains("does it trust it?"));
    let all = |is: &dyn Fn(&Value) -> bool| relay.said("session_ended").iter().filter(|line| is(line)).count();
    wait_until("the relay tells of the three that say no in the handshake", SOON, || {
        all(&|line| line["reason"] == "tls_untrusted" || doubt(line)) == 3
    });
    assert_eq!(all(&|line| line["reason"] == "empty"), 2);
}

#[test]
fn an_upstream_whose_certificate_fails_a_check_is_named_with_the_check_and_its_publisher_told() {
    if direct() {
        return;
    }
    let origin = Nginx::start(&NginxOptions::default());
    let (authority, stranger) = (Authority::new(), Authority::new());
    let papers = [stranger.local(), authority.expired(), authority.foreign(), authority.local()];
    let front = Front::start(&papers.each_ref().map(|paper| (paper, origin.address())));
    let checks = ["tls_untrusted", "tls_expired", "tls_wrong_name"];
    let said = ["nobody whom this machine trusts has signed it", "expired", "elsewhere.test"];
    for (door, check) in checks.into_iter().enumerate() {
        let more = json!({
            "upstream_tls": { "ca_file": authority.file() },
            "retry": { "max_attempts": 1 },
        });
        let relay = Relay::configured(json!([{ "url": format!("rtmps://{}", front.address(door)) }]), more);
        let url = format!("rtmp://{}/live/cam", relay.address());
        publisher_reads(Sender::Ffmpeg, &url, &["Server error: the upstream cannot be reached, try again later"]);
        let failed = wait_for("the relay names the check", SOON, || relay.said("upstream_dial_failed").pop());
        assert_eq!(failed["kind"], check, "{failed}");
        assert!(failed["error"].as_str().is_some_and(|error| error.to_lowercase().contains(said[door])), "{failed}");
        assert_eq!(ended(&relay, check)["side"], "upstream");
    }
    // What the others fail, a good one passes.
    let more = json!({ "upstream_tls": { "ca_file": authority.file() } });
    let relay = Relay::configured(json!([{ "url": format!("rtmps://{}", front.address(3)) }]), more);
    Publisher::start(Sender::Ffmpeg, &format!("rtmp://{}/live/cam", relay.address()), Take::unpaced()).succeed();
    identical(&flv::read(clip::normal()), &origin.recorded("cam", SOON)).expect("the recording is what was sent");
}

#[test]
fn over_rtsps_a_wrong_or_missing_token_is_told_in_the_reason_phrase_and_a_good_one_passes() {
    if direct() {
        return;
    }
    let origin = RtspOrigin::with(&RtspMounts { plays: vec!["cam".to_owned()], ..RtspMounts::default() });
    let (relay, _authority) =
        relay_to(&format!("rtsp://{}", origin.address()), json!({ "auth_enabled": true, "auth_tokens": [TOKEN] }));
    let url = |login: &str, query: &str| format!("rtsps://{login}localhost:{}/live/cam{query}", relay.private_port());
    let unknown = "401 authentication failed: the token is not known";
    let missing = "401 A token is needed: as the password, or as ?token= in the URL";
    player_reads(Receiver::FfmpegRtsp, &url("", "?token=wr0ng-one"), &[unknown]);
    player_reads(Receiver::FfmpegRtsp, &url("me:wr0ng-one@", ""), &[unknown]);
    player_reads(Receiver::FfmpegRtsp, &url("", ""), &[missing]);
    publisher_reads(Sender::FfmpegRtsp, &url("", "?token=wr0ng-one"), &[unknown]);
    publisher_reads(Sender::FfmpegRtsp, &url("", ""), &[missing]);
    assert_eq!(origin.heard().lines().count(), 1, "nobody has come to the origin: {}", origin.heard());
    let sent = pictures::of_tags(&flv::read(clip::normal()));
    let (asked, logged_in) = (url("", &format!("?token={TOKEN}")), url(&format!("me:{TOKEN}@"), ""));
    let mut players = [&asked, &logged_in].map(|url| Player::start(Receiver::FfmpegRtsp, url));
    for player in &mut players {
        pictures::same(&sent, &player.pictures(CLIP), 125).expect("the clip passes");
    }
    for place in [relay.log(), origin.heard(), relay.status().to_string()] {
        assert!(!place.contains(TOKEN) && !place.contains("wr0ng-one"), "a token is nobody's business: {place}");
    }
}

#[test]
fn a_player_that_may_turn_from_udp_to_tcp_does_and_one_that_may_not_reads_why() {
    if direct() {
        return;
    }
    let origin = RtspOrigin::with(&RtspMounts { plays: vec!["cam".to_owned()], ..RtspMounts::default() });
    let relay = Relay::configured(json!([{ "url": format!("rtsp://{}", origin.address()) }]), json!({}));
    let url = format!("rtsp://{}/live/cam", relay.address());
    let dir = workdir("udp");
    let play = |name: &str, words: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "warning"]).args(words).args(["-i", &url, "-t", "1", "-c", "copy", "-f", "null", "-"]);
        Running::start(name, &mut command, dir.path())
    };
    let why = "461 Use TCP (interleaved): this relay passes no UDP";
    let mut only = play("udp-only", &["-rtsp_transport", "udp"]);
    let status = only.finish(SOON);
    reads("ffmpeg", status.success(), &only.output(), &[why]);
    let mut either = play("udp-or-tcp", &["-rtsp_transport", "udp+tcp"]);
    either.succeed(CLIP);
    assert!(either.output().contains(why), "{}", either.output());
}

#[test]
fn plain_clients_on_a_port_for_tls_read_which_scheme_it_takes() {
    if direct() {
        return;
    }
    let (relay, _authority) = relay_to("rtmp://127.0.0.1:9", json!({}));
    let url = |scheme: &str| format!("{scheme}://127.0.0.1:{}/live/cam", relay.private_port());
    let words = ["this port takes rtmps:// and rtsps:// only: the relay's operator has turned TLS on"];
    publisher_reads(Sender::Ffmpeg, &url("rtmp"), &words);
    player_reads(Receiver::Ffmpeg, &url("rtmp"), &words);
    publisher_reads(Sender::Rtmp2Sink, &url("rtmp"), &words);
    player_reads(Receiver::Rtmp2Src, &url("rtmp"), &words);
    publisher_reads(Sender::FfmpegRtsp, &url("rtsp"), &words);
    player_reads(Receiver::FfmpegRtsp, &url("rtsp"), &words);
    player_reads(Receiver::RtspSrc, &url("rtsp"), &words);
    ended(&relay, "plain_on_tls_port");
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    if direct() {
        return;
    }
    let (relay, authority) = relay_to("rtmp://127.0.0.1:9", json!({}));
    let dir = workdir("openssl");
    let at = format!("localhost:{}", relay.private_port());
    for (version, spoken) in [("tls1_1", false), ("tls1_2", true), ("tls1_3", true)] {
        let mut command = Command::new("openssl");
        // Without SECLEVEL=0 openssl itself offers no TLS 1.1, and nothing is tried.
        command.args(["s_client", "-connect", &at, "-verify_return_error", &format!("-{version}")]);
        command.args(["-cipher", "DEFAULT@SECLEVEL=0", "-CAfile"]).arg(authority.file());
        let mut client = Running::start(version, &mut command, dir.path());
        client.finish(SOON);
        let said = client.output();
        let name = version.replace("tls", "TLSv").replace('_', ".");
        assert!(said.contains("CONNECTED("), "{said}");
        assert_eq!(said.contains(&format!("New, {name}, Cipher is")), spoken, "{said}");
        assert_eq!(said.contains("alert handshake failure") || said.contains("alert protocol version"), !spoken, "{said}");
    }
}
