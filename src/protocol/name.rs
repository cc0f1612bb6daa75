//! Pure: the name of a stream as a client split it, and the one identity behind every split.
//!
//! Clients cut the same URL at different places: for `/a/b/c/d` ffmpeg sends app `a/b`, stream `c/d`, GStreamer app `a/b/c`,
//! stream `d`, and MediaMTX the whole path as app. [`StreamName::identity`] is what they have in common: the joined path,
//! without any query, split at its last `/`.

use std::fmt;

/// What a client wants with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// To send it.
    Publish,
    /// To receive it.
    Play,
}

impl Action {
    /// The word in logs and /status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
        }
    }
}

/// Longest app, and longest stream name, with its query: 1 KiB.
pub const MAX_PART: usize = 1024;

/// Why a name is refused. The text never repeats the name, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// App or stream is longer than [`MAX_PART`].
    #[error("the app or stream name is longer than 1024 bytes")]
    TooLong,
    /// A byte below 0x20, or 0x7F.
    #[error("the app or stream name holds a control character")]
    ControlCharacter,
    /// `.`, `..` or nothing between two slashes.
    #[error("the app or stream name holds an empty, '.' or '..' path segment")]
    Segment,
}

/// App, stream and tcUrl as one upstream is to hear them. `Debug` shows lengths only: they may hold its stream key.
#[derive(Clone, PartialEq, Eq)]
pub struct Names {
    /// For `connect`'s `app`, with its query.
    pub app: Vec<u8>,
    /// For `publish` and `play`, with its query.
    pub stream: Vec<u8>,
    /// For `connect`'s `tcUrl`.
    pub tc_url: Vec<u8>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names(app: {} bytes, stream: {}, tc_url: {})", self.app.len(), self.stream.len(), self.tc_url.len())
    }
}

/// The arguments behind a `?`, kept byte for byte and in order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<Vec<u8>>,
}

impl Query {
    /// Reads what follows a `?`. Nothing is decoded: RTMP clients do not agree on percent-encoding.
    pub fn parse(bytes: &[u8]) -> Self {
        let pairs = if bytes.is_empty() { Vec::new() } else { bytes.split(|&b| b == b'&').map(<[u8]>::to_vec).collect() };
        Self { pairs }
    }

    /// Whether there is no argument.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The arguments as (key, value); a pair without `=` has an empty value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|pair| split_pair(pair))
    }

    /// Takes every argument named `key` out and returns the values, in order.
    pub fn take(&mut self, key: &[u8]) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        self.pairs.retain(|pair| {
            let (k, v) = split_pair(pair);
            if k == key {
                taken.push(v.to_vec());
            }
            k != key
        });
        taken
    }

    /// Keeps only the arguments whose key `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        self.pairs.retain(|pair| keep(split_pair(pair).0));
    }

    /// Appends every argument of `other`.
    pub fn extend(&mut self, other: &Query) {
        self.pairs.extend(other.pairs.iter().cloned());
    }

    /// Appends `?a=b&c=d` to `out`, or nothing when empty.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (i, pair) in self.pairs.iter().enumerate() {
            out.push(if i == 0 { b'?' } else { b'&' });
            out.extend_from_slice(pair);
        }
    }
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|&b| b == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, b""),
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({} arguments)", self.pairs.len())
    }
}

/// One half of a name: a path and the arguments behind it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// What stands before the first `?`.
    pub path: Vec<u8>,
    /// What stands behind it.
    pub query: Query,
}

impl Part {
    /// Splits at the first `?`.
    pub fn parse(bytes: &[u8]) -> Self {
        match bytes.iter().position(|&b| b == b'?') {
            Some(at) => Self { path: bytes[..at].to_vec(), query: Query::parse(&bytes[at + 1..]) },
            None => Self { path: bytes.to_vec(), query: Query::default() },
        }
    }

    /// The part as it goes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.path.clone();
        self.query.write(&mut out);
        out
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} bytes, {:?})", self.path.len(), self.query)
    }
}

/// App and stream as the client split them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamName {
    /// From `connect`.
    pub app: Part,
    /// From `publish` or `play`.
    pub stream: Part,
}

impl StreamName {
    /// Reads both halves as they came.
    ///
    /// # Errors
    /// [`NameError::TooLong`] and [`NameError::ControlCharacter`]; segments are judged by [`Self::identity`], after the
    /// token is out.
    pub fn parse(app: &[u8], stream: &[u8]) -> Result<Self, NameError> {
        for part in [app, stream] {
            if part.len() > MAX_PART {
                return Err(NameError::TooLong);
            }
            if part.iter().any(|b| b.is_ascii_control()) {
                return Err(NameError::ControlCharacter);
            }
        }
        Ok(Self { app: Part::parse(app), stream: Part::parse(stream) })
    }

    /// The same of an RTMP client, whose app may end with one `/`: `rtmp://host/live/` is how many write the server's URL into an encoder,
    /// and the encoder passes it on. The app is `live` then.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of_rtmp(app: &[u8], stream: &[u8]) -> Result<Self, NameError> {
        let mut name = Self::parse(app, stream)?;
        if name.app.path.len() > 1 && name.app.path.ends_with(b"/") {
            name.app.path.pop();
        }
        Ok(name)
    }

    /// The host that the client means, in small letters: a `vhost` argument (as SRS has it) of stream or app, else the host of
    /// `url`, its tcUrl or request URI. Empty where there is none.
    pub fn vhost(&self, url: &[u8]) -> Vec<u8> {
        let argument = |part: &Part| part.query.iter().find(|(key, _)| *key == b"vhost").map(|(_, value)| value.to_vec());
        argument(&self.stream).or_else(|| argument(&self.app)).unwrap_or_else(|| host(url).to_vec()).to_ascii_lowercase()
    }

    /// The one identity of the stream: the joined path, split at its last `/`. A path of one segment is the app when it
    /// came as the app, else the stream.
    ///
    /// # Errors
    /// [`NameError::Segment`].
    pub fn identity(&self) -> Result<Identity, NameError> {
        // A '/' at the end would make a second stream of the same name; behind an app alone it makes none.
        let ends_open = match &self.stream.path[..] {
            b"" => self.app.path.strip_suffix(b"/").is_some_and(|app| app.contains(&b'/')),
            stream => stream.ends_with(b"/"),
        };
        if ends_open {
            return Err(NameError::Segment);
        }
        let identity = match (self.app.path.is_empty(), self.stream.path.is_empty()) {
            (true, _) => Identity::split(&self.stream.path, false),
            (false, true) => Identity::split(&self.app.path, true),
            (false, false) => Identity::split(&[&self.app.path[..], b"/", &self.stream.path].concat(), true),
        };
        let segments = identity
            .app
            .split(|&b| b == b'/')
            .filter(|_| !identity.app.is_empty())
            .chain(identity.stream.split(|&b| b == b'/').filter(|_| !identity.stream.is_empty()));
        for segment in segments {
            if matches!(segment, b"" | b"." | b"..") {
                return Err(NameError::Segment);
            }
        }
        Ok(identity)
    }
}

/// The host of `scheme://user@host:port/...`, without brackets.
fn host(url: &[u8]) -> &[u8] {
    let Some(at) = url.windows(3).position(|three| three == b"://") else { return b"" };
    let rest = &url[at + 3..];
    let authority = &rest[..rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len())];
    let host = &authority[authority.iter().rposition(|&b| b == b'@').map_or(0, |at| at + 1)..];
    match host.strip_prefix(b"[") {
        Some(inside) => &inside[..inside.iter().position(|&b| b == b']').unwrap_or(inside.len())],
        None => &host[..host.iter().position(|&b| b == b':').unwrap_or(host.len())],
    }
}

/// What every room calls a stream by, whoever published or plays it. Has no query and no token.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    /// All path segments but the last; may be empty.
    pub app: Vec<u8>,
    /// The last path segment; empty when the client named only an app.
    pub stream: Vec<u8>,
}

impl Identity {
    fn split(path: &[u8], lone_is_app: bool) -> Self {
        match path.iter().rposition(|&b| b == b'/') {
            Some(at) => Self { app: path[..at].to_vec(), stream: path[at + 1..].to_vec() },
            None if lone_is_app => Self { app: path.to_vec(), stream: Vec::new() },
            None => Self { app: Vec::new(), stream: path.to_vec() },
        }
    }

    /// `app/stream`, or whichever is there.
    pub fn joined(&self) -> Vec<u8> {
        match (self.app.is_empty(), self.stream.is_empty()) {
            (true, _) => self.stream.clone(),
            (false, true) => self.app.clone(),
            (false, false) => [&self.app[..], b"/", &self.stream].concat(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(app: &str, stream: &str) -> Result<(String, String), NameError> {
        let id = StreamName::parse(app.as_bytes(), stream.as_bytes())?.identity()?;
        Ok((String::from_utf8_lossy(&id.app).into_owned(), String::from_utf8_lossy(&id.stream).into_owned()))
    }

    #[test]
    fn every_client_split_of_one_url_has_one_identity() {
        let want = Ok(("a/b/c".to_owned(), "d".to_owned()));
        assert_eq!(identity("a/b", "c/d"), want, "ffmpeg");
        assert_eq!(identity("a/b/c", "d"), want, "GStreamer");
        assert_eq!(identity("a/b/c/d", ""), want, "MediaMTX as a client");
        assert_eq!(identity("a/b?token=x", "c/d?y=z"), want, "queries are not part of it");
    }

    #[test]
    fn a_lone_segment_is_what_it_came_as() {
        assert_eq!(identity("live", ""), Ok(("live".into(), String::new())));
        assert_eq!(identity("", "cam"), Ok((String::new(), "cam".into())));
    }

    #[test]
    fn the_host_comes_from_the_url_unless_an_argument_names_one() {
        let vhost = |app: &str, stream: &str, url: &str| {
            let name = StreamName::parse(app.as_bytes(), stream.as_bytes()).expect("a name");
            String::from_utf8(name.vhost(url.as_bytes())).expect("text")
        };
        assert_eq!(vhost("live", "cam", "rtmp://Relay.Example.com:1935/live"), "relay.example.com");
        assert_eq!(vhost("live", "cam", "rtsp://user:p@ss@[2001:DB8::1]:8554/live"), "2001:db8::1");
        assert_eq!(vhost("live?vhost=A.example", "cam", "rtmp://b.example/live"), "a.example");
        assert_eq!(vhost("live?vhost=a", "cam?vhost=c", "rtmp://b.example"), "c");
        for url in ["", "live", "rtmp://", "://?", "rtmp://[::1", "rtmp://@:"] {
            let host = vhost("live", "cam", url);
            assert!(host.is_empty() || host == "::1", "{url}: {host}");
        }
    }

    #[test]
    fn the_url_of_a_server_may_end_with_a_slash() {
        let name = |app: &str, stream: &str| StreamName::of_rtmp(app.as_bytes(), stream.as_bytes())?.identity();
        let plain = |app: &str, stream: &str| StreamName::parse(app.as_bytes(), stream.as_bytes())?.identity();
        for (slashed, app, stream) in [
            ("live/", "live", ""),
            ("live/", "live", "cam"),
            ("live/cam/", "live/cam", ""),
            ("live/dir/", "live/dir", "cam"),
            ("live/?token=x", "live?token=x", "cam"),
        ] {
            assert_eq!(name(slashed, stream), plain(app, stream), "{slashed} {stream}");
        }
        for (app, stream) in [("live//", "cam"), ("/", "cam"), ("live/", "cam/"), ("live/", "/cam")] {
            assert_eq!(name(app, stream), Err(NameError::Segment), "{app} {stream}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        assert_eq!(identity("live/", "cam"), Err(NameError::Segment));
        assert_eq!(identity("live", "../secret"), Err(NameError::Segment));
        for (app, stream) in [("live", "cam/"), ("live/cam/", ""), ("", "live/cam/"), ("", "cam/")] {
            assert_eq!(identity(app, stream), Err(NameError::Segment), "{app:?} {stream:?} would be live/cam a second time");
        }
        assert_eq!(identity("live/", ""), identity("live", ""), "an app alone is the same with it");
        assert_eq!(identity("live", "a\r\nb"), Err(NameError::ControlCharacter));
        assert_eq!(identity("live", &"x".repeat(MAX_PART + 1)), Err(NameError::TooLong));
    }

    #[test]
    fn a_query_keeps_order_and_bytes_less_what_is_taken() {
        let mut part = Part::parse(b"cam?b=2&token=s&a=%20&flag&token=t");
        assert_eq!(part.query.take(b"token"), [b"s".to_vec(), b"t".to_vec()]);
        assert_eq!(part.to_bytes(), b"cam?b=2&a=%20&flag");
    }
}
