//! Pure: what do a connection's first bytes say it speaks?

use super::proxy;

/// Most bytes that are needed to tell; with so many the answer is never [`Guess::More`].
pub const ENOUGH: usize = 32;

/// RTSP's methods (RFC 2326 section 6.1, RFC 7826 section 7.1).
const RTSP: [&[u8]; 12] = [
    b"OPTIONS ",
    b"DESCRIBE ",
    b"ANNOUNCE ",
    b"SETUP ",
    b"PLAY ",
    b"PLAY_NOTIFY ",
    b"PAUSE ",
    b"RECORD ",
    b"TEARDOWN ",
    b"GET_PARAMETER ",
    b"SET_PARAMETER ",
    b"REDIRECT ",
];
/// What RTMPT and RTMPTE begin with: RTMP, and RTMPE, in HTTP requests.
const TUNNEL: [&[u8]; 2] = [b"POST /open/", b"POST /fcs/"];
/// HTTP's methods, and the opening of HTTP/2.
const HTTP: [&[u8]; 9] = [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"CONNECT ", b"PATCH ", b"TRACE ", b"PRI * HTTP/2.0"];

/// What a peer seems to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// Too few bytes to tell.
    More,
    /// RTMP, or its encrypted kin (RTMPE), which the handshake tells apart.
    Rtmp,
    /// A TLS ClientHello.
    Tls,
    /// HTTP.
    Http,
    /// RTSP inside HTTP, as behind firewalls of old: a GET and a POST with one cookie.
    RtspTunnel,
    /// RTMPT or RTMPTE.
    Tunnel,
    /// RTSP.
    Rtsp,
    /// A PROXY header, where none is expected.
    Proxy,
    /// An interleaved RTSP frame without a request before it: a GStreamer `rtspclientsink` that lost its connection.
    StrayFrame,
    /// Nothing that we know.
    Unknown,
}

/// Judges the first bytes of a connection, as many as there are. One byte decides about RTMP and TLS; words are read to their end, for
/// RTSP, HTTP and the PROXY protocol begin alike.
pub fn guess(first: &[u8]) -> Guess {
    match first {
        [] => Guess::More,
        [0x03 | 0x06 | 0x08, ..] => Guess::Rtmp,
        [0x16, ..] => Guess::Tls,
        [b'$', ..] => Guess::StrayFrame,
        _ => guess_words(first),
    }
}

fn guess_words(first: &[u8]) -> Guess {
    let claims = match proxy::begins(first) {
        Some(true) => return Guess::Proxy,
        open => open.is_none(),
    };
    // A server should ignore CRLFs before a request (RFC 2326 section 4.1).
    let word = without_crlf(first);
    match () {
        () if RTSP.iter().any(|opening| word.starts_with(opening)) => Guess::Rtsp,
        () if TUNNEL.iter().any(|opening| word.starts_with(opening)) => Guess::Tunnel,
        // A POST whose path might yet be a tunnel's.
        () if TUNNEL.iter().any(|opening| opening.starts_with(word)) => Guess::More,
        () if is_rtsp_tunnel(word) => Guess::RtspTunnel,
        () if HTTP.iter().any(|opening| word.starts_with(opening)) => Guess::Http,
        () if claims || RTSP.iter().chain(&HTTP).any(|opening| opening.starts_with(word)) => Guess::More,
        () => Guess::Unknown,
    }
}

/// What stands behind at most two CRLFs. (A lone CR at the end may be half of one.)
fn without_crlf(first: &[u8]) -> &[u8] {
    let cut = |bytes: &'_ [u8]| match bytes {
        [b'\r'] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        _ => None,
    };
    let once = cut(first).map_or(first, |length| &first[length..]);
    cut(once).map_or(once, |length| &once[length..])
}

/// The headers that make one connection of two (QuickTime's tunnelling), where they came with the first bytes.
fn is_rtsp_tunnel(first: &[u8]) -> bool {
    // Methods are in capitals (RFC 9110 section 9.1): with others the first bytes alone would have said otherwise.
    let lower = first.to_ascii_lowercase();
    let has = |mark: &[u8]| lower.windows(mark.len()).any(|at| at == mark);
    (first.starts_with(b"GET ") || first.starts_with(b"POST "))
        && (has(b"\nx-sessioncookie:") || has(b"application/x-rtsp-tunnelled"))
}

impl Guess {
    /// One word of a bounded set, for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Tls => "tls_on_plain_port",
            Self::Http => "http_on_rtmp_port",
            Self::Tunnel => "rtmpt",
            Self::RtspTunnel => "rtsp_over_http",
            Self::Rtsp => "rtsp",
            Self::Proxy => "proxy_untrusted",
            Self::StrayFrame => "stray_rtsp_frame",
            Self::More | Self::Unknown => "not_rtmp",
        }
    }

    /// What it is called, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtmp => "RTMP",
            Self::Tls => "TLS",
            Self::Http | Self::Tunnel => "HTTP",
            Self::Proxy => "the PROXY protocol",
            Self::RtspTunnel => "RTSP over HTTP",
            Self::Rtsp | Self::StrayFrame => "RTSP",
            Self::More | Self::Unknown => "nothing that the relay knows",
        }
    }

    /// What to answer before closing, where the peer can read something.
    pub fn answer(self) -> Option<&'static str> {
        match self {
            Self::Http => Some(
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 71\r\nConnection: close\r\n\r\n\
                 This port speaks RTMP and RTSP: publish or play with rtmp:// or rtsp://",
            ),
            Self::Tunnel => Some(
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
                 RTMP in HTTP (rtmpt, rtmpte) is not spoken here: use rtmp or rtmps",
            ),
            Self::RtspTunnel => Some(
                "HTTP/1.1 501 RTSP over HTTP is not supported\r\nContent-Type: text/plain\r\nContent-Length: 67\r\nConnection: close\r\n\r\n\
                 RTSP over HTTP is not supported: use rtsp:// with TCP (interleaved)",
            ),
            Self::More | Self::Rtmp | Self::Rtsp | Self::Tls | Self::Proxy | Self::StrayFrame | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocols_apart_however_they_are_split() {
        for (first, want, at) in [
            (&b"\x03"[..], Guess::Rtmp, 1),
            (b"\x06", Guess::Rtmp, 1),
            (b"\x08", Guess::Rtmp, 1),
            (b"\x16\x03\x01", Guess::Tls, 1),
            (b"GET / HTTP/1.1\r\n", Guess::Http, 4),
            (b"POST /live HTTP/1.1\r\n", Guess::Http, 7),
            (b"POST /fool HTTP/1.1\r\n", Guess::Http, 8),
            (b"POST /open/1 HTTP/1.1\r\n", Guess::Tunnel, 11),
            (b"POST /fcs/ident2 HTTP/1.1\r\n", Guess::Tunnel, 10),
            (b"PRI * HTTP/2.0\r\n", Guess::Http, 14),
            (b"PLAY rtsp://", Guess::Rtsp, 5),
            (b"PAUSE rtsp://", Guess::Rtsp, 6),
            (b"GET_PARAMETER rtsp://", Guess::Rtsp, 14),
            (b"OPTIONS rtsp://", Guess::Rtsp, 8),
            (b"\r\nOPTIONS rtsp://", Guess::Rtsp, 10),
            (b"\r\n\r\nSETUP rtsp://", Guess::Rtsp, 10),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n", Guess::Proxy, 6),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Guess::Proxy, 12),
            (b"$\0", Guess::StrayFrame, 1),
            (b"\0", Guess::Unknown, 1),
            (b"SSH-2.0-client\r\n", Guess::Unknown, 2),
            (b"PLEASE", Guess::Unknown, 3),
            (b"GETTER", Guess::Unknown, 4),
            (b"\r\n\r\n\r\nPLAY ", Guess::Unknown, 5),
            (b"\r\r", Guess::Unknown, 2),
        ] {
            for cut in 0..first.len() {
                let want = if cut < at { Guess::More } else { want };
                assert_eq!(guess(&first[..cut]), want, "{cut} bytes of {first:?}");
            }
            assert_eq!(guess(first), want, "{first:?}");
        }
    }

    #[test]
    fn a_few_bytes_are_always_enough() {
        let openings = RTSP.iter().chain(&HTTP).chain(&TUNNEL).map(|opening| opening.len());
        assert!(openings.max().expect("there are some") + 2 * b"\r\n".len() <= ENOUGH);
    }

    #[test]
    fn rtsp_inside_http_is_known_by_its_headers() {
        for first in [
            &b"GET /live/cam HTTP/1.1\r\nX-SessionCookie: a\r\n\r\n"[..],
            b"POST /live/cam HTTP/1.1\r\nContent-Type: application/x-rtsp-tunnelled\r\n\r\n",
        ] {
            assert_eq!(guess(first), Guess::RtspTunnel, "{first:?}");
            assert_eq!(guess(&first[..20]), Guess::Http);
        }
        let small = b"Get /live/cam HTTP/1.1\r\nX-SessionCookie: a\r\n\r\n";
        assert_eq!((guess(&small[..4]), guess(small)), (Guess::Unknown, Guess::Unknown), "in one piece as in many");
    }

    #[test]
    fn an_http_answer_says_its_own_length() {
        for guess in [Guess::Http, Guess::Tunnel, Guess::RtspTunnel] {
            let answer = guess.answer().expect("there is one");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        }
    }
}
