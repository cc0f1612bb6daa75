//! Pure: does the client hold a token that opens this stream?

use std::sync::Arc;

use globset::{Candidate, GlobBuilder, GlobSet};
use percent_encoding::percent_decode;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::{AdobeAuth, Security, TokenEntry};
use crate::protocol::name::{Action, Part, StreamName};

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
    #[error("this token or user may not {}", .0.as_str())]
    Action(Action),
    /// The entry names other streams, or the name is none that a glob could match.
    #[error("this token or user does not open this stream")]
    Stream,
    /// No user has this name and password.
    #[error("the user name or the password is not known")]
    Password,
    /// An answer to a question that was never asked, or of another user, or from another address.
    #[error("the login did not begin here: connect again, from the same address")]
    Challenge,
    /// An answer to a question that was asked too long ago.
    #[error("the login took longer than 30 s, connect again")]
    Late,
    /// An answer that was given already.
    #[error("this login was used already, connect again")]
    Again,
    /// More logins than can be remembered.
    #[error("too many logins at this moment, try again")]
    Busy,
    /// Another authentication than Adobe's.
    #[error("only Adobe authentication is known here, with a user name of up to 96 bytes; Limelight's (llnw) is not")]
    Method,
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
            Self::Password => "password",
            Self::Challenge => "login_foreign",
            Self::Late => "login_late",
            Self::Again => "login_again",
            Self::Busy => "login_busy",
            Self::Method => "login_method",
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

/// Number of a token, unique in one run of the relay: a token that a reload keeps keeps its number, whatever its name and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub u64);

/// The client may do what it came for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// The token; `None` while authentication is off.
    pub token: Option<TokenId>,
    /// The name (never the value) of the entry; `None` while authentication is off.
    pub token_name: Option<Arc<str>>,
    /// Whether the app itself was a token and is now empty: the upstream has to fix the app, else
    /// [`AuthError::InPlaceOfApp`].
    pub app_was_token: bool,
}

/// What a client has proved, in place of showing a token.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// It has logged in, when it connected.
    Login(&'a Login),
    /// That it knows a secret, as Digest does: the one that `knows` answers yes to.
    Of {
        /// What it calls itself.
        user: &'a [u8],
        /// Asked for every entry, in the time that it takes.
        knows: &'a dyn Fn(&[u8]) -> bool,
    },
}

/// SHA-256 of a token. Comparing these takes the same time for every token, whatever its length.
type Digest32 = [u8; 32];

/// Proof that a client knows the password of an entry, to be shown with whatever it then asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login(TokenId);

struct Entry {
    id: TokenId,
    digest: Digest32,
    /// The one user; `None`: whoever knows the secret, under any name.
    user: Option<Box<str>>,
    /// As it is, for hashes that are made with it.
    secret: SecretString,
    name: Arc<str>,
    publish: bool,
    play: bool,
    streams: Option<GlobSet>,
}

/// The tokens and users that are known, and what each opens. Tokens are compared as digests.
pub struct Authenticator {
    enabled: bool,
    entries: Vec<Entry>,
    asks: Asks,
    /// The next number.
    next: u64,
}

/// Where clients are asked for user name and password.
enum Asks {
    All,
    None,
    Apps(GlobSet),
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
        Self { enabled: false, entries: Vec::new(), asks: Asks::None, next: 0 }.changed(security)
    }

    /// The same after a change of the settings: a token, or a user, that stays keeps its number.
    ///
    /// # Errors
    /// [`BadGlob`].
    pub fn changed(&self, security: &Security) -> Result<Self, BadGlob> {
        let tokens = security.auth_tokens.iter().map(|entry| (None, entry));
        let users = security.users.iter().map(|user| (Some(user.user.as_str()), &user.entry));
        let there = |(_, entry): &(Option<&str>, &TokenEntry)| !entry.token.expose_secret().is_empty();
        let mut next = self.next;
        let mut entries = Vec::new();
        for (user, entry) in tokens.chain(users).filter(there) {
            let digest = digest_of(user, entry);
            // The operator's own tokens among each other: no constant time needed.
            let known = self.entries.iter().find(|known| known.digest == digest).map(|known| known.id);
            let id = known.unwrap_or(TokenId(next));
            next += u64::from(known.is_none());
            entries.push(Entry::new(id, digest, user, entry)?);
        }
        let asks = match &security.adobe_auth {
            AdobeAuth::All => Asks::All,
            AdobeAuth::None => Asks::None,
            AdobeAuth::Apps(apps) => Asks::Apps(globs("adobe_auth", apps)?),
        };
        Ok(Self { enabled: security.auth_enabled, entries, asks, next })
    }

    /// Tokens that `self` knows and `new` does not.
    pub fn removed(&self, new: &Self) -> Vec<TokenId> {
        let there = |id: TokenId| new.entries.iter().any(|entry| entry.id == id);
        self.entries.iter().map(|entry| entry.id).filter(|&id| !there(id)).collect()
    }

    /// Whether clients must show anything at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether a client that connects with this `app` and `connect_tokens` is to be asked for user name and password: it has shown
    /// nothing yet that could be a token, and what it will say later would come too late.
    pub fn asks(&self, app: &[u8], connect_tokens: &[Vec<u8>]) -> bool {
        let app = Part::parse(app);
        let asks = match &self.asks {
            Asks::All => true,
            Asks::None => false,
            Asks::Apps(globs) => globs.is_match_candidate(&Candidate::from_bytes(&app.path)),
        };
        let shown = app.query.iter().any(|(key, _)| key == KEY) || !connect_tokens.is_empty();
        self.enabled && asks && !shown && !self.find(std::slice::from_ref(&app.path), digest_eq).contains(&true)
    }

    /// Judges a proof that `user` knows its password: `expected` makes from a password what `shown` must be. Tokens are passwords of every
    /// user. All entries are tried, without an early exit.
    ///
    /// # Errors
    /// [`AuthError::Password`].
    pub fn login(&self, user: &[u8], shown: &[u8], expected: impl Fn(&str) -> String) -> Result<Login, AuthError> {
        let mut found = None;
        for entry in &self.entries {
            let proven = expected(entry.secret.expose_secret()).as_bytes().ct_eq(shown);
            if bool::from(proven) && entry.is_called(user) && found.is_none() {
                found = Some(Login(entry.id));
            }
        }
        found.ok_or(AuthError::Password)
    }

    /// Judges a client by the tokens it shows: `token` arguments of stream and app, `connect_tokens` (from tcUrl and the
    /// objects of connect), and the app, where all of its path is a token; and by what it has proved.
    ///
    /// With authentication on, every `token` argument is taken out of `name`, and the app's path where it is a token, also
    /// when the answer is an error; with authentication off, nothing is touched. Where several tokens are shown, one that
    /// opens the stream is enough.
    ///
    /// # Errors
    /// [`AuthError`]; of several, the one that came nearest to success.
    pub fn authenticate(
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
        let by_proof: Vec<bool> = self.entries.iter().map(|entry| proof.is_some_and(|proof| entry.is_proved_by(proof))).collect();
        let known = by_app.iter().zip(&by_argument).zip(&by_proof).map(|((app, argument), proof)| app | argument | proof);
        let known: Vec<&Entry> = self.entries.iter().zip(known).filter_map(|(entry, known)| known.then_some(entry)).collect();
        match known.is_empty() {
            true if none_shown => Err(AuthError::Missing),
            true => Err(AuthError::Unknown),
            false => {
                let Entry { id, name, .. } = choose(&known, action, name)?;
                Ok(Granted { token: Some(*id), token_name: Some(Arc::clone(name)), app_was_token })
            }
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
    fn new(id: TokenId, digest: Digest32, user: Option<&str>, entry: &TokenEntry) -> Result<Self, BadGlob> {
        let streams = (!entry.streams.is_empty()).then(|| globs(&entry.name, &entry.streams)).transpose()?;
        let (secret, name, user) = (entry.token.clone(), entry.name.as_str().into(), user.map(Into::into));
        Ok(Self { id, digest, user, secret, name, publish: entry.publish, play: entry.play, streams })
    }

    fn is_proved_by(&self, proof: Proof<'_>) -> bool {
        match proof {
            Proof::Login(login) => self.id == login.0,
            Proof::Of { user, knows } => knows(self.secret.expose_secret().as_bytes()) & self.is_called(user),
        }
    }

    /// Whether a user by this name may use it.
    fn is_called(&self, user: &[u8]) -> bool {
        self.user.as_ref().is_none_or(|name| name.as_bytes() == user)
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

/// What tells entries apart. A password alone is no token: without its user it opens nothing.
fn digest_of(user: Option<&str>, entry: &TokenEntry) -> Digest32 {
    let secret = entry.token.expose_secret();
    match user {
        None => Sha256::digest(secret).into(),
        Some(user) => Sha256::new().chain_update(user).chain_update([0]).chain_update(secret).finalize().into(),
    }
}

fn globs(name: &str, patterns: &[String]) -> Result<GlobSet, BadGlob> {
    let bad = |error: globset::Error| BadGlob { name: name.to_owned(), problem: error.kind().to_string() };
    let glob = |glob: &String| GlobBuilder::new(glob).literal_separator(true).build();
    let globs: Vec<_> = patterns.iter().map(glob).collect::<Result<_, _>>().map_err(bad)?;
    GlobSet::new(globs).map_err(bad)
}

/// Of the entries whose token was shown, one that opens the stream.
fn choose<'a>(known: &[&'a Entry], action: Action, name: &StreamName) -> Result<&'a Entry, AuthError> {
    let joined = name.identity().map(|identity| identity.joined()).ok();
    let mut nearest = AuthError::Action(action);
    for entry in known.iter().filter(|entry| entry.allows(action)) {
        if entry.opens(joined.as_deref()) {
            return Ok(entry);
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
#[path = "auth_tests.rs"]
mod tests;
