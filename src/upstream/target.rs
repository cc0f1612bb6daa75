//! Pure: an upstream as the relay dials it, and how it is addressed for one client.

use percent_encoding::percent_decode;

use super::template::Place;
use super::url::{Fixed, FixedPart, UpstreamUrl, UrlError};
pub use crate::config::{ForwardQuery, ProxyProtocol};
use crate::protocol::name::{Identity, NameError, Names, Part, Query, StreamName};

/// Longest app, stream or tcUrl, with its query, that goes to an upstream.
pub const MAX_NAME: usize = 4096;

/// Number of a target, unique in one run of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u32);

/// What speaks with what: the relay translates neither into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// rtmp and rtmps.
    Rtmp,
    /// rtsp and rtsps.
    Rtsp,
}

impl Family {
    /// Its name in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtmp => "RTMP",
            Self::Rtsp => "RTSP",
        }
    }
}

/// Why a client's name cannot be sent to an upstream. The text is for the client and never repeats the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The client named an app alone, and the URL fixes no stream.
    #[error("no stream name was given: the address must end in /app/stream")]
    MissingStream,
    /// There is no app, perhaps because it was the token, and the URL fixes none.
    #[error("no app was given: an app that is itself the token needs an upstream that fixes the app")]
    MissingApp,
    /// The name and the upstream's own text are longer than [`MAX_NAME`] together.
    #[error("the app or stream name is too long for the upstream")]
    TooLong,
    /// The name itself is refused.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its number.
    pub id: TargetId,
    /// `rtmp://host:port/app`: no credentials, no key, no query.
    pub label: String,
    /// Its URL.
    pub url: UpstreamUrl,
    /// The PROXY header that its connections begin with.
    pub proxy_protocol: ProxyProtocol,
}

impl Target {
    /// A target for a checked URL, without a PROXY header.
    pub fn new(id: TargetId, url: UpstreamUrl) -> Self {
        Self { id, label: url.label(), url, proxy_protocol: ProxyProtocol::Off }
    }

    /// Reads the URL too.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(id: TargetId, url: &str) -> Result<Self, UrlError> {
        Ok(Self::new(id, UpstreamUrl::parse(url)?))
    }

    /// What it speaks.
    pub fn family(&self) -> Family {
        self.url.family()
    }

    /// How the upstream is addressed for a client that asked for `name`, whose token is already out.
    ///
    /// An upstream URL without a path passes the client's own split on; otherwise the identity fills what the URL leaves
    /// open. The client's arguments go behind the part they came with; those whose key the URL fixes are dropped.
    ///
    /// # Errors
    /// [`TargetError`], with text for the client.
    pub fn address(&self, name: &StreamName, forward: &ForwardQuery) -> Result<Names, TargetError> {
        let identity = name.identity()?;
        let (app, stream) = match &self.url.fixed {
            Fixed::Nothing => own_split(name, &identity)?,
            Fixed::App(_) if identity.stream.is_empty() => return Err(TargetError::MissingStream),
            Fixed::App(app) => (fill(app, &identity)?, Part { path: identity.stream.clone(), query: Query::default() }),
            Fixed::Both { app, stream } => (fill(app, &identity)?, fill(stream, &identity)?),
        };
        let travels = |key: &[u8]| forwards(forward, key) && !fixes(&app.query, key) && !fixes(&stream.query, key);
        let app = with_arguments(&app, &name.app.query, travels);
        let stream = with_arguments(&stream, &name.stream.query, travels);
        let tc_url = [self.url.origin().as_bytes(), b"/", &app].concat();
        if tc_url.len() > MAX_NAME || stream.len() > MAX_NAME {
            return Err(TargetError::TooLong);
        }
        Ok(Names { app, stream, tc_url })
    }
}

/// An RTSP URL, taken apart. `Debug` shows the origin only: path and query may hold the upstream's key.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// `rtsp://host[:port]`.
    pub origin: Vec<u8>,
    /// Without the `/` before it.
    pub path: Vec<u8>,
    /// Without the `?` before it.
    pub query: Vec<u8>,
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Location({})", String::from_utf8_lossy(&self.origin))
    }
}

impl Target {
    /// Where an RTSP upstream has the stream of a client that asked for `name`, whose token is already out. The rules are those of
    /// [`Target::address`]; in an RTSP URL app and stream are one path, and all arguments stand behind it.
    ///
    /// # Errors
    /// [`TargetError`], with text for the client.
    pub fn locate(&self, name: &StreamName, forward: &ForwardQuery) -> Result<Location, TargetError> {
        let identity = name.identity()?;
        let whole = |app: Vec<u8>, stream: Vec<u8>| Identity { app, stream }.joined();
        let (path, mut query) = match &self.url.fixed {
            Fixed::Nothing if identity.stream.is_empty() => return Err(TargetError::MissingStream),
            Fixed::Nothing => (identity.joined(), Query::default()),
            Fixed::App(_) if identity.stream.is_empty() => return Err(TargetError::MissingStream),
            Fixed::App(app) => {
                let app = fill(app, &identity)?;
                (whole(app.path, identity.stream), app.query)
            }
            Fixed::Both { app, stream } => {
                let (app, stream) = (fill(app, &identity)?, fill(stream, &identity)?);
                let mut query = app.query;
                query.extend(&stream.query);
                (whole(app.path, stream.path), query)
            }
        };
        let fixed = query.clone();
        for part in [&name.app.query, &name.stream.query] {
            let mut client = part.clone();
            client.retain(|key| forwards(forward, key) && !fixes(&fixed, key));
            query.extend(&client);
        }
        let query = Part { path: Vec::new(), query }.to_bytes();
        let query = query.strip_prefix(b"?").unwrap_or_default().to_vec();
        let origin = self.url.origin().into_bytes();
        if origin.len() + path.len() + query.len() > MAX_NAME {
            return Err(TargetError::TooLong);
        }
        Ok(Location { origin, path, query })
    }
}

fn own_split(name: &StreamName, identity: &Identity) -> Result<(Part, Part), TargetError> {
    if name.app.path.is_empty() {
        return Err(TargetError::MissingApp);
    }
    if identity.stream.is_empty() {
        return Err(TargetError::MissingStream);
    }
    let part = |path: &Vec<u8>| Part { path: path.clone(), query: Query::default() };
    Ok((part(&name.app.path), part(&name.stream.path)))
}

fn fill(fixed: &FixedPart, identity: &Identity) -> Result<Part, TargetError> {
    let path = fixed.path.expand(identity, Place::Path)?;
    let query = fixed.query.expand(identity, Place::Query)?;
    // Text around a hole can make a '..' that neither of the two is.
    if path.split(|&b| b == b'/').any(|segment| matches!(segment, b"" | b"." | b"..")) {
        return Err(NameError::Segment.into());
    }
    Ok(Part { path, query: Query::parse(&query) })
}

fn with_arguments(part: &Part, client: &Query, travels: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut part = part.clone();
    let mut client = client.clone();
    client.retain(travels);
    part.query.extend(&client);
    part.to_bytes()
}

fn forwards(forward: &ForwardQuery, key: &[u8]) -> bool {
    match forward {
        ForwardQuery::All => true,
        ForwardQuery::None => false,
        ForwardQuery::Keys(keys) => keys.iter().any(|k| k.as_bytes() == key),
    }
}

/// Keys are compared decoded: an origin that decodes them must not find the client's `%6Bey` behind our `key`.
fn fixes(fixed: &Query, key: &[u8]) -> bool {
    !key.is_empty() && fixed.iter().any(|(k, _)| percent_decode(k).eq(percent_decode(key)))
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
