//! Pure: the relay's own credentials at an upstream: it answers Basic and Digest (MD5, SHA-256) challenges itself.

use std::fmt;

use base64::Engine;
use secrecy::{ExposeSecret, SecretString};

use super::credentials::BASE64;
use super::digest::{Algorithm, Question, Scheme, hex, quote, schemes};
use super::message::Headers;

/// A user name and password, decoded.
#[derive(Clone)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password; may be empty.
    pub password: SecretString,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(hidden)")
    }
}

/// What an upstream asks with.
enum Challenge {
    Basic,
    Digest { algorithm: Algorithm, realm: Vec<u8>, nonce: Vec<u8>, opaque: Option<Vec<u8>>, quality: bool, named: bool },
}

impl Challenge {
    fn read(scheme: &Scheme) -> Option<Self> {
        if scheme.is("Basic") {
            return Some(Self::Basic);
        }
        let algorithm = Algorithm::named(scheme.get("algorithm")).filter(|_| scheme.is("Digest"))?;
        let qop = scheme.get("qop");
        let auth = qop.is_some_and(|qop| qop.split(|&b| b == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"auth")));
        if qop.is_some() && !auth {
            return None;
        }
        Some(Self::Digest {
            algorithm,
            realm: scheme.text("realm"),
            nonce: scheme.text("nonce"),
            opaque: scheme.get("opaque").map(<[u8]>::to_vec),
            quality: auth,
            named: scheme.get("algorithm").is_some(),
        })
    }

    /// The stronger, the greater.
    fn strength(&self) -> u8 {
        match self {
            Self::Basic => 0,
            Self::Digest { algorithm: Algorithm::Md5, .. } => 1,
            Self::Digest { algorithm: Algorithm::Sha256, .. } => 2,
        }
    }
}

/// Answers one upstream's challenges.
pub struct Answerer {
    login: Login,
    challenge: Option<Challenge>,
    count: u32,
}

impl fmt::Debug for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answerer(challenged: {})", self.challenge.is_some())
    }
}

impl Answerer {
    /// Has not been asked yet.
    pub fn new(login: Login) -> Self {
        Self { login, challenge: None, count: 0 }
    }

    /// Takes the strongest challenge of a 401; `false` where there is none that it can answer.
    pub fn hear(&mut self, headers: &Headers) -> bool {
        let offered = headers.all("WWW-Authenticate").flat_map(schemes);
        let best = offered.filter_map(|scheme| Challenge::read(&scheme)).max_by_key(Challenge::strength);
        self.challenge = best;
        self.count = 0;
        self.challenge.is_some()
    }

    /// The value of Authorization for a request, once it has been asked for.
    pub fn authorization(&mut self, method: &[u8], uri: &[u8], chance: &mut dyn FnMut(&mut [u8])) -> Option<String> {
        let Login { user, password } = &self.login;
        let password = password.expose_secret();
        let (algorithm, realm, nonce, opaque, quality, named) = match self.challenge.as_ref()? {
            Challenge::Basic => return Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}")))),
            Challenge::Digest { algorithm, realm, nonce, opaque, quality, named } => {
                (*algorithm, realm, nonce, opaque, *quality, *named)
            }
        };
        self.count = self.count.saturating_add(1);
        let mut bytes = [0; 8];
        chance(&mut bytes);
        let (nc, cnonce) = (format!("{:08x}", self.count), hex(&bytes));
        let response = Question {
            algorithm,
            user: user.as_bytes(),
            realm,
            password: password.as_bytes(),
            method,
            uri,
            nonce,
            quality: quality.then_some((nc.as_bytes(), cnonce.as_bytes(), b"auth")),
        }
        .response();
        let (user, realm, nonce, uri) = (quote(user.as_bytes()), quote(realm), quote(nonce), quote(uri));
        let mut value = format!("Digest username={user}, realm={realm}, nonce={nonce}, uri={uri}, response=\"{response}\"");
        if named {
            value += &format!(", algorithm={}", algorithm.name());
        }
        if quality {
            value += &format!(", qop=auth, nc={nc}, cnonce=\"{cnonce}\"");
        }
        if let Some(opaque) = opaque {
            value += &format!(", opaque={}", quote(opaque));
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answerer() -> Answerer {
        Answerer::new(Login { user: "Mufasa".into(), password: "Circle of Life".into() })
    }

    fn answer(to: &[&str]) -> Option<String> {
        let mut headers = Headers::default();
        to.iter().for_each(|value| headers.push("WWW-Authenticate", value));
        let mut answerer = answerer();
        let heard = answerer.hear(&headers);
        let value = answerer.authorization(b"DESCRIBE", b"rtsp://h/a", &mut |bytes| bytes.fill(1));
        assert_eq!(heard, value.is_some());
        value
    }

    #[test]
    fn the_strongest_challenge_is_answered() {
        let basic = "Basic realm=\"x\"";
        assert_eq!(answer(&[basic]).as_deref(), Some("Basic TXVmYXNhOkNpcmNsZSBvZiBMaWZl"));
        let md5 = answer(&[basic, "Digest realm=\"r\", nonce=\"n\""]).expect("an answer");
        assert!(md5.starts_with("Digest username=\"Mufasa\", realm=\"r\", nonce=\"n\", uri=\"rtsp://h/a\", response=\""));
        assert!(!md5.contains("algorithm") && !md5.contains("qop"), "only what was asked for: {md5}");
        let both = "Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\", opaque=\"o\", Digest realm=\"r\", nonce=\"n\", algorithm=MD5";
        let sha = answer(&[both]).expect("an answer");
        assert!(sha.ends_with(", algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"0101010101010101\", opaque=\"o\""), "{sha}");
        for bad in ["Digest realm=\"r\", nonce=\"n\", algorithm=MD5-sess", "Digest qop=\"auth-int\", nonce=\"n\"", "Bearer", ""] {
            assert_eq!(answer(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn each_request_under_one_nonce_has_a_count_of_its_own() {
        let mut headers = Headers::default();
        headers.push("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"");
        let mut answerer = answerer();
        assert!(answerer.hear(&headers));
        let mut value = || answerer.authorization(b"PLAY", b"u", &mut |bytes| bytes.fill(1)).unwrap_or_default();
        assert!(value().contains("nc=00000001"));
        assert!(value().contains("nc=00000002"));
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let shown = format!("{:?} {:?}", answerer(), answerer().login);
        assert!(!shown.contains("Circle") && !shown.contains("Mufasa"), "{shown}");
    }
}
