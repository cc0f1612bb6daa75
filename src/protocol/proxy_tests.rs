//! Headers of both versions: as the specification and haproxy write them, cut everywhere, broken, and written by us.

use proptest::prelude::*;

use super::*;

fn ends(client: &str, reached: &str) -> Ends {
    Ends { client: client.parse().expect("an address"), reached: reached.parse().expect("an address") }
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
    [V2, &[command, family], &length, body].concat()
}

fn claimed(bytes: &[u8]) -> Claim {
    match look(bytes) {
        Ok(Look::Header { claim, length }) => {
            assert!(length <= bytes.len());
            claim
        }
        other => panic!("{other:?}"),
    }
}

const V4_BODY: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 9, 0xDC, 0x04, 0x07, 0x8F];

/// Every header that is to be taken, with what it says.
fn headers() -> Vec<(Vec<u8>, Claim)> {
    let v4 = Claim::Client(ends("192.0.2.1:56324", "198.51.100.9:1935"));
    let v6 = Claim::Client(ends("[2001:db8::7]:40000", "[2001:db8::1]:1935"));
    let v6_body: Vec<u8> = [
        &[0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..],
        &[0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x9C, 0x40, 0x07, 0x8F],
    ]
    .concat();
    let mapped_body: Vec<u8> = [
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1][..],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 198, 51, 100, 9, 0xDC, 0x04, 0x07, 0x8F],
    ]
    .concat();
    let longest = "ffff:f:f:f:f:f:f:f 65535 65535\r\n";
    assert!(longest.len() < MAX_V1);
    vec![
        (b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 1935\r\n".to_vec(), v4),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 1935\r\n".to_vec(), v6),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.9 56324 1935\r\n".to_vec(), v4),
        (b"PROXY UNKNOWN\r\n".to_vec(), Claim::Own),
        // The longest line there is (section 2.1).
        (
            b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
                .to_vec(),
            Claim::Own,
        ),
        (v2(0x21, 0x11, &V4_BODY), v4),
        // An address family with more behind it: a NOOP of two bytes and half a TLV, none of which is ours to read.
        (v2(0x21, 0x11, &[&V4_BODY[..], &[4, 0, 2, 0, 0, 0x20, 0xFF]].concat()), v4),
        (v2(0x21, 0x21, &v6_body), v6),
        (v2(0x21, 0x21, &mapped_body), v4),
        (v2(0x20, 0x00, &[]), Claim::Own),
        // haproxy's checks: LOCAL, with the addresses of the check itself.
        (v2(0x20, 0x11, &V4_BODY), Claim::Own),
        (v2(0x20, 0xF7, &[1, 2, 3]), Claim::Own),
        (v2(0x21, 0x00, &[]), Claim::Own),
        (v2(0x21, 0x10, &V4_BODY), Claim::Own),
        (v2(0x21, 0x31, &[0; 216]), Claim::Own),
    ]
}

#[test]
fn a_header_is_known_once_it_is_whole_and_no_byte_earlier() {
    for (header, claim) in headers() {
        for cut in 0..header.len() {
            assert_eq!(look(&header[..cut]), Ok(Look::More), "{cut} bytes of {header:?}");
        }
        for behind in [&b""[..], b"\x03", b"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n"] {
            let bytes = [&header[..], behind].concat();
            assert_eq!(look(&bytes), Ok(Look::Header { claim, length: header.len() }), "{header:?}");
        }
    }
}

#[test]
fn what_is_no_header_is_seen_as_soon_as_it_differs() {
    for (first, at) in
        [(&b"\x03"[..], 1), (b"PLAY ", 2), (b"PROXX", 5), (b"PROXY\t", 6), (b"\r\nOPTIONS", 3), (b"\r\n\r\nSETUP", 5)]
    {
        assert_eq!(look(&first[..at - 1]), Ok(Look::More), "{first:?}");
        assert_eq!(look(&first[..at]), Ok(Look::None), "{first:?}");
        assert_eq!((begins(&first[..at - 1]), begins(first)), (None, Some(false)), "{first:?}");
    }
    assert_eq!((begins(b"PROXY "), begins(V2)), (Some(true), Some(true)));
}

#[test]
fn what_breaks_the_grammar_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.9 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.9 56324 65536\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 40000 1935\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.9 56324 1935\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.9 56324 1935\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.9 56324 1935\r\n",
        "PROXY TCP4 host.example 198.51.100.9 56324 1935\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n0123456789",
    ] {
        assert_eq!(look(line.as_bytes()), Err(ProxyError::Malformed), "{line:?}");
    }
    for (command, family) in [(0x11, 0x11), (0x22, 0x11), (0x21, 0x12), (0x21, 0x22), (0x21, 0x41), (0x21, 0x13)] {
        assert_eq!(look(&v2(command, family, &[0; 36])), Err(ProxyError::Malformed), "{command:x} {family:x}");
    }
    assert_eq!(look(&v2(0x21, 0x11, &V4_BODY[..11])), Err(ProxyError::Malformed), "too short for its family");
}

#[test]
fn a_header_without_end_is_refused_at_its_bound() {
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
    assert_eq!(look(&endless[..MAX_V1 - 1]), Ok(Look::More));
    assert_eq!(look(&endless[..MAX_V1]), Err(ProxyError::TooLong(MAX_V1)));
    // A line that ends behind its bound.
    let late = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100], b"\r\n".to_vec()].concat();
    assert_eq!(look(&late), Err(ProxyError::TooLong(MAX_V1)));
    let room = MAX_HEADER - V2_FIXED;
    assert_eq!(claimed(&v2(0x21, 0x11, &[&V4_BODY[..], &vec![0; room - 12]].concat())), headers()[0].1);
    let long = v2(0x21, 0x11, &vec![0; room + 1]);
    assert_eq!(look(&long[..V2_FIXED]), Err(ProxyError::TooLong(MAX_HEADER)), "before a byte of it was waited for");
}

#[test]
fn what_we_write_says_both_ends_in_one_family() {
    let v4 = ends("192.0.2.1:56324", "198.51.100.9:1935");
    assert_eq!(header(Version::V1, Some(v4)), b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 1935\r\n");
    assert_eq!(header(Version::V2, Some(v4)), v2(0x21, 0x11, &V4_BODY));
    assert_eq!(header(Version::V1, None), b"PROXY UNKNOWN\r\n");
    assert_eq!(header(Version::V2, None), v2(0x20, 0x00, &[]));
    let mixed = ends("[2001:db8::7]:40000", "198.51.100.9:1935");
    assert_eq!(header(Version::V1, Some(mixed)), b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.9 40000 1935\r\n");
    let other = ends("192.0.2.1:56324", "[2001:db8::1]:1935");
    assert_eq!(header(Version::V1, Some(other)), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 56324 1935\r\n");
    assert_eq!(claimed(&header(Version::V2, Some(other))), Claim::Client(other));
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(client in address(), reached in address(), first in any::<bool>()) {
        let version = if first { Version::V1 } else { Version::V2 };
        let ends = Ends { client, reached };
        let written = header(version, Some(ends));
        prop_assert_eq!(look(&written), Ok(Look::Header { claim: Claim::Client(ends), length: written.len() }));
    }

    #[test]
    fn no_bytes_are_read_past_their_end_or_waited_for_without_end(
        opening in prop_oneof![Just(&b""[..]), Just(V1), Just(V2)],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [opening, &rest].concat();
        match look(&bytes) {
            Ok(Look::Header { length, .. }) => prop_assert!(length <= bytes.len()),
            Ok(Look::More) => prop_assert!(bytes.len() < MAX_HEADER),
            Ok(Look::None) | Err(_) => {}
        }
    }
}
