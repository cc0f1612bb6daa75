//! Names and URLs: one stream has one identity however a client splits it, none leads out of its place, and what was taken out is gone.

use relay::protocol::name::{MAX_PART, Part, StreamName};
use relay::protocol::rtmp::adobe;
use relay::protocol::rtsp::url::{Address, RequestUrl};

/// Control bytes: where app and stream part.
pub const CONTROL: usize = 1;

/// Reads the bytes as app and stream, and as an RTSP URL.
pub fn run(data: &[u8]) {
    let Some((control, bytes)) = data.split_first_chunk::<CONTROL>() else { return };
    let (app, stream) = bytes.split_at(usize::from(control[0]).min(bytes.len()));
    name(app, stream);
    part(bytes);
    login(bytes);
    url(bytes);
}

fn name(app: &[u8], stream: &[u8]) {
    let Ok(name) = StreamName::parse(app, stream) else {
        assert!(app.len().max(stream.len()) > MAX_PART || [app, stream].concat().iter().any(u8::is_ascii_control));
        return;
    };
    let vhost = name.vhost(app);
    assert_eq!(vhost, vhost.to_ascii_lowercase());
    let Ok(identity) = name.identity() else { return };
    let joined = identity.joined();
    assert_is_a_safe_path(&joined);
    // Another client splits the same name elsewhere.
    for at in joined.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at) {
        let other = StreamName::parse(&joined[..at], &joined[at + 1..]).map(|name| name.identity());
        assert_eq!(other, Ok(Ok(identity.clone())));
    }
}

fn assert_is_a_safe_path(path: &[u8]) {
    let lone = path.is_empty();
    assert!(lone || path.split(|&b| b == b'/').all(|segment| !matches!(segment, b"" | b"." | b"..")));
    assert!(!path.iter().any(|b| b.is_ascii_control() || *b == b'?'));
}

fn part(bytes: &[u8]) {
    let mut part = Part::parse(bytes);
    let written = part.to_bytes();
    assert!(written == bytes || bytes.strip_suffix(b"?") == Some(&written));
    assert!(Part::parse(&written) == part);
    let taken = part.query.take(b"token");
    let rest = part.to_bytes();
    assert!(Part::parse(&rest).query.take(b"token").is_empty());
    assert!(taken.is_empty() == (rest == written));
}

fn login(bytes: &[u8]) {
    let mut text = bytes.to_vec();
    let said = adobe::take(&mut text);
    assert_eq!(said.is_none(), text == bytes);
    assert!(text.len() <= bytes.len());
    let again = text.clone();
    assert!(adobe::take(&mut text).is_none() && text == again, "all of it was taken");
    let description = String::from_utf8_lossy(bytes);
    let _ = adobe::asked(&description);
}

fn url(bytes: &[u8]) {
    let Ok(RequestUrl::Path(address)) = RequestUrl::parse(bytes) else { return };
    assert!(!address.origin.contains(&b'@'), "user name and password are none of it");
    let written = address.to_bytes();
    let again = Address::parse(&written).expect("what we write can be read");
    assert!(again == address);
    assert_eq!(again.below(&address), Some(&b""[..]).filter(|_| true));
    let Ok(identity) = address.stream().and_then(|name| name.identity()) else { return };
    let joined = identity.joined();
    assert_is_a_safe_path(&joined);
    let decoded: Vec<u8> = percent_decoded(&joined);
    assert!(
        joined == decoded
            || decoded.split(|b| matches!(b, b'/' | b'\\')).count() == joined.split(|b| matches!(b, b'/' | b'\\')).count()
    );
    assert!(decoded.split(|&b| b == b'/').all(|segment| !matches!(segment, b"." | b"..")), "not for who decodes it either");
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}
