//! Pure: the URLs of requests: which stream one means, and what one side calls what the other side calls otherwise.
//!
//! A request URI is `rtsp://host[:port]/path[?query]`, a path alone, or `*`. Behind the path of a stream stands the control of a track, and
//! clients disagree on which side of the query: ffmpeg asks for `/live/cam?token=x/streamid=0`, GStreamer for
//! `/live/cam/stream=0?token=x`.

use std::fmt;

use percent_encoding::percent_decode;

use crate::protocol::name::{NameError, StreamName};

/// What a request URI names. `Debug` shows nothing: queries hold tokens.
#[derive(Clone, PartialEq, Eq)]
pub enum RequestUrl {
    /// `*`: the server itself.
    Server,
    /// Something on it.
    Path(Address),
}

/// An URL, taken apart.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// `rtsp://host:port`, without user name and password; empty where the URI was a path alone.
    pub origin: Vec<u8>,
    /// Between the authority's `/` and the first `?`.
    pub path: Vec<u8>,
    /// Behind the first `?`.
    pub query: Vec<u8>,
}

impl fmt::Debug for RequestUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Server { "RequestUrl(*)" } else { "RequestUrl(..)" })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(..)")
    }
}

/// Not an RTSP URL, or one that another reader would take for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The URL is not rtsp://host/path")]
pub struct BadUrl;

impl RequestUrl {
    /// Reads a request URI.
    ///
    /// # Errors
    /// [`BadUrl`].
    pub fn parse(uri: &[u8]) -> Result<Self, BadUrl> {
        if uri == b"*" { Ok(Self::Server) } else { Address::parse(uri).map(Self::Path) }
    }
}

impl Address {
    /// Reads an URL or an absolute path. What stands behind a `#` is none of it.
    ///
    /// # Errors
    /// [`BadUrl`].
    pub fn parse(uri: &[u8]) -> Result<Self, BadUrl> {
        let uri = uri.split(|&b| b == b'#').next().unwrap_or_default();
        let (origin, rest) = match scheme(uri) {
            Some((scheme, rest)) => {
                let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
                let (authority, rest) = rest.split_at(end);
                let host = authority.rsplit(|&b| b == b'@').next().unwrap_or_default();
                if host.is_empty() || !host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(b)) {
                    return Err(BadUrl);
                }
                ([scheme, b"://", host].concat(), rest)
            }
            None if uri.starts_with(b"/") => (Vec::new(), uri),
            None => return Err(BadUrl),
        };
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let (path, query) = match rest.iter().position(|&b| b == b'?') {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &b""[..]),
        };
        Ok(Self { origin, path: path.to_vec(), query: query.to_vec() })
    }

    /// The stream that a DESCRIBE or ANNOUNCE of this URL means: the last path component, and the app before it. One `/` at the end is
    /// nobody's.
    ///
    /// # Errors
    /// [`NameError`]; also for a component that decodes to `.`, to `..` or to several: an upstream that decodes it would take it
    /// for another stream than the one that was judged.
    pub fn stream(&self) -> Result<StreamName, NameError> {
        let path = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        let query = self.query.strip_suffix(b"/").unwrap_or(&self.query);
        if !path.split(|&b| b == b'/').all(is_plain) {
            return Err(NameError::Segment);
        }
        let (app, stream) = match path.iter().rposition(|&b| b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let mark: &[u8] = if query.is_empty() { b"" } else { b"?" };
        StreamName::parse(app, &[stream, mark, query].concat())
    }

    /// The URL as it goes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mark: &[u8] = if self.query.is_empty() { b"" } else { b"?" };
        [&self.origin[..], b"/", &self.path, mark, &self.query].concat()
    }

    /// `rtsp://host/path/`: what controls are relative to (RFC 2326 C.1.1). Without the query, which GStreamer and ffmpeg would put
    /// at different places.
    pub fn base(&self) -> Vec<u8> {
        let path = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        [&self.origin[..], b"/", path, slash].concat()
    }

    /// What `other` names below this URL: nothing for the stream itself, else the control of a track, in either style. `None` where it
    /// names something else.
    pub fn below<'a>(&self, other: &'a Address) -> Option<&'a [u8]> {
        let path = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        let behind = other.path.strip_prefix(path)?;
        let in_path = match behind {
            [] => &b""[..],
            [b'/', rest @ ..] => rest,
            _ if path.is_empty() => behind,
            _ => return None,
        };
        if !in_path.is_empty() || other.query.is_empty() {
            return Some(trim(in_path));
        }
        let own = self.query.strip_suffix(b"/").unwrap_or(&self.query);
        let in_query = match other.query.strip_prefix(own) {
            Some(rest) if !own.is_empty() && (rest.is_empty() || rest.starts_with(b"/")) => rest,
            // Another query than before: a '/' in an argument cannot be told from one that begins a control; ffmpeg's comes last.
            _ => other.query.iter().rposition(|&b| b == b'/').map_or(&b""[..], |at| &other.query[at..]),
        };
        Some(trim(in_query.strip_prefix(b"/").unwrap_or(in_query)))
    }

    /// The last component, wherever the query stands.
    pub fn last(&self) -> &[u8] {
        let whole = if let Some(at) = self.query.iter().rposition(|&b| b == b'/') { &self.query[at..] } else { &self.path };
        let whole = trim(whole);
        whole.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// The URL that `control` of an SDP means here, put together as ffmpeg, live555 and GStreamer do: behind the URL, not in place
    /// of its last component.
    pub fn resolve(&self, control: &[u8]) -> Vec<u8> {
        if control.is_empty() || control == b"*" {
            return self.to_bytes();
        }
        if scheme(control).is_some() {
            return control.to_vec();
        }
        if control.starts_with(b"/") {
            return [&self.origin[..], control].concat();
        }
        let url = self.to_bytes();
        let slash: &[u8] = if url.ends_with(b"/") { b"" } else { b"/" };
        [&url[..], slash, control].concat()
    }
}

/// Scheme and the rest of an absolute RTSP URL.
fn scheme(uri: &[u8]) -> Option<(&'static [u8], &[u8])> {
    for (scheme, prefix) in [(&b"rtsp"[..], &b"rtsp://"[..]), (b"rtsps", b"rtsps://")] {
        if let Some((start, rest)) = uri.split_at_checked(prefix.len())
            && start.eq_ignore_ascii_case(prefix)
        {
            return Some((scheme, rest));
        }
    }
    None
}

/// Whether nobody who decodes this component takes it for another path.
pub fn is_plain(component: &[u8]) -> bool {
    let decoded: Vec<u8> = percent_decode(component).collect();
    let special = |name: &[u8]| matches!(name, b"." | b"..");
    let several = |b: &u8| matches!(b, b'/' | b'\\') || b.is_ascii_control();
    let hides_several = component.contains(&b'%') && decoded.iter().any(several);
    !(special(component) || special(&decoded) || hides_several)
}

fn trim(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(uri: &str) -> Address {
        Address::parse(uri.as_bytes()).unwrap_or_else(|_| panic!("{uri}"))
    }

    fn below(base: &str, other: &str) -> Option<String> {
        address(base).below(&address(other)).map(|control| String::from_utf8_lossy(control).into_owned())
    }

    #[test]
    fn an_url_is_taken_apart_without_user_and_password() {
        let url = address("RTSP://any:S3CRET@relay.example:8554/live/cam?token=abc#x");
        assert_eq!(url.origin, b"rtsp://relay.example:8554");
        assert_eq!((&url.path[..], &url.query[..]), (&b"live/cam"[..], &b"token=abc"[..]));
        assert_eq!(address("/live/cam").to_bytes(), b"/live/cam");
        assert_eq!(address("rtsps://[::1]:322").to_bytes(), b"rtsps://[::1]:322/");
        assert_eq!(RequestUrl::parse(b"*"), Ok(RequestUrl::Server));
        for bad in ["", "live/cam", "http://h/a", "rtsp://", "rtsp:///a", "rtsp://h\"x/a", "rtspx://h/a"] {
            assert_eq!(RequestUrl::parse(bad.as_bytes()), Err(BadUrl), "{bad}");
        }
        assert!(!format!("{url:?}{:?}", RequestUrl::Path(url.clone())).contains("abc"));
    }

    #[test]
    fn the_last_component_is_the_stream_and_the_rest_the_app() {
        let joined = |uri: &str| address(uri).stream().and_then(|name| name.identity()).map(|identity| identity.joined());
        for uri in ["rtsp://h/a/b/cam", "rtsp://h/a/b/cam/", "rtsp://h/a/b/cam?token=x", "rtsp://h/a/b/cam?token=x/", "/a/b/cam"]
        {
            assert_eq!(joined(uri), Ok(b"a/b/cam".to_vec()), "{uri}");
        }
        assert_eq!(joined("rtsp://h/cam"), Ok(b"cam".to_vec()));
        let mut name = address("rtsp://h/live/cam?a=1&token=x&b=2").stream().expect("a name");
        assert_eq!(name.stream.query.take(b"token"), [b"x"]);
        assert_eq!(name.stream.to_bytes(), b"cam?a=1&b=2");
        for uri in ["/live/../cam", "/live/%2e%2E", "/live/a%2f..%2fsecret", "/live//cam", "/live/a%5Cb", "/live/a%00", "/./cam"]
        {
            assert_eq!(joined(uri), Err(NameError::Segment), "{uri}");
        }
        assert_eq!(joined(&format!("/live/{}", "x".repeat(1025))), Err(NameError::TooLong));
    }

    #[test]
    fn a_track_is_found_in_both_styles() {
        let base = "rtsp://h/live/cam?token=a/b";
        for (other, want) in [
            ("rtsp://h/live/cam", Some("")),
            ("rtsp://h/live/cam/", Some("")),
            ("rtsp://h/live/cam?token=a/b", Some("")),
            ("rtsp://h/live/cam/trackID=0", Some("trackID=0")),
            ("rtsp://h/live/cam?token=a/b/streamid=0", Some("streamid=0")),
            ("rtsp://h/live/cam/stream=0?token=a/b", Some("stream=0")),
            ("rtsp://h/live/cam?other=x/streamid=1", Some("streamid=1")),
            ("rtsp://h/live/cam?token=a/b/", Some("")),
            ("/live/cam/stream=0", Some("stream=0")),
            ("rtsp://h/live/camera/stream=0", None),
            ("rtsp://h/live/trackID=0", None),
            ("rtsp://h/", None),
        ] {
            assert_eq!(below(base, other).as_deref(), want, "{other}");
        }
        assert_eq!(address("rtsp://h/live/trackID=0").last(), b"trackID=0");
        assert_eq!(address("rtsp://h/live/cam?token=x/trackID=0").last(), b"trackID=0");
    }

    #[test]
    fn a_control_is_resolved_as_players_do() {
        let resolve = |base: &str, control: &str| String::from_utf8(address(base).resolve(control.as_bytes())).expect("text");
        assert_eq!(resolve("rtsp://up/a/cam/", "trackID=0"), "rtsp://up/a/cam/trackID=0");
        assert_eq!(resolve("rtsp://up/a/cam", "trackID=0"), "rtsp://up/a/cam/trackID=0");
        assert_eq!(resolve("rtsp://up/a/cam?key=x", "trackID=0"), "rtsp://up/a/cam?key=x/trackID=0");
        assert_eq!(resolve("rtsp://up/a/cam?key=x/", "trackID=0"), "rtsp://up/a/cam?key=x/trackID=0");
        assert_eq!(resolve("rtsp://up/a/cam/", "*"), "rtsp://up/a/cam/");
        assert_eq!(resolve("rtsp://up/a/cam/", "rtsp://10.0.0.1/x/1"), "rtsp://10.0.0.1/x/1");
        assert_eq!(resolve("rtsp://up/a/cam/", "/x/1"), "rtsp://up/x/1");
    }

    #[test]
    fn the_base_has_a_slash_and_no_query() {
        assert_eq!(address("rtsp://h:1/live/cam?token=x").base(), b"rtsp://h:1/live/cam/");
        assert_eq!(address("rtsp://h/live/cam/").base(), b"rtsp://h/live/cam/");
        assert_eq!(address("rtsp://h").base(), b"rtsp://h/");
    }
}
