//! Stream names as logs and /status may show them: for many users the name is the key that lets publish.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use secrecy::ExposeSecret;
use sha2::Sha256;

use crate::config::{Log, StreamNames};

/// Characters of a masked name that are shown.
const SHOWN: usize = 2;
/// Names up to this many characters are not shown at all: two of them would be half the name.
const SHORT: usize = 4;
/// Bytes of the HMAC in a fingerprint: 40 bits keep a few thousand streams apart and give nothing away.
const FINGERPRINT: usize = 5;

/// A stream's name, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The app.
    pub app: String,
    /// The stream.
    pub stream: String,
    /// Stands for `app/stream`, in ten hex digits.
    pub fingerprint: String,
}

/// Knows how names are shown. The same name has the same fingerprint for as long as the key is the same.
#[derive(Clone)]
pub struct Masker {
    hmac: Hmac<Sha256>,
    plain: bool,
    /// The key is one that nobody chose.
    random: bool,
}

impl Masker {
    /// As the log settings ask; without `fingerprint_key` the key is random, and fingerprints last until the next start.
    pub fn new(log: &Log) -> Self {
        let plain = log.stream_names == StreamNames::Plain;
        match &log.fingerprint_key {
            Some(key) => Self::with(key.expose_secret().as_bytes(), plain),
            None => Self { plain, ..Self::random() },
        }
    }

    /// The same after a change of the settings: a random key stays while none is chosen.
    #[must_use]
    pub fn changed(&self, log: &Log) -> Self {
        let plain = log.stream_names == StreamNames::Plain;
        match &log.fingerprint_key {
            None if self.random => Self { plain, ..self.clone() },
            _ => Self::new(log),
        }
    }

    /// Masks, with a key that nobody knows.
    pub fn random() -> Self {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        Self { random: true, ..Self::with(&key, false) }
    }

    fn with(key: &[u8], plain: bool) -> Self {
        // HMAC takes a key of any length (RFC 2104).
        let hmac = Hmac::new_from_slice(key).expect("any length is right");
        Self { hmac, plain, random: false }
    }

    /// Ten hex digits for a joined name, `app/stream`.
    pub fn fingerprint(&self, name: &[u8]) -> String {
        self.digest(name, FINGERPRINT)
    }

    /// The first `length` bytes of the keyed digest, in hex.
    pub fn digest(&self, bytes: &[u8], length: usize) -> String {
        let digest = self.hmac.clone().chain_update(bytes).finalize().into_bytes();
        digest.iter().take(length).fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// A joined name, `app/stream`.
    pub fn mask(&self, name: &[u8]) -> String {
        if self.plain { escape(name) } else { masked(name, &self.fingerprint(name)) }
    }

    /// App and stream apart, both under the fingerprint of the joined name.
    ///
    /// Masked, the app keeps its first segment ("live"), which operators need and which is no secret; what follows is part of
    /// a path that someone may have chosen as a key. An app without a stream is masked like a stream.
    pub fn shown(&self, app: &[u8], stream: &[u8]) -> Shown {
        let joined: Vec<u8> = [app, stream].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'/');
        let fingerprint = self.fingerprint(&joined);
        if self.plain {
            return Shown { app: escape(app), stream: escape(stream), fingerprint };
        }
        let (app, stream) = match (app.is_empty(), stream.is_empty()) {
            (_, false) => (first_segment(app), masked(stream, &fingerprint)),
            (false, true) => (masked(app, &fingerprint), String::new()),
            (true, true) => (String::new(), String::new()),
        };
        Shown { app, stream, fingerprint }
    }
}

fn first_segment(app: &[u8]) -> String {
    match app.iter().position(|&b| b == b'/') {
        Some(at) => format!("{}/…", escape(&app[..at])),
        None => escape(app),
    }
}

fn masked(name: &[u8], fingerprint: &str) -> String {
    let text = String::from_utf8_lossy(name);
    let shown: String = if text.chars().count() > SHORT { text.chars().take(SHOWN).collect() } else { String::new() };
    let ellipsis = if shown.is_empty() { "" } else { "…" };
    format!("{}{ellipsis}#{fingerprint}", escape(shown.as_bytes()))
}

/// Text as it is; control characters, what turns or breaks a line where it is shown, and bytes that are no UTF-8 as escapes.
fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || turns_or_breaks(c) { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Separators of lines and paragraphs, and what changes the direction of writing (Unicode's Bidi_Control): a name could look like
/// another one with it, or like the next field of its line.
fn turns_or_breaks(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masker(plain: bool) -> Masker {
        Masker::with(b"key", plain)
    }

    #[test]
    fn a_masked_name_shows_two_characters_and_the_fingerprint() {
        let shown = masker(false).shown(b"live", b"secret-key");
        assert_eq!(shown.app, "live");
        assert_eq!(shown.stream, format!("se…#{}", shown.fingerprint));
        assert_eq!(shown.fingerprint.len(), 10);
        assert!(shown.fingerprint.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(shown.fingerprint, masker(true).fingerprint(b"live/secret-key"), "found again from the joined name");
    }

    #[test]
    fn a_short_name_is_all_fingerprint() {
        let masker = masker(false);
        assert_eq!(masker.mask(b"abcd"), format!("#{}", masker.fingerprint(b"abcd")));
        assert!(masker.mask(b"abcde").starts_with("ab…#"));
        assert!(masker.mask("äöüß".as_bytes()).starts_with('#'), "characters count, not bytes");
    }

    #[test]
    fn deeper_segments_of_an_app_and_an_app_without_stream_are_masked() {
        let masker = masker(false);
        assert_eq!(masker.shown(b"live/user-key", b"720p").app, "live/…");
        let lone = masker.shown(b"secret-key", b"");
        assert_eq!((lone.app, lone.stream.as_str()), (format!("se…#{}", lone.fingerprint), ""));
    }

    #[test]
    fn plain_names_are_escaped_so_that_no_byte_can_break_a_line() {
        let masker = masker(true);
        assert_eq!(masker.mask(b"live/caf\xc3\xa9\xff\n\x1b[31m"), "live/café\\xff\\n\\u{1b}[31m");
        assert_eq!(masker.shown(b"a/b", b"cam").app, "a/b");
        assert_eq!(masker.mask("cam\u{202e}1\u{2028}2\u{85}".as_bytes()), "cam\\u{202e}1\\u{2028}2\\u{85}");
    }

    #[test]
    fn another_key_gives_another_fingerprint() {
        assert_ne!(Masker::random().fingerprint(b"live/cam"), Masker::random().fingerprint(b"live/cam"));
        assert_eq!(masker(false).fingerprint(b"live/cam"), masker(false).fingerprint(b"live/cam"));
    }
}
