//! Pure: what does a new configuration change, and when does each change take effect?
//!
//! A [`View`] is a configuration as it may be compared and told: values as they are, secrets as keyed digests, which say
//! whether two are equal and nothing else.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

use super::effect::{Effect, effect};
use super::finding::{Finding, quoted};
use super::scalar::{DURATION_FORMAT, Span};
use super::schema::{Key, alternatives, keys};
use super::settings::TokenEntry;
use super::{Loaded, TOKENS_FILE, tree};

/// Names told of added, removed or changed tokens.
const NAMES: usize = 5;

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The key.
    pub path: String,
    /// When it takes effect.
    #[serde(serialize_with = "word")]
    pub effect: Effect,
    /// From what to what; a secret is only said to have changed.
    pub text: String,
}

fn word<S: serde::Serializer>(effect: &Effect, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(effect.as_str())
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.path, self.text, self.effect.in_words())
    }
}

/// A value as it may be told to whoever compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Seen {
    /// As it is.
    Value(Value),
    /// A secret's keyed digest.
    Digest(String),
}

/// See the module. Serializes to what one relay may tell another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// What the digests are keyed with.
    pub nonce: String,
    keys: BTreeMap<String, Seen>,
    /// Digest of the tokens that a file holds.
    tokens: String,
}

impl View {
    /// `loaded` under `nonce`; two views are comparable where they share it.
    pub fn new(loaded: &Loaded, nonce: &str) -> Self {
        let hmac = Hmac::<Sha256>::new_from_slice(nonce.as_bytes()).expect("HMAC takes a key of any length");
        let digest = |path: &str, bytes: &[u8]| hex(&hmac.clone().chain_update(path).chain_update([0]).chain_update(bytes));
        let mut seen = BTreeMap::new();
        for key in listed() {
            let value = value(key, &loaded.given.whole);
            let secret = key.secret && !value.is_null();
            let value = if secret { Seen::Digest(digest(&key.path, value.to_string().as_bytes())) } else { Seen::Value(value) };
            seen.insert(key.path.clone(), value);
        }
        let tokens: Vec<u8> = loaded.config.security.auth_tokens.iter().flat_map(token_bytes).collect();
        Self { nonce: nonce.to_owned(), keys: seen, tokens: digest(TOKENS_FILE, &tokens) }
    }

    /// What `new` changes.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut changes: Vec<Change> = listed().filter_map(|key| self.change(new, key)).collect();
        if self.tokens != new.tokens && !changes.iter().any(|change| change.path.starts_with("security.auth_tokens")) {
            let effect = effect(TOKENS_FILE, &Value::Null);
            changes.push(Change { path: TOKENS_FILE.to_owned(), effect, text: "the tokens in it have changed".to_owned() });
        }
        changes
    }

    fn change(&self, new: &Self, key: &Key) -> Option<Change> {
        let (before, after) = (self.keys.get(&key.path), new.keys.get(&key.path));
        if before == after {
            return None;
        }
        let value = if let Some(Seen::Value(value)) = after { value } else { &Value::Null };
        let effect = effect(&key.path, value);
        let text = match (before, after) {
            (Some(_), None) | (None, Some(_)) => "one of the two relays does not know this key".to_owned(),
            _ => format!("{} -> {}", told(before), told(after)),
        };
        let text = if key.secret && told(before) == told(after) { "changed".to_owned() } else { text };
        Some(Change { path: key.path.clone(), effect, text })
    }
}

/// Keys that are compared: a list is one.
fn listed() -> impl Iterator<Item = &'static Key> {
    keys().iter().filter(|key| key.variable.is_some())
}

fn told(seen: Option<&Seen>) -> String {
    match seen {
        None | Some(Seen::Value(Value::Null)) => "not given".to_owned(),
        Some(Seen::Digest(_)) => "(hidden)".to_owned(),
        Some(Seen::Value(Value::String(text))) => quoted(text),
        Some(Seen::Value(value)) => {
            let text = value.to_string();
            if text.len() > 200 { format!("{} items", value.as_array().map_or(1, Vec::len)) } else { text }
        }
    }
}

/// What applies: what was given, in one spelling, or the default.
fn value(key: &Key, given: &Value) -> Value {
    let value = tree::get(given, &key.path).or(key.default.as_ref()).cloned().unwrap_or(Value::Null);
    let duration = alternatives(&key.node).any(|node| node.get("format").and_then(Value::as_str) == Some(DURATION_FORMAT));
    match &value {
        Value::String(text) if duration => Span::parse(text).map_or(value.clone(), |span| span.to_string().into()),
        Value::Number(number) if alternatives(&key.node).any(|node| node.get("type") == Some(&"number".into())) => {
            number.as_f64().map_or(value.clone(), Value::from)
        }
        _ => value,
    }
}

/// What applies, key by key, and the tokens.
pub(super) fn bytes(loaded: &Loaded) -> Vec<u8> {
    let mut all = Vec::new();
    for key in listed() {
        all.extend(format!("{} {}\n", key.path, value(key, &loaded.given.whole)).into_bytes());
    }
    loaded.config.security.auth_tokens.iter().for_each(|entry| all.extend(token_bytes(entry)));
    all
}

fn token_bytes(entry: &TokenEntry) -> Vec<u8> {
    let TokenEntry { token, name, publish, play, streams } = entry;
    format!("{:?}", (token.expose_secret(), name, publish, play, streams)).into_bytes()
}

fn hex(mac: &Hmac<Sha256>) -> String {
    mac.clone().finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What `new` changes in a relay that runs `old`.
pub fn diff(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let mut changes = View::new(old, "").changes(&View::new(new, ""));
    let names = tokens(&old.config.security.auth_tokens, &new.config.security.auth_tokens);
    for change in changes.iter_mut().filter(|change| change.path.starts_with("security.auth_tokens")) {
        if !names.is_empty() {
            names.clone_into(&mut change.text);
        }
    }
    changes
}

/// Which tokens were added, removed or changed, by their names.
fn tokens(old: &[TokenEntry], new: &[TokenEntry]) -> String {
    let same = |a: &TokenEntry, b: &TokenEntry| a.token.expose_secret() == b.token.expose_secret();
    let lacks = |list: &[TokenEntry], entry: &&TokenEntry| !list.iter().any(|other| same(other, entry));
    let names = |verb: &str, entries: Vec<&TokenEntry>| {
        let told: Vec<String> = entries.iter().take(NAMES).map(|entry| format!("{:?}", entry.name)).collect();
        let more = if entries.len() > NAMES { format!(" and {} more", entries.len() - NAMES) } else { String::new() };
        (!entries.is_empty()).then(|| format!("{verb} {}{more}", told.join(", ")))
    };
    let removed = old.iter().filter(|entry| lacks(new, entry)).collect();
    let added = new.iter().filter(|entry| lacks(old, entry)).collect();
    let changed = new.iter().filter(|entry| old.iter().any(|other| same(other, entry) && other != *entry)).collect();
    let parts = [names("removed", removed), names("added", added), names("changed", changed)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Keys that have changed in the file without effect, because a variable of the environment wins.
pub fn overridden(old: &Loaded, new: &Loaded) -> Vec<Finding> {
    let from_variable = listed().filter_map(|key| Some((key, new.from_environment.get(&key.path)?)));
    let changed = from_variable.filter(|(key, _)| value(key, &old.given.file) != value(key, &new.given.file));
    let say = |(key, variable): (&Key, &String)| {
        Finding::new(&key.path, format!("has changed in the file, but the variable {variable} wins"))
    };
    changed.map(say).collect()
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
