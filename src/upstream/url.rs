//! Pure: the URL of an upstream: where it is, what it fixes, and what it leaves to the client.
//!
//! `rtmp://host:port` leaves app and stream to the client, `rtmp://host/live` fixes the app, `rtmp://host/live/key?x=y`
//! fixes both. `{app}` and `{stream}` may stand in path and query. A query belongs to the part it follows:
//! `rtmp://host/live2?backup=1/{stream}` gives the app an argument.
//!
//! An error never repeats path, query or user name: a configuration's problems are printed, and these are secrets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::target::Family;
use super::template::Template;
use super::userinfo::Userinfo;
use crate::tls::ServerName;

/// Longest URL, in bytes.
pub const MAX_URL: usize = 2048;

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// RTMP.
    Rtmp,
    /// RTMP over TLS.
    Rtmps,
    /// RTSP.
    Rtsp,
    /// RTSP over TLS.
    Rtsps,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Rtmps => "rtmps",
            Self::Rtsp => "rtsp",
            Self::Rtsps => "rtsps",
        }
    }

    /// The port where none is written. Platforms take RTMPS on 443, and so do encoders.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Rtmp => 1935,
            Self::Rtmps => 443,
            Self::Rtsp => 554,
            Self::Rtsps => 322,
        }
    }

    /// Whether TLS is spoken.
    pub fn is_private(self) -> bool {
        matches!(self, Self::Rtmps | Self::Rtsps)
    }

    /// The protocol inside.
    pub fn family(self) -> Family {
        match self {
            Self::Rtmp | Self::Rtmps => Family::Rtmp,
            Self::Rtsp | Self::Rtsps => Family::Rtsp,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with an upstream's URL, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No `://` behind a scheme.
    #[error("is not a URL: expected rtmp://host[:port][/app[/stream]]")]
    NoScheme,
    /// RTMP in an encryption or a tunnel of Flash's days.
    #[error("{0}:// (RTMP in Flash's own encryption or in HTTP) is not spoken here: expected rtmp:// or, encrypted, rtmps://")]
    Flash(&'static str),
    /// Any other scheme.
    #[error("the scheme is not one that can be relayed to: expected rtmp://, rtmps://, rtsp:// or rtsps://")]
    Scheme,
    /// Longer than [`MAX_URL`].
    #[error("the URL is longer than {MAX_URL} bytes")]
    TooLong,
    /// White space or a control character.
    #[error("the URL holds a space or a control character: percent-encode it (%20)")]
    Blank,
    /// A `#`.
    #[error("the URL holds a '#': an upstream has no fragment; percent-encode it (%23) where a name holds one")]
    Fragment,
    /// A user name that RTMP has no way to say.
    #[error("the user name of an RTMP upstream is empty, or holds a '&' or '?', which nobody there would read as part of it")]
    User,
    /// A `/` or `?` in what stands before the `@`.
    #[error("there is a '/' or '?' before the '@': in user name and password they are written %2F and %3F")]
    Slash,
    /// An escape in user name or password that is no text.
    #[error("the user name or password holds an escape that is no text: percent-encode UTF-8")]
    Userinfo,
    /// Nothing between `://` and the path.
    #[error("the host is missing: expected rtmp://host[:port][/app[/stream]]")]
    NoHost,
    /// Not a DNS name and not an address.
    #[error("the host is not a DNS name or an IP address{}", hint(.0))]
    Host(&'static str),
    /// `fe80::1%eth0`.
    #[error("the host has an IPv6 zone ('%' behind the address): zones are not supported in an upstream URL")]
    Zone,
    /// Not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A brace that is not one of the two placeholders.
    #[error("the URL holds a brace that is not a placeholder: the placeholders are {{app}} and {{stream}}")]
    Placeholder,
    /// A placeholder before the path.
    #[error("a placeholder stands in scheme, user name, host or port: {{app}} and {{stream}} may stand in path and query only")]
    PlaceholderPlace,
    /// `//`, `/./` or `/../`.
    #[error("the path holds an empty, '.' or '..' segment")]
    Segment,
    /// `/a/b/`.
    #[error("the path ends in '/': for an app of several segments write /a/b/{{stream}}, else leave the last '/' out")]
    TrailingSlash,
    /// `rtmp://host?x=y`.
    #[error("the query has no app or stream in front of it: expected rtmp://host/app?query or rtmp://host/app/stream?query")]
    LoneQuery,
}

fn hint(text: &&'static str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name for DNS, as written; a trailing dot is kept.
    Name(String),
    /// An address; never asked of DNS.
    Literal(IpAddr),
}

impl Host {
    /// Whom the certificate must be for. A trailing dot is DNS's own; no certificate has it. `None` where no certificate can be for the name.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        match self {
            Self::Name(name) => ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned()).ok(),
            Self::Literal(ip) => Some(ServerName::from(*ip)),
        }
    }
}

impl fmt::Display for Host {
    /// As it stands in a URL: addresses of version 6 in brackets, names without a trailing dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.strip_suffix('.').unwrap_or(name)),
            Self::Literal(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Literal(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// A fixed path with what follows its `?`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct FixedPart {
    pub(super) path: Template,
    pub(super) query: Template,
}

/// What the URL fixes.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Fixed {
    Nothing,
    App(FixedPart),
    Both { app: FixedPart, stream: FixedPart },
}

/// A checked upstream URL. Its `Debug` shows no key and no query.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    scheme: Scheme,
    login: Option<Userinfo>,
    host: Host,
    port: u16,
    pub(super) fixed: Fixed,
}

impl UpstreamUrl {
    /// Reads a URL as the operator wrote it.
    ///
    /// # Errors
    /// [`UrlError`], whose text is fit to be printed.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL {
            return Err(UrlError::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::Blank);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::NoScheme)?;
        let scheme = parse_scheme(scheme)?;
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains(['{', '}']) {
            return Err(UrlError::PlaceholderPlace);
        }
        let (login, authority) = match authority.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(login(scheme, userinfo)?), rest),
            None => (None, authority),
        };
        // A port that is none, and an '@' further on: that was the beginning of a password.
        let slash = |error| if error == UrlError::Port && path.contains('@') { UrlError::Slash } else { error };
        let (host, port) = parse_authority(authority).map_err(slash)?;
        let port = port.unwrap_or(scheme.default_port());
        if scheme.is_private() && host.server_name().is_none() {
            return Err(UrlError::Host("no certificate can be for it: a part of the name begins or ends with '-'"));
        }
        Ok(Self { scheme, login, host, port, fixed: parse_path(path)? })
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What the scheme speaks.
    pub fn family(&self) -> Family {
        self.scheme.family()
    }

    /// Whether the app is not left to the client.
    pub fn fixes_app(&self) -> bool {
        !matches!(self.fixed, Fixed::Nothing)
    }

    /// What the relay shows of itself where the upstream asks.
    pub fn login(&self) -> Option<&Userinfo> {
        self.login.as_ref()
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `scheme://host:port/app`: what logs, metrics and /status call the upstream.
    pub fn label(&self) -> String {
        let base = format!("{}://{}:{}", self.scheme, self.host, self.port);
        match &self.fixed {
            Fixed::Nothing => base,
            Fixed::App(app) | Fixed::Both { app, .. } => format!("{base}/{}", app.path.written()),
        }
    }

    /// `scheme://host[:port]` as it begins a tcUrl or a request's URL: the usual port is left out.
    pub(super) fn origin(&self) -> String {
        let Self { scheme, host, port, .. } = self;
        if *port == scheme.default_port() { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamUrl({})", self.label())
    }
}

/// Schemes of the family that nobody should use any more.
const FLASH: [&str; 5] = ["rtmpe", "rtmpt", "rtmpte", "rtmpts", "rtmfp"];

fn parse_scheme(scheme: &str) -> Result<Scheme, UrlError> {
    if scheme.contains(['{', '}']) {
        return Err(UrlError::PlaceholderPlace);
    }
    let known = [Scheme::Rtmp, Scheme::Rtmps, Scheme::Rtsp, Scheme::Rtsps];
    let same = |name: &str| scheme.eq_ignore_ascii_case(name);
    let flash = || FLASH.into_iter().find(|flash| same(flash)).map_or(UrlError::Scheme, UrlError::Flash);
    known.into_iter().find(|known| same(known.as_str())).ok_or_else(flash)
}

fn login(scheme: Scheme, userinfo: &str) -> Result<Userinfo, UrlError> {
    let login = Userinfo::parse(userinfo).ok_or(UrlError::Userinfo)?;
    // Behind an app it is an argument as any other, and nobody escapes it.
    let unspeakable = login.user().is_empty() || login.user().contains(['&', '?']);
    if scheme.family() == Family::Rtmp && unspeakable { Err(UrlError::User) } else { Ok(login) }
}

/// The host, and the port where one is written.
fn parse_authority(authority: &str) -> Result<(Host, Option<u16>), UrlError> {
    if let Some(inside) = authority.strip_prefix('[') {
        let (ip, behind) = inside.split_once(']').ok_or(UrlError::Host("the ']' is missing"))?;
        if ip.contains('%') {
            return Err(UrlError::Zone);
        }
        let ip: Ipv6Addr = ip.parse().map_err(|_| UrlError::Host("expected an IPv6 address in the brackets"))?;
        let port = match behind.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if behind.is_empty() => None,
            None => return Err(UrlError::Host("expected ':port' or '/' behind the ']'")),
        };
        return Ok((Host::Literal(ip.into()), port));
    }
    if authority.matches(':').count() > 1 {
        let zone = authority.contains('%');
        return Err(if zone { UrlError::Zone } else { UrlError::Host("an IPv6 address stands in brackets, [::1]:1935") });
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let host = parse_host(host)?;
    Ok((host, port.map(parse_port).transpose()?))
}

fn parse_port(text: &str) -> Result<u16, UrlError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    text.parse().ok().filter(|&port| port != 0).ok_or(UrlError::Port)
}

fn parse_host(text: &str) -> Result<Host, UrlError> {
    if text.is_empty() {
        return Err(UrlError::NoHost);
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Literal(ip.into()));
    }
    if !text.is_ascii() {
        return Err(UrlError::Host("write an international name in its xn-- form"));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_is_bad = |label: &str| {
        let odd = |b: u8| !(b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        label.is_empty() || label.len() > 63 || label.bytes().any(odd)
    };
    if name.len() > 253 || name.split('.').any(label_is_bad) {
        return Err(UrlError::Host(""));
    }
    // 127.1, 2130706433 and 0x7f.1 are addresses to getaddrinfo, but not to a reader of the configuration.
    let last = name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase();
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") && last[2..].bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(UrlError::Host("write an IPv4 address as four decimal numbers"));
    }
    Ok(Host::Name(text.to_owned()))
}

/// Reads everything from the first `/` or `?` on.
fn parse_path(text: &str) -> Result<Fixed, UrlError> {
    let text = text.strip_prefix('/').unwrap_or(text);
    if text.is_empty() {
        return Ok(Fixed::Nothing);
    }
    let (path, query) = split_query(text);
    if path.is_empty() {
        return Err(UrlError::LoneQuery);
    }
    if query.is_none() && path.ends_with('/') && path.matches('/').count() > 1 {
        return Err(UrlError::TrailingSlash);
    }
    match (path.rsplit_once('/'), query) {
        (Some((app, "")), None) => Ok(Fixed::App(part(app, None)?)),
        (Some((app, stream)), query) => Ok(Fixed::Both { app: part(app, None)?, stream: part(stream, query)? }),
        (None, query) => match query.and_then(|query| query.split_once('/')) {
            // One segment before the '?': a '/' in what follows begins the stream.
            Some((query, stream)) if !stream.is_empty() => {
                let (stream, stream_query) = split_query(stream);
                Ok(Fixed::Both { app: part(path, Some(query))?, stream: part(stream, stream_query)? })
            }
            Some((query, _)) => Ok(Fixed::App(part(path, Some(query))?)),
            None => Ok(Fixed::App(part(path, query)?)),
        },
    }
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

fn part(path: &str, query: Option<&str>) -> Result<FixedPart, UrlError> {
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(UrlError::Segment);
    }
    Ok(FixedPart { path: Template::parse(path)?, query: Template::parse(query.unwrap_or_default())? })
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
