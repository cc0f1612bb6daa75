//! Pure: challenges and answers of HTTP authentication (RFC 7617 Basic, RFC 7616 and 2069 Digest) as they stand in headers.

use md5::Md5;
use sha2::{Digest, Sha256};

/// One scheme with its parameters.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Scheme {
    /// `Basic`, `Digest`, as written.
    pub(super) name: Vec<u8>,
    /// What stands behind it where that is no list: base64, a token.
    pub(super) token: Vec<u8>,
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Scheme {
    /// Whether it is called `name`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// A parameter, without its quotes.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(k, _)| k.eq_ignore_ascii_case(key.as_bytes())).map(|(_, value)| &value[..])
    }

    /// The same, empty where it is not there.
    pub(super) fn text(&self, key: &str) -> Vec<u8> {
        self.get(key).unwrap_or_default().to_vec()
    }
}

/// Every scheme in one header value: servers put several into one line.
pub(super) fn schemes(value: &[u8]) -> Vec<Scheme> {
    let mut schemes: Vec<Scheme> = Vec::new();
    for item in super::transport::split(value, b',') {
        let blank = item.iter().position(|b| b.is_ascii_whitespace());
        let equals = item.iter().position(|&b| b == b'=');
        let begins = match (blank, equals) {
            (None, None) => !item.is_empty(),
            (Some(blank), Some(equals)) => blank < equals && !item[blank..equals].trim_ascii().is_empty(),
            (Some(_), None) => true,
            (None, Some(_)) => false,
        };
        let mut parameter = item;
        if begins {
            let (name, rest) = item.split_at(blank.unwrap_or(item.len()));
            parameter = rest.trim_ascii();
            schemes.push(Scheme { name: name.to_vec(), token: parameter.to_vec(), parameters: Vec::new() });
        }
        let (Some(scheme), Some(at)) = (schemes.last_mut(), parameter.iter().position(|&b| b == b'=')) else { continue };
        let (key, value) = (parameter[..at].trim_ascii(), parameter[at + 1..].trim_ascii());
        scheme.parameters.push((key.to_vec(), unquote(value)));
    }
    schemes
}

fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inside) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else { return value.to_vec() };
    let mut escaped = false;
    let kept = inside.iter().filter(|&&b| {
        escaped = b == b'\\' && !escaped;
        !escaped
    });
    kept.copied().collect()
}

/// In quotes, fit for a header.
pub(super) fn quote(value: &[u8]) -> String {
    let mut out = String::from("\"");
    for c in String::from_utf8_lossy(value).chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Which hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    /// `None` for those that nobody here computes, such as MD5-sess.
    pub(super) fn named(name: Option<&[u8]>) -> Option<Self> {
        match name {
            None => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case(b"MD5") => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case(b"SHA-256") => Some(Self::Sha256),
            Some(_) => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    fn hash(self, parts: &[&[u8]]) -> String {
        let joined = parts.join(&b':');
        match self {
            Self::Md5 => hex(&Md5::digest(joined)),
            Self::Sha256 => hex(&Sha256::digest(joined)),
        }
    }
}

/// What goes into a Digest response.
pub(super) struct Question<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) user: &'a [u8],
    pub(super) realm: &'a [u8],
    pub(super) password: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) uri: &'a [u8],
    pub(super) nonce: &'a [u8],
    /// nc, cnonce and qop, where there is a qop.
    pub(super) quality: Option<(&'a [u8], &'a [u8], &'a [u8])>,
}

impl Question<'_> {
    /// The response in hexadecimal digits (RFC 7616 3.4.1).
    pub(super) fn response(&self) -> String {
        let secret = self.algorithm.hash(&[self.user, self.realm, self.password]);
        let request = self.algorithm.hash(&[self.method, self.uri]);
        match self.quality {
            None => self.algorithm.hash(&[secret.as_bytes(), self.nonce, request.as_bytes()]),
            Some((nc, cnonce, qop)) => self.algorithm.hash(&[secret.as_bytes(), self.nonce, nc, cnonce, qop, request.as_bytes()]),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_schemes_in_one_line_are_told_apart() {
        let line = br#"Digest realm="a, \"b\"", nonce=x ,qop="auth,auth-int", Basic realm="c d", Negotiate, Bearer abc=="#;
        let got = schemes(line);
        let names: Vec<_> = got.iter().map(|s| String::from_utf8_lossy(&s.name).into_owned()).collect();
        assert_eq!(names, ["Digest", "Basic", "Negotiate", "Bearer"]);
        assert_eq!(got[0].get("Realm"), Some(&b"a, \"b\""[..]));
        assert_eq!((got[0].text("nonce"), got[0].text("qop")), (b"x".to_vec(), b"auth,auth-int".to_vec()));
        assert_eq!(got[1].text("realm"), b"c d");
        assert_eq!(got[3].token, b"abc==");
        assert_eq!(quote(b"a\"b\\c"), r#""a\"b\\c""#);
    }

    #[test]
    fn the_examples_of_the_rfcs_come_out() {
        let mut question = Question {
            algorithm: Algorithm::Md5,
            user: b"Mufasa",
            realm: b"http-auth@example.org",
            password: b"Circle of Life",
            method: b"GET",
            uri: b"/dir/index.html",
            nonce: b"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            quality: Some((b"00000001", b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", b"auth")),
        };
        assert_eq!(question.response(), "8ca523f5e9506fed4657c9700eebdbec", "RFC 7616 3.9.1");
        question.algorithm = Algorithm::Sha256;
        assert_eq!(question.response(), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
        let old = Question {
            algorithm: Algorithm::Md5,
            realm: b"testrealm@host.com",
            password: b"CircleOfLife",
            nonce: b"dcd98b7102dd2f0e8b11d0f600bfb0c093",
            quality: None,
            ..question
        };
        assert_eq!(old.response(), "1949323746fe6a43ef61f9606e7febea", "RFC 2069 2.4, as corrected");
    }
}
