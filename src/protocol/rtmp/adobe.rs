//! Pure: Adobe authentication (`authmod=adobe`), the user name and password of encoders: what is said by either side, and the hash.
//!
//! There is no specification. The exchange is that of Flash Media Server's access manager, as librtmp (`PublisherAuth`), ffmpeg
//! (`do_adobe_auth`) and GStreamer (`do_adobe_auth`) take part in it, each step on a connection of its own:
//!
//! 1. connect, as ever → `_error`: "code=403 need auth; authmod=adobe"
//! 2. connect, with `?authmod=adobe&user=U` behind app and tcUrl → `_error`: "?reason=needauth&user=U&salt=S&challenge=C&opaque=O"
//! 3. connect, with `&challenge=C2&response=R&opaque=O` behind that → `_result`, or `_error`: "?reason=authfailed"

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

/// Longest user name, bytes: ffmpeg reads 255 bytes of a description, and its challenge must fit behind the name.
pub const MAX_USER: usize = 96;

/// What begins an authentication's arguments.
const MARK: &[u8] = b"authmod=";
/// What stands in front of every machine-readable word.
const MANAGER: &str = "[ AccessManager.Reject ] : ";
/// Longest of the words that a server asks with, bytes: they come back to it in app and tcUrl.
pub const MAX_WORD: usize = 256;

/// What a client says about who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Said {
    /// Its name: it wants to be challenged.
    User(Vec<u8>),
    /// Its answer to a challenge.
    Response(Response),
    /// Something in another authentication (`authmod=llnw`), or a name that cannot be used.
    Other,
}

/// A client's answer to a challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// Its name.
    pub user: Vec<u8>,
    /// Its own random part.
    pub challenge: Vec<u8>,
    /// The hash, as [`response`] makes it.
    pub response: Vec<u8>,
    /// What it was given, as it was given.
    pub opaque: Vec<u8>,
}

impl std::fmt::Debug for Said {
    /// Names and hashes are for nobody's log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User(_) => "Said::User(..)",
            Self::Response(_) => "Said::Response(..)",
            Self::Other => "Said::Other",
        })
    }
}

/// What a server asks with: all of it is readable by whoever reads the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Goes into the hash with name and password.
    pub salt: String,
    /// Goes into the hash where there is no `opaque`.
    pub challenge: String,
    /// Goes into the hash, and comes back.
    pub opaque: String,
}

/// Takes the authentication out of an app or a tcUrl, wherever the client has put it: clients write `?authmod=...` behind what may have a
/// query already. Other arguments stay. Of several authentications none does, and what is
/// said last of each part counts.
pub fn take(text: &mut Vec<u8>) -> Option<Said> {
    let said = take_first(text)?;
    while take_first(text).is_some() {}
    Some(said)
}

fn take_first(text: &mut Vec<u8>) -> Option<Said> {
    let marked = |at: &usize| *at > 0 && matches!(text[at - 1], b'?' | b'&');
    let at = text.windows(MARK.len()).enumerate().filter(|(_, w)| *w == MARK).map(|(at, _)| at).find(marked)?;
    let mut found = Found::default();
    let mut rest = text[..at - 1].to_vec();
    for pair in text[at..].split(|&b| b == b'&') {
        let (key, value) = match pair.iter().position(|&b| b == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &b""[..]),
        };
        match found.place(key) {
            Some(place) => *place = Some(value.to_vec()),
            None => {
                rest.push(if rest.contains(&b'?') { b'&' } else { b'?' });
                rest.extend_from_slice(pair);
            }
        }
    }
    *text = rest;
    Some(found.said())
}

#[derive(Default)]
struct Found {
    authmod: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    challenge: Option<Vec<u8>>,
    response: Option<Vec<u8>>,
    opaque: Option<Vec<u8>>,
    /// Of the other method: `nonce`, `cnonce`, `nc`.
    other: Option<Vec<u8>>,
}

impl Found {
    fn place(&mut self, key: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        match key {
            b"authmod" => Some(&mut self.authmod),
            b"user" => Some(&mut self.user),
            b"challenge" => Some(&mut self.challenge),
            b"response" => Some(&mut self.response),
            b"opaque" => Some(&mut self.opaque),
            b"nonce" | b"cnonce" | b"nc" => Some(&mut self.other),
            _ => None,
        }
    }

    fn said(self) -> Said {
        let user = self.user.filter(|user| self.authmod.as_deref() == Some(b"adobe") && usable(user));
        match (user, self.response, self.challenge) {
            (None, ..) => Said::Other,
            (Some(user), Some(response), Some(challenge)) => {
                Said::Response(Response { user, challenge, response, opaque: self.opaque.unwrap_or_default() })
            }
            (Some(user), ..) => Said::User(user),
        }
    }
}

fn usable(user: &[u8]) -> bool {
    !user.is_empty() && user.len() <= MAX_USER && !user.iter().any(u8::is_ascii_control)
}

/// base64(md5(base64(md5(user + salt + password)) + opaque + challenge)): what proves the password. `opaque` is the server's challenge where it
/// sent no opaque; `challenge` is the client's own.
pub fn response(user: &[u8], salt: &[u8], password: &[u8], opaque: &[u8], challenge: &[u8]) -> String {
    let inner = STANDARD.encode(Md5::new().chain_update(user).chain_update(salt).chain_update(password).finalize());
    STANDARD.encode(Md5::new().chain_update(inner).chain_update(opaque).chain_update(challenge).finalize())
}

/// The description that begins the exchange. `words` are for who has neither name nor password; they stand behind what clients look for.
pub fn need_auth(words: &str) -> String {
    format!("{MANAGER}[ code=403 need auth; authmod=adobe ] : {words}")
}

/// The description that asks `user` for proof. Nothing may stand behind the arguments: GStreamer reads them to the end.
pub fn need_proof(user: &[u8], challenge: &Challenge) -> Vec<u8> {
    let Challenge { salt, challenge, opaque } = challenge;
    let front = format!("{MANAGER}[ authmod=adobe ] : ?reason=needauth&user=");
    let behind = format!("&salt={salt}&challenge={challenge}&opaque={opaque}");
    [front.as_bytes(), user, behind.as_bytes()].concat()
}

/// The description that ends it, with `words` for people in front.
pub fn failed(words: &str) -> String {
    format!("{words} : {MANAGER}[ authmod=adobe ] : ?reason=authfailed")
}

/// What a server's description asks of its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The name.
    User,
    /// Proof of the password.
    Proof(Challenge),
    /// Nothing any more: it does not know the name or the password.
    Nothing,
    /// Something in another authentication (`authmod=llnw`).
    Other,
}

/// Why a client's login comes to nothing. The texts hold nothing that either side said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// There is nothing to log in with.
    #[error("the upstream asks for a user name and a password, and its URL has none: expected rtmp://user:password@host/...")]
    Missing,
    /// The server has heard all, and wants none of it.
    #[error("the upstream does not know the user name or the password that its URL has")]
    Wrong,
    /// Another authentication.
    #[error("the upstream asks for another login than Adobe's (authmod=adobe), which is the only one that is spoken here")]
    Other,
    /// Words that are longer than [`MAX_WORD`], or would not be one argument.
    #[error("what the upstream asks for the password with cannot be sent back to it")]
    Unusable,
}

/// A client's way through the exchange: each answer belongs on a new connection, and there are at most two.
#[derive(Debug, Default)]
pub struct Login {
    named: bool,
    proved: bool,
}

impl Login {
    /// What to put behind app and tcUrl on the next connection, since the last ended with `asked`. `own` is new random text.
    ///
    /// # Errors
    /// [`LoginError`], also for whoever asks the same again.
    pub fn answer(&mut self, asked: &Asked, who: Option<(&str, &str)>, own: &str) -> Result<String, LoginError> {
        if *asked == Asked::Other {
            return Err(LoginError::Other);
        }
        let (user, password) = who.ok_or(LoginError::Missing)?;
        match asked {
            Asked::User if !self.named && !self.proved => {
                self.named = true;
                Ok(naming(user))
            }
            Asked::Proof(challenge) if !self.proved => {
                if !challenge.is_usable() {
                    return Err(LoginError::Unusable);
                }
                self.proved = true;
                Ok(proving(user, password, challenge, own))
            }
            _ => Err(LoginError::Wrong),
        }
    }
}

impl Challenge {
    fn is_usable(&self) -> bool {
        let bad = |b: u8| b.is_ascii_control() || matches!(b, b' ' | b'&' | b'?' | b'#');
        [&self.salt, &self.challenge, &self.opaque].into_iter().all(|word| word.len() <= MAX_WORD && !word.bytes().any(bad))
    }
}

/// Reads a description; `None` where it is not about who the client is.
pub fn asked(description: &str) -> Option<Asked> {
    if !description.contains("authmod=adobe") {
        return description.contains("authmod=").then_some(Asked::Other);
    }
    if description.contains("code=403 need auth") {
        return Some(Asked::User);
    }
    let Some((_, arguments)) = description.split_once("?reason=needauth") else { return Some(Asked::Nothing) };
    let value = |key: &str| {
        let pairs = arguments.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(k, _)| *k == key).map(|(_, value)| value.trim_end().to_owned()).unwrap_or_default()
    };
    Some(Asked::Proof(Challenge { salt: value("salt"), challenge: value("challenge"), opaque: value("opaque") }))
}

/// What a client puts behind app and tcUrl to say its name.
pub fn naming(user: &str) -> String {
    format!("?authmod=adobe&user={user}")
}

/// What a client puts behind app and tcUrl to prove its password; `own` is its random part.
pub fn proving(user: &str, password: &str, asked: &Challenge, own: &str) -> String {
    let Challenge { salt, challenge, opaque } = asked;
    let bound = if opaque.is_empty() { challenge } else { opaque };
    let proof = response(user.as_bytes(), salt.as_bytes(), password.as_bytes(), bound.as_bytes(), own.as_bytes());
    let opaque = if opaque.is_empty() { String::new() } else { format!("&opaque={opaque}") };
    format!("{}&challenge={own}&response={proof}{opaque}", naming(user))
}

#[cfg(test)]
#[path = "adobe_tests.rs"]
mod tests;
