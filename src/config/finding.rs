//! Pure: what is wrong with a configuration, said so that the line can be found and put right, and so that no secret is said.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Longest piece of a value that an error repeats, in characters.
const SHOWN: usize = 60;

/// One thing to say about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The key as "retry.max_attempts" or "upstreams[1].url", or the variable or file that it came from.
    pub at: String,
    /// What was found, and what would be right. Holds no secret.
    pub text: String,
}

impl Finding {
    pub(super) fn new(at: impl Into<String>, text: impl Into<String>) -> Self {
        Self { at: at.into(), text: text.into() }
    }

    /// The usual sentence.
    pub(super) fn expected(at: impl Into<String>, found: &str, right: &str) -> Self {
        Self::new(at, format!("found {found}; expected {right}"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() { f.write_str(&self.text) } else { write!(f, "{}: {}", self.at, self.text) }
    }
}

/// Everything that is wrong with a configuration, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// Where the configuration came from: a file's name, or "the environment".
    pub source: String,
    /// What must be put right; never empty.
    pub errors: Vec<Finding>,
    /// What would be worth a look as well.
    pub warnings: Vec<Finding>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len();
        write!(f, "{}: {count} problem{}", self.source, if count == 1 { "" } else { "s" })?;
        self.errors.iter().try_for_each(|error| write!(f, "\n  error: {error}"))?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\n  warning: {warning}"))
    }
}

impl std::error::Error for Problems {}

/// Which keys came from the environment: path to the variable's name.
pub(super) type Origin = BTreeMap<String, String>;

/// The name by which the reader of an error can find `path`: the variable, if its value came from one.
pub(super) fn place(origin: &Origin, path: &str) -> String {
    let end = path.find('[').unwrap_or(path.len());
    match origin.get(&path[..end]) {
        Some(variable) => format!("{variable}{}", &path[end..]),
        None => path.to_owned(),
    }
}

/// A value as an error may repeat it. Of a secret only the kind is said.
pub(super) fn shown(value: &Value, secret: bool) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::Bool(_) if secret => "true or false".into(),
        Value::Number(_) if secret => "a number".into(),
        Value::String(_) if secret => "a string".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
    }
}

/// Text in quotes, cut to a bearable length. A URL that went astray shows its scheme alone: it may hold a stream key.
pub(super) fn quoted(text: &str) -> String {
    if let Some((scheme, _)) = text.split_once("://") {
        return format!("a URL ({:?})", shortened(scheme) + "://...");
    }
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_no_secret_no_url_and_no_novel() {
        assert_eq!(shown(&"hush".into(), true), "a string");
        assert_eq!(shown(&5.into(), true), "a number");
        assert_eq!(shown(&"yes\n".into(), false), "\"yes\\n\"");
        assert_eq!(quoted("rtmp://u:p@host/live/key"), "a URL (\"rtmp://...\")");
        assert_eq!(quoted(&"ä".repeat(500)).chars().count(), SHOWN + 5);
    }

    #[test]
    fn a_value_from_the_environment_is_named_by_its_variable() {
        let origin = Origin::from([("security.auth_tokens".into(), "SECURITY_AUTH_TOKENS".into())]);
        assert_eq!(place(&origin, "security.auth_tokens[2].name"), "SECURITY_AUTH_TOKENS[2].name");
        assert_eq!(place(&origin, "upstreams[0].url"), "upstreams[0].url");
    }
}
