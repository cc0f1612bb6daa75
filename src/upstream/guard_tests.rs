//! Tests of the guard.

use proptest::prelude::*;

use super::*;

fn class(ip: &str) -> Option<Class> {
    judge(ip.parse().expect("an address"), &[]).err().map(|forbidden| forbidden.class)
}

fn nets(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

#[test]
fn every_special_block_has_its_class_at_both_ends() {
    use Class::*;
    for (class_, addresses) in [
        (Unspecified, &["0.0.0.0", "::"][..]),
        (ThisNetwork, &["0.0.0.1", "0.255.255.255"]),
        (Loopback, &["127.0.0.1", "127.255.255.255", "::1"]),
        (Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"]),
        (LinkLocal, &["169.254.0.0", "169.254.255.255", "fe80::", "febf:ffff::1"]),
        (UniqueLocal, &["fc00::", "fdff:ffff::1", "fec0::1", "feff::1"]),
        (Shared, &["100.64.0.0", "100.127.255.255"]),
        (Multicast, &["224.0.0.0", "239.255.255.255", "ff00::", "ff02::1"]),
        (Broadcast, &["255.255.255.255"]),
        (
            Documentation,
            &["192.0.2.1", "198.51.100.255", "203.0.113.0", "2001:db8::1", "2001:db8:ffff::", "3fff::1", "3fff:fff::"],
        ),
        (Benchmarking, &["198.18.0.0", "198.19.255.255", "2001:2::1"]),
        (
            Reserved,
            &[
                "240.0.0.0",
                "255.255.255.254",
                "192.0.0.1",
                "192.88.99.1",
                "100::1",
                "2001:10::",
                "4000::1",
                "5f00::1",
                "64:ff9b:2::1",
            ],
        ),
        (
            CloudMetadata,
            &[
                "169.254.169.254",
                "169.254.170.2",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "fd00:ec2::254",
                "fd20:ce::254",
            ],
        ),
    ] {
        for address in addresses {
            assert_eq!(class(address), Some(class_), "{address}");
        }
    }
}

#[test]
fn the_neighbours_of_special_blocks_are_public() {
    for address in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "168.63.129.17",
        "8.8.8.8",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "2a00::1",
        "2001:200::1",
        "3fff:1000::1",
        "2003::1",
    ] {
        assert_eq!(class(address), None, "{address}");
    }
}

#[test]
fn an_address_that_carries_another_is_judged_by_what_it_carries() {
    for (address, want) in [
        ("::ffff:127.0.0.1", Some(Class::Loopback)),
        ("::ffff:8.8.8.8", None),
        ("::ffff:0.0.0.0", Some(Class::Unspecified)),
        ("::10.0.0.1", Some(Class::Private)),
        ("::8.8.8.8", None),
        ("::ffff:0:169.254.169.254", Some(Class::CloudMetadata)),
        ("64:ff9b::10.0.0.1", Some(Class::Private)),
        ("64:ff9b::8.8.8.8", None),
        ("64:ff9b:1::10.0.0.1", Some(Class::Private)),
        ("64:ff9b:1::8.8.8.8", None),
        // The three other lengths RFC 6052 allows inside 64:ff9b:1::/48, all with 10.1.2.3.
        ("64:ff9b:1:a01:2:300::", Some(Class::Private)),
        ("64:ff9b:1:a:1:203::", Some(Class::Private)),
        ("64:ff9b:1:0:a:102:300:0", Some(Class::Private)),
        ("64:ff9b:1:808:8:800::", None),
        ("64:ff9b:1::", Some(Class::Unspecified)),
        // A translator may ignore what is behind the address.
        ("64:ff9b:1:a01:2:300:808:808", Some(Class::Private)),
        ("2002:a00:1::1", Some(Class::Private)),
        ("2002:808:808::1", None),
        // Teredo: server 8.8.8.8, client 10.0.0.1 turned over; then the other way round.
        ("2001:0:808:808:0:0:f5ff:fffe", Some(Class::Private)),
        ("2001:0:a00:1:0:0:f7f7:f7f7", Some(Class::Private)),
        ("2001:0:808:808:0:0:f7f7:f7f7", None),
    ] {
        assert_eq!(class(address), want, "{address}");
    }
}

#[test]
fn an_allowed_network_lets_through_what_it_holds_and_no_more() {
    let allowed = nets(&["10.1.0.0/16", "fd00:1::/32"]);
    for ok in ["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "8.8.8.8"] {
        assert!(judge(ok.parse().expect("ip"), &allowed).is_ok(), "{ok}");
    }
    for no in ["10.2.0.1", "::ffff:10.2.0.1", "64:ff9b::10.1.2.3", "2002:a01:203::1", "::10.1.2.3", "fd00:2::5"] {
        assert!(judge(no.parse().expect("ip"), &allowed).is_err(), "{no}");
    }
    let all_v6 = nets(&["::/0"]);
    assert!(judge("::1".parse().expect("ip"), &all_v6).is_ok());
    assert!(judge("::ffff:127.0.0.1".parse().expect("ip"), &all_v6).is_err(), "that is an address of version 4");
    assert!(judge("::ffff:127.0.0.1".parse().expect("ip"), &nets(&["::ffff:127.0.0.0/104"])).is_ok());
}

#[test]
fn a_refusal_prints_address_class_and_the_line_that_allows_it() {
    let text = judge("10.0.0.5".parse().expect("ip"), &nets(&["172.16.0.0/12"])).expect_err("private").to_string();
    assert_eq!(
        text,
        "the upstream address 10.0.0.5 is a private address and not allowed; to allow it: \
         \"security\": { \"upstream_allowed_networks\": [\"172.16.0.0/12\", \"10.0.0.5/32\"] }"
    );
    let text = judge("64:ff9b::127.0.0.1".parse().expect("ip"), &[]).expect_err("loopback").to_string();
    assert!(text.contains("loopback") && text.contains("127.0.0.1") && text.contains("[\"64:ff9b::7f00:1/128\"]"), "{text}");
}

/// Reads the networks back out of a hint, as JSON.
fn allowed_by(hint: &str) -> Vec<IpNetwork> {
    let json: serde_json::Value = serde_json::from_str(&format!("{{ {hint} }}")).expect("a line of JSON");
    let list = json["security"]["upstream_allowed_networks"].as_array().expect("a list");
    list.iter().map(|network| network.as_str().expect("a string").parse().expect("a network")).collect()
}

proptest! {
    #[test]
    fn a_mapped_address_is_judged_as_the_one_it_maps(bits: u32) {
        let v4 = Ipv4Addr::from(bits);
        let mapped = IpAddr::V6(v4.to_ipv6_mapped());
        for allowed in [nets(&[]), nets(&["10.0.0.0/8", "127.0.0.0/8"])] {
            prop_assert_eq!(judge(v4.into(), &allowed).is_ok(), judge(mapped, &allowed).is_ok());
        }
    }

    #[test]
    fn the_hint_allows_exactly_what_was_refused(bits: u128, short: u32, kind in 0..3) {
        let ip: IpAddr = match kind {
            0 => Ipv4Addr::from(short).into(),
            1 => Ipv4Addr::from(short).to_ipv6_mapped().into(),
            _ => Ipv6Addr::from(bits).into(),
        };
        if let Err(forbidden) = judge(ip, &[]) {
            let allowed = allowed_by(&forbidden.hint);
            prop_assert!(judge(ip, &allowed).is_ok());
            prop_assert_eq!(allowed.len(), 1);
        }
    }

    #[test]
    fn nothing_outside_2000_slash_3_is_public_unless_it_carries_a_public_one(bits: u128) {
        let ip = Ipv6Addr::from(bits);
        let public = judge(ip.into(), &[]).is_ok();
        prop_assert!(!public || ip.segments()[0] >> 13 == 1 || carried(ip).is_some());
    }
}
