//! Pure: what does a connection's first byte say it speaks?

/// What a peer seems to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// RTMP, or its encrypted kin, which the handshake tells apart.
    Rtmp,
    /// A TLS ClientHello.
    Tls,
    /// HTTP, RTMPT or RTSP over HTTP.
    Http,
    /// RTSP.
    Rtsp,
    /// An interleaved RTSP frame without a request before it: a GStreamer `rtspclientsink` that lost its connection.
    StrayFrame,
    /// Nothing that we know.
    Unknown,
}

/// Judges the first bytes, at least one.
pub fn guess(first: &[u8]) -> Guess {
    let [byte, ..] = first else { return Guess::Unknown };
    match byte {
        0x03 | 0x06 | 0x08 => Guess::Rtmp,
        0x16 => Guess::Tls,
        b'$' => Guess::StrayFrame,
        b'G' | b'P' | b'H' | b'C' if !is_rtsp(first) => Guess::Http,
        b'O' | b'D' | b'A' | b'S' | b'P' | b'R' | b'T' | b'G' => Guess::Rtsp,
        _ => Guess::Unknown,
    }
}

/// RTSP's methods that share their first letter with one of HTTP's.
fn is_rtsp(first: &[u8]) -> bool {
    [&b"PLAY "[..], b"PAUSE ", b"GET_PARAMETER "].iter().any(|method| first.starts_with(method))
}

impl Guess {
    /// One word of a bounded set, for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Tls => "tls_on_plain_port",
            Self::Http => "http_on_rtmp_port",
            Self::Rtsp => "rtsp_not_supported",
            Self::StrayFrame => "stray_rtsp_frame",
            Self::Unknown => "not_rtmp",
        }
    }

    /// What it is called, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtmp => "RTMP",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Rtsp | Self::StrayFrame => "RTSP",
            Self::Unknown => "nothing that the relay knows",
        }
    }

    /// What to answer before closing, where the peer can read something.
    pub fn answer(self) -> Option<&'static str> {
        match self {
            Self::Http => Some(
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 51\r\nConnection: close\r\n\r\n\
                 This port speaks RTMP: publish or play with rtmp://",
            ),
            Self::Rtsp => Some("RTSP/1.0 501 This relay speaks RTMP, use rtmp\r\nConnection: close\r\n\r\n"),
            Self::Rtmp | Self::Tls | Self::StrayFrame | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocols_apart() {
        for (first, want) in [
            (&b"\x03"[..], Guess::Rtmp),
            (b"\x06", Guess::Rtmp),
            (b"\x16\x03\x01", Guess::Tls),
            (b"GET / HTTP/1.1\r\n", Guess::Http),
            (b"POST /open/1 HTTP/1.1\r\n", Guess::Http),
            (b"PLAY rtsp://", Guess::Rtsp),
            (b"OPTIONS rtsp://", Guess::Rtsp),
            (b"$\0", Guess::StrayFrame),
            (b"\0", Guess::Unknown),
        ] {
            assert_eq!(guess(first), want, "{first:?}");
        }
    }

    #[test]
    fn the_http_answer_says_its_own_length() {
        let answer = Guess::Http.answer().expect("there is one");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
