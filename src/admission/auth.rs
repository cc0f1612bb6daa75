//! Pure: does the client hold a token that opens this stream?

use std::sync::Arc;

use globset::{Candidate, GlobBuilder, GlobSet};
use percent_encoding::percent_decode;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::{Security, TokenEntry};
use crate::protocol::name::{Action, StreamName};

/// The argument that carries a token.
const KEY: &[u8] = b"token";
/// Tokens one client may show at once: guessing many in one connection is refused, and the work of comparing is bounded.
const MAX_SHOWN: usize = 16;

/// Why a client is not who it should be. The text never holds a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Nothing that could be a token was found.
    #[error("a token is missing, add ?token=... to the stream key")]
    Missing,
    /// No entry has this token.
    #[error("the token is not known")]
    Unknown,
    /// More than 16 tokens at once.
    #[error("more than 16 tokens were given")]
    TooMany,
    /// The entry does not allow the action.
    #[error("the token does not allow to {}", .0.as_str())]
    Action(Action),
    /// The entry names other streams, or the name is none that a glob could match.
    #[error("the token does not open this stream")]
    Stream,
    /// The token was the app, and the upstream does not fix an app to put in its place. Raised by the session, which knows
    /// the upstream.
    #[error("the token was given as the app, but the upstream needs an app: give it as ?token=... instead")]
    InPlaceOfApp,
}

impl AuthError {
    /// The label in the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Unknown => "token_unknown",
            Self::TooMany => "token_too_many",
            Self::Action(_) => "token_action",
            Self::Stream => "token_stream",
            Self::InPlaceOfApp => "token_is_app",
        }
    }
}

/// A glob in `streams` of a token entry that cannot be read. The text leaves the glob out: it may spell a stream key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stream glob of token {name:?} cannot be read: {problem}")]
pub struct BadGlob {
    /// The name of the entry.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The client may do what it came for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// The name (never the value) of the entry; `None` while authentication is off.
    pub token_name: Option<Arc<str>>,
    /// Whether the app itself was a token and is now empty: the upstream has to fix the app, else
    /// [`AuthError::InPlaceOfApp`].
    pub app_was_token: bool,
}

/// Whether a client has proved that it knows a token without showing it, as Digest does.
pub type Proof<'a> = &'a dyn Fn(&[u8]) -> bool;

/// SHA-256 of a token. Comparing these takes the same time for every token, whatever its length.
type Digest32 = [u8; 32];

struct Entry {
    digest: Digest32,
    /// A proof is checked with the token itself.
    token: SecretString,
    name: Arc<str>,
    publish: bool,
    play: bool,
    streams: Option<GlobSet>,
}

/// The tokens that are known, and what each opens.
pub struct Authenticator {
    enabled: bool,
    entries: Vec<Entry>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authenticator(enabled: {}, {} entries)", self.enabled, self.entries.len())
    }
}

impl Authenticator {
    /// Reads the entries. An empty token never matches.
    ///
    /// # Errors
    /// [`BadGlob`].
    pub fn new(security: &Security) -> Result<Self, BadGlob> {
        let there = |entry: &&TokenEntry| !entry.token.expose_secret().is_empty();
        let entries = security.auth_tokens.iter().filter(there).map(Entry::new).collect::<Result<_, _>>()?;
        Ok(Self { enabled: security.auth_enabled, entries })
    }

    /// Judges a client by the tokens it shows: `token` arguments of stream and app, `connect_tokens` (from tcUrl and the
    /// objects of connect), and the app, where all of its path is a token.
    ///
    /// With authentication on, every `token` argument is taken out of `name`, and the app's path where it is a token, also
    /// when the answer is an error; with authentication off, nothing is touched. Where several tokens are shown, one that
    /// opens the stream is enough.
    ///
    /// # Errors
    /// [`AuthError`]; of several, the one that came nearest to success.
    pub fn authenticate(&self, action: Action, name: &mut StreamName, connect_tokens: &[Vec<u8>]) -> Result<Granted, AuthError> {
        self.authenticate_by(action, name, connect_tokens, None)
    }

    /// The same for a client that may have proved a token instead of showing it. `proof` is asked for every token, in the time that
    /// it takes.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn authenticate_by(
        &self,
        action: Action,
        name: &mut StreamName,
        connect_tokens: &[Vec<u8>],
        proof: Option<Proof<'_>>,
    ) -> Result<Granted, AuthError> {
        if !self.enabled {
            return Ok(Granted::default());
        }
        let mut shown = name.stream.query.take(KEY);
        shown.extend(name.app.query.take(KEY));
        shown.extend_from_slice(connect_tokens);
        shown.retain(|token| !token.is_empty());
        let none_shown = shown.is_empty() && proof.is_none();
        let too_many = shown.len() > MAX_SHOWN;
        shown.truncate(MAX_SHOWN);

        let by_app = self.find(std::slice::from_ref(&name.app.path), digest_eq);
        let app_was_token = by_app.contains(&true);
        if app_was_token {
            name.app.path.clear();
        }
        if too_many {
            return Err(AuthError::TooMany);
        }
        let by_argument = self.find(&shown, digest_eq);
        let proved = |entry: &Entry| proof.is_some_and(|proof| proof(entry.token.expose_secret().as_bytes()));
        let by_proof: Vec<bool> = self.entries.iter().map(proved).collect();
        let known = by_app.iter().zip(&by_argument).zip(&by_proof).map(|((app, argument), proof)| app | argument | proof);
        let known: Vec<&Entry> = self.entries.iter().zip(known).filter_map(|(entry, known)| known.then_some(entry)).collect();
        match known.is_empty() {
            true if none_shown => Err(AuthError::Missing),
            true => Err(AuthError::Unknown),
            false => Ok(Granted { token_name: Some(choose(&known, action, name)?), app_was_token }),
        }
    }

    /// For each entry, whether one of `shown` is its token. Every pair is compared, without an early exit, so that time
    /// says nothing about which entry matched, or whether one did.
    fn find(&self, shown: &[Vec<u8>], mut eq: impl FnMut(&Digest32, &Digest32) -> Choice) -> Vec<bool> {
        let digests: Vec<Digest32> = shown.iter().flat_map(|token| spellings(token)).collect();
        let matches = |entry: &Entry| digests.iter().fold(Choice::from(0), |found, digest| found | eq(&entry.digest, digest));
        self.entries.iter().map(matches).map(bool::from).collect()
    }
}

impl Entry {
    fn new(entry: &TokenEntry) -> Result<Self, BadGlob> {
        let streams = (!entry.streams.is_empty()).then(|| globs(entry)).transpose()?;
        let digest = Sha256::digest(entry.token.expose_secret()).into();
        let token = entry.token.clone();
        Ok(Self { digest, token, name: entry.name.as_str().into(), publish: entry.publish, play: entry.play, streams })
    }

    fn allows(&self, action: Action) -> bool {
        match action {
            Action::Publish => self.publish,
            Action::Play => self.play,
        }
    }

    fn opens(&self, joined: Option<&[u8]>) -> bool {
        let Some(globs) = &self.streams else { return true };
        joined.is_some_and(|joined| globs.is_match_candidate(&Candidate::from_bytes(joined)))
    }
}

fn globs(entry: &TokenEntry) -> Result<GlobSet, BadGlob> {
    let bad = |error: globset::Error| BadGlob { name: entry.name.clone(), problem: error.kind().to_string() };
    let glob = |glob: &String| GlobBuilder::new(glob).literal_separator(true).build();
    let globs: Vec<_> = entry.streams.iter().map(glob).collect::<Result<_, _>>().map_err(bad)?;
    GlobSet::new(globs).map_err(bad)
}

/// Of the entries whose token was shown, the name of one that opens the stream.
fn choose(known: &[&Entry], action: Action, name: &StreamName) -> Result<Arc<str>, AuthError> {
    let joined = name.identity().map(|identity| identity.joined()).ok();
    let mut nearest = AuthError::Action(action);
    for entry in known.iter().filter(|entry| entry.allows(action)) {
        if entry.opens(joined.as_deref()) {
            return Ok(Arc::clone(&entry.name));
        }
        nearest = AuthError::Stream;
    }
    Err(nearest)
}

/// The token as it came, and percent-decoded where that differs: ffmpeg and GStreamer send a URL's escapes as they are,
/// librtmp and OBS decode them.
fn spellings(token: &[u8]) -> impl Iterator<Item = Digest32> {
    let decoded = token.contains(&b'%').then(|| Sha256::digest(percent_decode(token).collect::<Vec<u8>>()).into());
    std::iter::once(Sha256::digest(token).into()).chain(decoded)
}

fn digest_eq(a: &Digest32, b: &Digest32) -> Choice {
    a.ct_eq(b)
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::admission::asks_nothing;

    const TOKEN: &str = "s3cret-of-studio";
    const OTHER: &str = "an0ther-secret";

    fn entry(token: &str, name: &str) -> TokenEntry {
        let token = SecretString::from(token);
        TokenEntry { token, name: name.into(), publish: true, play: true, streams: Vec::new() }
    }

    fn authenticator(auth_tokens: Vec<TokenEntry>) -> Authenticator {
        Authenticator::new(&Security { auth_enabled: true, auth_tokens, ..asks_nothing() }).unwrap()
    }

    fn studio() -> Authenticator {
        authenticator(vec![entry(OTHER, "other"), entry(TOKEN, "studio")])
    }

    /// What `app` and `stream` become, and the judgement.
    fn publish(auth: &Authenticator, app: &str, stream: &str, connect: &[&str]) -> (String, Result<Granted, AuthError>) {
        let mut name = StreamName::parse(app.as_bytes(), stream.as_bytes()).unwrap();
        let connect: Vec<Vec<u8>> = connect.iter().map(|token| token.as_bytes().to_vec()).collect();
        let answer = auth.authenticate(Action::Publish, &mut name, &connect);
        let text = |part: Vec<u8>| String::from_utf8(part).unwrap();
        (format!("{} {}", text(name.app.to_bytes()), text(name.stream.to_bytes())), answer)
    }

    fn granted(name: &str, app_was_token: bool) -> Result<Granted, AuthError> {
        Ok(Granted { token_name: Some(name.into()), app_was_token })
    }

    #[test]
    fn a_token_is_found_wherever_a_client_may_put_it() {
        let auth = studio();
        let ok = granted("studio", false);
        let in_stream = format!("cam?a=1&token={TOKEN}&b=2");
        assert_eq!(publish(&auth, "live", &in_stream, &[]), ("live cam?a=1&b=2".into(), ok.clone()));
        let in_app = format!("live?token={TOKEN}");
        assert_eq!(publish(&auth, &in_app, "cam", &[]), ("live cam".into(), ok.clone()));
        assert_eq!(publish(&auth, "live", "cam", &[TOKEN]), ("live cam".into(), ok));
        assert_eq!(publish(&auth, TOKEN, "cam?x=1", &[]), (" cam?x=1".into(), granted("studio", true)));
    }

    #[test]
    fn every_token_is_taken_out_also_where_the_client_is_refused() {
        let auth = studio();
        let (app, stream) = ("live?token=wrong1&k=v&token=wrong2", "cam?token=wrong3&token=");
        assert_eq!(publish(&auth, app, stream, &[]), ("live?k=v cam".into(), Err(AuthError::Unknown)));
        let several = format!("cam?token=wrong&token={TOKEN}");
        assert_eq!(publish(&auth, "live", &several, &["stale"]), ("live cam".into(), granted("studio", false)));
        let as_app_too = format!("cam?token={TOKEN}");
        assert_eq!(publish(&auth, OTHER, &as_app_too, &[]).0, " cam");
    }

    #[test]
    fn without_a_token_or_with_a_wrong_one_nobody_comes_in() {
        let auth = studio();
        assert_eq!(publish(&auth, "live", "cam", &[]).1, Err(AuthError::Missing));
        assert_eq!(publish(&auth, "live", "cam?token=", &[""]).1, Err(AuthError::Missing));
        assert_eq!(publish(&auth, "live", "cam?token=s3cret", &[]).1, Err(AuthError::Unknown));
        assert_eq!(publish(&auth, "live", "cam?TOKEN=x", &[]).1, Err(AuthError::Missing));
        let inside = format!("{TOKEN}/live");
        assert_eq!(publish(&auth, &inside, "cam", &[]).1, Err(AuthError::Missing), "the app must be the token wholly");
        let empty = authenticator(vec![entry("", "empty")]);
        assert_eq!(publish(&empty, "", "cam?token=", &[""]).1, Err(AuthError::Missing));
    }

    #[test]
    fn guessing_many_tokens_at_once_is_refused_even_with_the_right_one_among_them() {
        let mut connect = vec!["guess"; MAX_SHOWN];
        connect.insert(0, TOKEN);
        assert_eq!(publish(&studio(), "live", "cam", &connect).1, Err(AuthError::TooMany));
    }

    #[test]
    fn a_proof_opens_what_its_token_opens() {
        let only = TokenEntry { streams: vec!["live/a".into()], ..entry(TOKEN, "studio") };
        let auth = authenticator(vec![entry(OTHER, "other"), only]);
        let judge = |stream: &str, known: &'static str| {
            let mut name = StreamName::parse(b"live", stream.as_bytes()).unwrap();
            auth.authenticate_by(Action::Play, &mut name, &[], Some(&|token| token == known.as_bytes()))
        };
        assert_eq!(judge("a", TOKEN), granted("studio", false));
        assert_eq!(judge("b", TOKEN), Err(AuthError::Stream));
        assert_eq!(judge("a", "unknown"), Err(AuthError::Unknown));
    }

    #[test]
    fn with_authentication_off_nothing_is_touched() {
        let security = Security { auth_tokens: vec![entry(TOKEN, "studio")], ..asks_nothing() };
        let auth = Authenticator::new(&security).unwrap();
        let stream = format!("cam?token={TOKEN}");
        assert_eq!(publish(&auth, TOKEN, &stream, &[]), (format!("{TOKEN} {stream}"), Ok(Granted::default())));
    }

    #[test]
    fn an_escaped_token_is_the_token() {
        let auth = authenticator(vec![entry("a&b+c", "odd")]);
        assert_eq!(publish(&auth, "live", "cam?token=a%26b%2Bc", &[]).1, granted("odd", false));
        let verbatim = authenticator(vec![entry("a%26b", "odd")]);
        assert_eq!(publish(&verbatim, "live", "cam?token=a%26b", &[]).1, granted("odd", false));
    }

    #[test]
    fn an_entry_opens_only_its_actions_and_streams() {
        let viewer = TokenEntry { publish: false, ..entry(TOKEN, "viewer") };
        assert_eq!(publish(&authenticator(vec![viewer]), "live", "cam", &[TOKEN]).1, Err(AuthError::Action(Action::Publish)));
        let studio = TokenEntry { streams: vec!["live/cam*".into(), "a/**".into()], ..entry(TOKEN, "studio") };
        let auth = authenticator(vec![studio]);
        for (app, stream, opens) in [
            ("live", "cam1", true),
            ("live/cam1", "", true),
            ("live", "other", false),
            ("live", "cam/1", false),
            ("a/b", "c/d", true),
            ("a/b/c", "../x", false),
        ] {
            let want = if opens { granted("studio", false) } else { Err(AuthError::Stream) };
            assert_eq!(publish(&auth, app, stream, &[TOKEN]).1, want, "{app} {stream}");
        }
        let mut bytes = StreamName::parse(b"live", b"cam\xff").unwrap();
        assert!(auth.authenticate(Action::Play, &mut bytes, &[TOKEN.into()]).is_ok(), "a name need not be UTF-8");
    }

    #[test]
    fn one_of_several_entries_or_tokens_that_opens_the_stream_is_enough() {
        let only = |stream: &str, name| TokenEntry { streams: vec![stream.into()], ..entry(TOKEN, name) };
        let auth = authenticator(vec![only("live/a", "a"), only("live/b", "b"), entry(OTHER, "all")]);
        assert_eq!(publish(&auth, "live", "b", &[TOKEN]).1, granted("b", false));
        assert_eq!(publish(&auth, "live", "c", &[TOKEN]).1, Err(AuthError::Stream));
        assert_eq!(publish(&auth, "live", "c", &[TOKEN, OTHER]).1, granted("all", false));
    }

    #[test]
    fn the_glob_sees_the_name_without_the_app_that_was_a_token() {
        let auth = authenticator(vec![TokenEntry { streams: vec!["cam".into()], ..entry(TOKEN, "studio") }]);
        assert_eq!(publish(&auth, TOKEN, "cam", &[]), (" cam".into(), granted("studio", true)));
    }

    #[test]
    fn every_entry_is_compared_with_every_token_wherever_the_match_is() {
        let tokens = ["first", "second", "third", "fourth"];
        let auth = authenticator(tokens.iter().map(|token| entry(token, token)).collect());
        for shown in ["first", "fourth", "unknown", "x"] {
            let mut compared = 0;
            let found = auth.find(&[shown.into(), b"wrong".to_vec()], |a, b| {
                compared += 1;
                a.ct_eq(b)
            });
            assert_eq!(compared, 2 * tokens.len());
            assert_eq!(found, tokens.map(|token| token == shown));
        }
    }

    #[test]
    fn no_token_is_in_any_text() {
        let auth = studio();
        let mut texts = vec![format!("{auth:?}")];
        for shown in [TOKEN, "wr0ng-secret"] {
            let mut name = StreamName::parse(shown.as_bytes(), format!("cam?token={shown}").as_bytes()).unwrap();
            let answer = auth.authenticate(Action::Play, &mut name, &[shown.into()]);
            texts.push(format!("{answer:?} {name:?}"));
            texts.extend(answer.err().map(|error| format!("{error} {}", error.reason())));
        }
        let globs = TokenEntry { streams: vec!["s3cret-key[".into()], ..entry(TOKEN, "studio") };
        let security = Security { auth_enabled: true, auth_tokens: vec![globs], ..asks_nothing() };
        let bad = Authenticator::new(&security).unwrap_err();
        assert!(bad.to_string().contains("studio"), "the entry is named");
        texts.push(format!("{bad} {bad:?}"));
        assert!(texts.iter().all(|text| !text.contains("s3cret") && !text.contains("wr0ng")), "{texts:?}");
    }
}
