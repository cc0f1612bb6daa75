//! Does the relay know its clients behind a real load balancer, and a real one its own behind the relay?

use serde_json::{Value, json};

use crate::clip;
use crate::compare::identical;
use crate::flv;
use crate::peers::{HAPROXY, Haproxy, Nginx, NginxOptions, Publisher, Sender, Take};
use crate::relay::Relay;
use crate::route::direct;
use crate::wait::{SOON, wait_for, wait_until};

/// The row of the only session.
fn row(relay: &Relay) -> Value {
    wait_for("the stream passes", SOON, || {
        let row = relay.status()["connections"]["sessions"][0].clone();
        (row["state"] == "relaying").then_some(row)
    })
}

#[test]
fn behind_haproxy_a_client_is_itself_and_checks_are_no_errors() {
    if direct() {
        return;
    }
    for words in ["send-proxy-v2 check inter 50ms", "send-proxy check inter 50ms"] {
        let origin = Nginx::start(&NginxOptions::default());
        let security = json!({
            "trusted_proxies": [format!("{HAPROXY}/32")],
            "upstream_allowed_networks": ["127.0.0.0/8"],
        });
        // Checks must not use up what clients may.
        let rate = json!({ "enabled": true, "requests_per_sec": 0.01, "burst": 2 });
        let relay = Relay::start(&origin.address(), json!({ "security": security, "rate_limit": rate }));
        let haproxy = Haproxy::start("", relay.address(), words);
        let mut publisher = Publisher::start(Sender::Ffmpeg, &format!("rtmp://{}/live/cam", haproxy.address()), Take::live());
        let row = row(&relay);
        let address = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        assert!(address("client").starts_with("127.0.0.1:") && address("proxy").starts_with(HAPROXY), "{row}");
        publisher.succeed();
        identical(&flv::read(clip::normal()), &origin.recorded("cam", SOON)).expect("the recording is what was sent");
        wait_until("some checks came", SOON, || relay.metric("rtmp_relay_empty_connections_total") >= Some(5.0));
        for status in ["error", "rejected"] {
            let lines: Vec<_> = relay
                .log()
                .lines()
                .filter(|line| line.contains(&format!("\"status\":\"{status}\"")))
                .map(str::to_owned)
                .collect();
            let count = relay.metric(&format!("rtmp_relay_connections_total{{status=\"{status}\"}}"));
            assert_eq!(count, Some(0.0), "{words}: {lines:#?}");
        }
        let lines: Vec<_> =
            relay.log().lines().filter(|line| line.contains(&format!("\"client\":\"{HAPROXY}"))).map(str::to_owned).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("\"DEBUG\"")), "{lines:#?}");
    }
}

#[test]
fn a_real_proxy_reads_what_an_upstream_is_told() {
    if direct() {
        return;
    }
    for version in ["v1", "v2"] {
        let origin = Nginx::start(&NginxOptions::default());
        let haproxy = Haproxy::start("accept-proxy", &origin.address(), "");
        let relay = Relay::before(json!([{ "url": format!("rtmp://{}", haproxy.address()), "proxy_protocol": version }]));
        let mut publisher = Publisher::start(Sender::Ffmpeg, &format!("rtmp://{}/live/cam", relay.address()), Take::live());
        let client = row(&relay)["client"].as_str().unwrap_or_default().to_owned();
        publisher.succeed();
        identical(&flv::read(clip::normal()), &origin.recorded("cam", SOON)).expect("the recording is what was sent");
        wait_until("haproxy names the publisher", SOON, || haproxy.log().contains(&format!("client={client}\n")));
        assert!(
            !haproxy.log().contains("Received something which does not look like a PROXY protocol header"),
            "{}",
            haproxy.log()
        );
    }
}
