//! Pure: what a client shows of itself, and what the relay asks it for: Basic and Bearer with a token, Digest with a token as password.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq;

use super::digest::{Algorithm, Question, hex, schemes};
use super::message::Headers;

/// What the relay calls itself to clients that ask a user for a password.
pub const REALM: &str = "relay";

/// Padding is what clients forget.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// What a request shows. `Debug` shows none of it.
#[derive(Default)]
pub struct Credentials {
    /// Of Bearer, and the password of Basic (its user name where there is no password).
    pub tokens: Vec<Vec<u8>>,
    /// A proof that a token is known, without the token.
    pub digest: Option<DigestAnswer>,
    /// User name and password of Basic.
    pair: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} tokens, digest: {})", self.tokens.len(), self.digest.is_some())
    }
}

impl Credentials {
    /// Reads the last Authorization: GStreamer adds one with each try.
    pub fn of(headers: &Headers) -> Self {
        let Some(scheme) = headers.all("Authorization").next_back().and_then(|value| schemes(value).into_iter().next()) else {
            return Self::default();
        };
        if scheme.is("Bearer") {
            return Self { tokens: vec![scheme.token], ..Self::default() };
        }
        if scheme.is("Basic") {
            return Self::basic(&scheme.token).unwrap_or_default();
        }
        let digest = scheme.is("Digest").then(|| DigestAnswer {
            user: scheme.text("username"),
            realm: scheme.text("realm"),
            nonce: scheme.text("nonce"),
            uri: scheme.text("uri"),
            response: scheme.text("response").to_ascii_lowercase(),
            is_md5: Algorithm::named(scheme.get("algorithm")) == Some(Algorithm::Md5),
            quality: scheme.get("qop").map(|qop| (scheme.text("nc"), scheme.text("cnonce"), qop.to_vec())),
        });
        Self { digest, ..Self::default() }
    }

    /// The password is a token, or that of the user; the user name is a token where there is no password.
    fn basic(base64: &[u8]) -> Option<Self> {
        let pair = BASE64.decode(base64).ok()?;
        let at = pair.iter().position(|&b| b == b':').unwrap_or(pair.len());
        let (user, password) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        let token = if password.is_empty() { user } else { password };
        Some(Self { tokens: vec![token.to_vec()], digest: None, pair: Some((user.to_vec(), password.to_vec())) })
    }

    /// What the client calls itself, where it shows or proves a password.
    pub fn user(&self) -> Option<&[u8]> {
        let by_digest = self.digest.as_ref().map(|digest| &digest.user[..]);
        by_digest.or(self.pair.as_ref().map(|(user, _)| &user[..]))
    }

    /// Whether who shows this, for a request with `method`, knows `secret`; `nonce` is that of the challenge it answers.
    pub fn proves(&self, method: &[u8], nonce: &str, secret: &[u8]) -> bool {
        let by_digest = self.digest.as_ref().is_some_and(|digest| digest.proves(method, nonce, secret));
        by_digest || self.pair.as_ref().is_some_and(|(_, password)| bool::from(password.ct_eq(secret)))
    }

    /// Whether anything was shown.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.digest.is_none()
    }
}

/// A Digest answer. The user name may be any; the password is a token.
pub struct DigestAnswer {
    user: Vec<u8>,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    uri: Vec<u8>,
    response: Vec<u8>,
    is_md5: bool,
    quality: Option<(Vec<u8>, Vec<u8>, Vec<u8>)>,
}

impl DigestAnswer {
    /// Whether who gave this answer to the challenge with `nonce`, for a request with `method`, knows `token`.
    ///
    /// The `uri` is the client's own: some write the path alone, some another track's URL. The nonce belongs to one connection, so
    /// that an answer opens nothing anywhere else.
    pub fn proves(&self, method: &[u8], nonce: &str, token: &[u8]) -> bool {
        let question = Question {
            algorithm: Algorithm::Md5,
            user: &self.user,
            realm: &self.realm,
            password: token,
            method,
            uri: &self.uri,
            nonce: &self.nonce,
            quality: self.quality.as_ref().map(|(nc, cnonce, qop)| (&nc[..], &cnonce[..], &qop[..])),
        };
        let ours = self.is_md5 && self.realm == REALM.as_bytes() && self.nonce == nonce.as_bytes();
        let right: bool = question.response().as_bytes().ct_eq(&self.response).into();
        ours && right
    }
}

/// A nonce from 16 random bytes.
pub fn nonce(chance: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 16];
    chance(&mut bytes);
    hex(&bytes)
}

/// The values of WWW-Authenticate. On a `private` connection Basic alone: it needs no token in the clear at rest, and every
/// client speaks it. Else Digest too, which ffmpeg and GStreamer prefer; with MD5, for ffmpeg knows no other.
pub fn challenges(private: bool, nonce: &str) -> Vec<String> {
    let basic = format!("Basic realm=\"{REALM}\"");
    if private { vec![basic] } else { vec![format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\", algorithm=\"MD5\""), basic] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Credentials {
        let mut headers = Headers::default();
        values.iter().for_each(|value| headers.push("Authorization", value));
        Credentials::of(&headers)
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64.encode(pair))
    }

    #[test]
    fn a_token_is_the_password_of_any_user() {
        assert_eq!(of(&[&basic("any:s:3cret")]).tokens, [b"s:3cret"]);
        assert_eq!(of(&[&basic("s3cret:")]).tokens, [b"s3cret"]);
        assert_eq!(of(&[&basic("s3cret")]).tokens, [b"s3cret"]);
        assert_eq!(of(&[basic("any:s3cret").trim_end_matches('=')]).tokens, [b"s3cret"], "without padding");
        assert_eq!(of(&["bearer s3cret"]).tokens, [b"s3cret"]);
        assert_eq!(of(&[&basic("a:old"), &basic("a:new")]).tokens, [b"new"], "the last one counts");
        assert!(of(&[]).is_empty() && of(&["Basic !!"]).is_empty() && of(&["Negotiate x"]).is_empty());
    }

    #[test]
    fn a_digest_proves_the_token_it_was_made_with_and_no_other() {
        for quality in ["", ", qop=auth, nc=00000001, cnonce=\"abc\""] {
            let nonce = nonce(&mut |bytes| bytes.fill(7));
            let question = Question {
                algorithm: Algorithm::Md5,
                user: b"u",
                realm: REALM.as_bytes(),
                password: b"s3cret",
                method: b"DESCRIBE",
                uri: b"/live/cam",
                nonce: nonce.as_bytes(),
                quality: (!quality.is_empty()).then_some((b"00000001", b"abc", b"auth")),
            };
            let response = question.response().to_uppercase();
            let header = |realm: &str| {
                format!(
                    "Digest username=\"u\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"/live/cam\", response=\"{response}\"{quality}"
                )
            };
            let answer = of(&[&header(REALM)]).digest.expect("a digest");
            assert!(answer.proves(b"DESCRIBE", &nonce, b"s3cret"));
            assert!(!answer.proves(b"DESCRIBE", &nonce, b"other"));
            assert!(!answer.proves(b"ANNOUNCE", &nonce, b"s3cret"));
            assert!(!answer.proves(b"DESCRIBE", "another connection's", b"s3cret"));
            assert!(!of(&[&header("elsewhere")]).digest.expect("a digest").proves(b"DESCRIBE", &nonce, b"s3cret"));
            let sha = of(&[&format!("{}, algorithm=SHA-256", header(REALM))]).digest.expect("a digest");
            assert!(!sha.proves(b"DESCRIBE", &nonce, b"s3cret"));
        }
    }

    #[test]
    fn in_private_the_password_itself_is_asked_for() {
        assert_eq!(challenges(true, "n"), ["Basic realm=\"relay\""]);
        assert_eq!(challenges(false, "n").len(), 2);
        assert!(challenges(false, "n")[0].starts_with("Digest "));
    }
}
