//! Pure: a piece of an upstream URL in which `{app}` and `{stream}` may stand.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::target::TargetError;
use super::url::UrlError;
use crate::protocol::name::Identity;

/// What stays as it is in a query value: RFC 3986's unreserved characters.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How a client's name is written into the text around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// As it is: its segments have been judged.
    Path,
    /// Percent-encoded, so that a name cannot begin an argument of its own.
    Query,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    App,
    Stream,
}

/// Text with holes.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Finds the holes in `text`.
    ///
    /// # Errors
    /// [`UrlError::Placeholder`] for a brace that belongs to neither of the two.
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            push_text(&mut pieces, &rest[..at]);
            rest = &rest[at..];
            let (piece, behind) = if let Some(behind) = rest.strip_prefix("{app}") {
                (Piece::App, behind)
            } else if let Some(behind) = rest.strip_prefix("{stream}") {
                (Piece::Stream, behind)
            } else {
                return Err(UrlError::Placeholder);
            };
            pieces.push(piece);
            rest = behind;
        }
        push_text(&mut pieces, rest);
        Ok(Self { pieces })
    }

    /// The text with the holes filled in, in one pass: what a name brings is never read as a hole again.
    ///
    /// # Errors
    /// [`TargetError::MissingApp`] and [`TargetError::MissingStream`] where a hole has nothing to be filled with.
    pub(super) fn expand(&self, identity: &Identity, place: Place) -> Result<Vec<u8>, TargetError> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            let value = match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Piece::App if identity.app.is_empty() => return Err(TargetError::MissingApp),
                Piece::App => &identity.app,
                Piece::Stream if identity.stream.is_empty() => return Err(TargetError::MissingStream),
                Piece::Stream => &identity.stream,
            };
            match place {
                Place::Path => out.extend_from_slice(value),
                Place::Query => out.extend(percent_encode(value, QUERY_VALUE).flat_map(str::bytes)),
            }
        }
        Ok(out)
    }

    /// The text as it was written, holes and all.
    pub(super) fn written(&self) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(&String::from_utf8_lossy(text)),
                Piece::App => out.push_str("{app}"),
                Piece::Stream => out.push_str("{stream}"),
            }
        }
        out
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.as_bytes().to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str, app: &str, stream: &str, place: Place) -> Result<String, TargetError> {
        let identity = Identity { app: app.into(), stream: stream.into() };
        let template = Template::parse(text).expect("a template");
        assert_eq!(template.written(), text);
        template.expand(&identity, place).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn holes_are_filled_once() {
        assert_eq!(expand("x-{app}-{stream}.{stream}", "a/b", "{app}", Place::Path), Ok("x-a/b-{app}.{app}".into()));
    }

    #[test]
    fn in_a_query_a_name_cannot_begin_an_argument() {
        let got = expand("k={app}&s={stream}", "a/b", "c&d=e?#+ %é", Place::Query);
        assert_eq!(got, Ok("k=a%2Fb&s=c%26d%3De%3F%23%2B%20%25%C3%A9".into()));
    }

    #[test]
    fn a_hole_without_a_name_is_an_error_for_the_client() {
        assert_eq!(expand("{app}", "", "s", Place::Path), Err(TargetError::MissingApp));
        assert_eq!(expand("{stream}", "a", "", Place::Query), Err(TargetError::MissingStream));
    }

    #[test]
    fn other_braces_are_refused() {
        for text in ["{name}", "{app", "app}", "{}", "{{app}}", "{App}", "{app}{"] {
            assert!(matches!(Template::parse(text), Err(UrlError::Placeholder)), "{text}");
        }
    }
}
