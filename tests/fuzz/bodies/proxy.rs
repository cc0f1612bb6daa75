//! PROXY headers: what is decided stays decided, nothing behind a header changes it, and what we write reads the same.

use std::net::{IpAddr, SocketAddr};

use relay::protocol::proxy::{Claim, Look, MAX_HEADER, ProxyError, Version, header, look};

/// Reads `data` as what a connection begins with.
pub fn run(data: &[u8]) {
    let mut decided: Option<Result<Look, ProxyError>> = None;
    // Every beginning of what is usual, and then coarser.
    for length in (0..=data.len()).filter(|n| *n < 300 || n % 61 == 0 || *n == data.len()) {
        let now = look(&data[..length]);
        assert!(now != Ok(Look::More) || length < MAX_HEADER, "{length} bytes are enough");
        match &decided {
            Some(before) => assert_eq!(&now, before, "with {length} bytes"),
            None if now == Ok(Look::More) => {}
            None => decided = Some(now),
        }
        if let Ok(Look::Header { length: header, claim }) = now {
            assert!((8..=MAX_HEADER).contains(&header) && header <= length);
            assert_eq!(look(&data[..header]), now, "what stands behind it is not looked at");
            assert_reads_back(claim);
        }
    }
}

fn assert_reads_back(claim: Claim) {
    let ends = if let Claim::Client(ends) = claim { Some(ends) } else { None };
    if let Some(ends) = ends {
        assert_eq!(ends.client.ip(), ends.client.ip().to_canonical(), "a mapped address is v4");
    }
    for version in [Version::V1, Version::V2] {
        let written = header(version, ends);
        assert_eq!(look(&written), Ok(Look::Header { claim, length: written.len() }), "{version:?}");
    }
    // A header has one family; of two, the v4 one is written as v6.
    if let Some(mut ends) = ends {
        let ip: IpAddr = if ends.client.is_ipv4() { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() } else { [192, 0, 2, 1].into() };
        ends.client = SocketAddr::new(ip, ends.client.port());
        let written = header(Version::V2, Some(ends));
        assert_eq!(look(&written), Ok(Look::Header { claim: Claim::Client(ends), length: written.len() }));
    }
}
