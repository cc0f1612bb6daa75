//! What do the environment's variables change? Every key has one; what is set there wins over the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::finding::{Finding, Origin};
use super::schema::{Key, alternatives, keys, nearest, properties, sections};
use super::{read_text, tree};

/// Variables as they were at one time. Holds secrets: neither printable nor comparable.
#[derive(Clone, Default)]
pub struct Env {
    // `None`: not UTF-8.
    variables: BTreeMap<String, Option<String>>,
}

impl Env {
    /// This process's variables.
    pub fn of_process() -> Self {
        Self::from_os(std::env::vars_os())
    }

    /// No variable at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Whether an upstream is named, so that no file is needed.
    pub(super) fn names_an_upstream(&self) -> bool {
        let names = ["UPSTREAM", "UPSTREAMS", "UPSTREAM_FILE", "UPSTREAMS_FILE"];
        names.iter().any(|name| self.get(name).is_some_and(|value| value.as_deref() != Some("")))
    }

    fn from_os(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let readable = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()));
        Self { variables: variables.filter_map(readable).collect() }
    }

    fn get(&self, name: &str) -> Option<&Option<String>> {
        self.variables.get(name)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Env {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self { variables: pairs.into_iter().map(|(name, value)| (name.to_owned(), Some(value.to_owned()))).collect() }
    }
}

/// What the environment did to a tree.
#[derive(Default)]
pub(super) struct Overlay {
    /// Which keys it set.
    pub(super) origin: Origin,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

/// Keys for which the empty text means something, so that an empty variable is no mistake.
const EMPTY_MEANS_SOMETHING: [&str; 2] = ["http_addr", "admin_addr"];

/// Writes the variables into `tree`, which holds the file.
pub(super) fn overlay(tree: &mut Value, env: &Env) -> Overlay {
    let mut overlay = Overlay::default();
    let in_file: Vec<&str> = ["upstream", "upstreams"].into_iter().filter(|key| tree.get(key).is_some()).collect();
    if in_file.len() == 2 {
        overlay.errors.push(Finding::new("upstreams", "`upstream` and `upstreams` are both given; keep one"));
    }
    for key in keys() {
        if let Some((variable, text)) = overlay.text(env, key) {
            overlay.set(tree, key, variable, &text);
        }
    }
    overlay.settle_upstreams(tree, &in_file);
    overlay.strays(env);
    overlay
}

impl Overlay {
    fn error(&mut self, variable: &str, text: impl Into<String>) {
        self.errors.push(Finding::new(variable, text));
    }

    /// What the variable of `key` says, or the file that its `_FILE` form names.
    fn text(&mut self, env: &Env, key: &Key) -> Option<(String, String)> {
        let variable = key.variable.as_deref()?;
        let by_file = file_variable(key).filter(|name| env.get(name).is_some_and(|value| value.as_deref() != Some("")));
        let direct = env.get(variable);
        let empty = direct.is_some_and(|value| value.as_deref() == Some(""));
        if empty && !EMPTY_MEANS_SOMETHING.contains(&&*key.path) {
            self.warnings.push(Finding::new(variable, "is set but empty, and is taken as not set"));
            return self.file_text(env, by_file?);
        }
        match (direct, by_file) {
            (Some(_), Some(by_file)) => {
                self.error(variable, format!("is set together with {by_file}; keep one"));
                None
            }
            (Some(Some(text)), None) => Some((variable.to_owned(), text.clone())),
            (Some(None), None) => {
                self.error(variable, "is not valid UTF-8");
                None
            }
            (None, Some(by_file)) => self.file_text(env, by_file),
            (None, None) => None,
        }
    }

    fn file_text(&mut self, env: &Env, variable: String) -> Option<(String, String)> {
        let Some(path) = env.get(&variable).and_then(Option::as_deref) else {
            self.error(&variable, "is not valid UTF-8");
            return None;
        };
        match read_text(Path::new(path)) {
            // Secrets in files end with a line feed, which is not meant.
            Ok(text) => Some((variable, text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(reason) => {
                self.error(&variable, format!("the file {path:?} cannot be read: {reason}"));
                None
            }
        }
    }

    fn set(&mut self, tree: &mut Value, key: &Key, variable: String, text: &str) {
        match as_json(&key.node, text) {
            Ok(value) => {
                tree::set(tree, &key.path, value);
                self.origin.insert(key.path.clone(), variable);
            }
            Err(reason) => self.error(&variable, reason),
        }
    }

    /// Where streams go is one choice with two spellings: whoever sets either in the environment has chosen.
    fn settle_upstreams(&mut self, tree: &mut Value, in_file: &[&str]) {
        let name = |key: &str| self.origin.get(key).cloned();
        let (variable, replaced) = match (name("upstream"), name("upstreams")) {
            (Some(one), Some(other)) => return self.error(&one, format!("is set together with {other}; keep one")),
            (Some(variable), None) => (variable, "upstreams"),
            (None, Some(variable)) => (variable, "upstream"),
            (None, None) => return,
        };
        if let Value::Object(map) = tree {
            map.shift_remove(replaced);
        }
        if let Some(key) = in_file.first() {
            // What it replaces need not be judged any more, and two at once in the file neither.
            self.errors.retain(|error| error.at != "upstreams");
            self.warnings.push(Finding::new(variable, format!("from the environment replaces `{key}` of the file")));
        }
    }

    /// Names that look like ours and are not: a slip of the pen must not go unnoticed.
    fn strays(&mut self, env: &Env) {
        let known: Vec<String> =
            keys().iter().flat_map(|key| key.variable.clone().into_iter().chain(file_variable(key))).collect();
        let prefixes: Vec<String> = sections().map(|section| format!("{}_", section.to_uppercase())).collect();
        for name in env.variables.keys().filter(|name| !known.contains(name)) {
            let ours = prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
            let near = nearest(name, known.iter().map(String::as_str));
            // Without a prefix only one wrong letter counts: other programs have variables too.
            let slip = near.filter(|near| near.len() >= 8 && strsim::damerau_levenshtein(near, name) == 1);
            match (ours, near, slip) {
                (true, Some(near), _) | (false, _, Some(near)) => {
                    self.warnings.push(Finding::new(name, format!("names no key and has no effect; did you mean {near}?")));
                }
                (true, None, _) => self.warnings.push(Finding::new(name, "names no key and has no effect")),
                (false, _, None) => {}
            }
        }
    }
}

/// The variable that names a file with the secret: docker and Kubernetes hand secrets over like this. (Tokens have a key of that
/// name, `security.auth_tokens_file`, which does just that.)
fn file_variable(key: &Key) -> Option<String> {
    let name = format!("{}_FILE", key.variable.as_deref()?);
    let is_key = keys().iter().any(|other| other.variable.as_deref() == Some(&name));
    (key.secret && !is_key).then_some(name)
}

/// Text as the JSON that `node` wants. What cannot be turned stays text: the shape check then says what was found and expected.
fn as_json(node: &Value, text: &str) -> Result<Value, String> {
    let types: Vec<&str> = alternatives(node).map(|node| node.get("type").and_then(Value::as_str).unwrap_or("string")).collect();
    let text = text.trim();
    if types.contains(&"array") {
        return list(node, &types, text);
    }
    let json = match types.first() {
        Some(&"boolean") => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(Value::Bool(true)),
            "false" | "no" | "off" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        Some(&("integer" | "number")) => serde_json::from_str(text).ok().filter(Value::is_number),
        _ => None,
    };
    Ok(json.unwrap_or_else(|| text.into()))
}

fn list(node: &Value, types: &[&str], text: &str) -> Result<Value, String> {
    if text.starts_with(['[', '{']) {
        return tree::parse(text);
    }
    let item = node.get("items").unwrap_or(&Value::Null);
    if item.get("type").and_then(Value::as_str) == Some("object") {
        let url = properties(item).is_some_and(|known| known.contains_key("url"));
        let such = if url { ", such as [{\"url\": \"rtmp://origin.example.com/live\"}]" } else { ": [{...}]" };
        return Err(format!("expected a JSON list of objects{such}"));
    }
    // `forward_query`: "all" and "none" are words, everything else is a list.
    if types.contains(&"string") && matches!(text, "all" | "none") {
        return Ok(text.into());
    }
    Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    fn laid(file: Value, variables: &[(&str, &str)]) -> (Value, Overlay) {
        let mut tree = file;
        let overlay = overlay(&mut tree, &variables.iter().copied().collect());
        (tree, overlay)
    }

    fn texts(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn each_kind_of_value_is_read_from_text() {
        let (tree, overlay) = laid(
            json!({ "read_buffer": 4096, "retry": { "max_attempts": 9 } }),
            &[
                ("READ_BUFFER", "8192"),
                ("RETRY_MULTIPLIER", "1.5"),
                ("RETRY_ENABLED", "off"),
                ("IDLE_TIMEOUT", " 5m "),
                ("HTTP_ADDR", ""),
                ("SECURITY_AUTH_TOKENS", "one, two,"),
                ("SECURITY_ALLOWED_CLIENTS", "[\"10.0.0.0/8\"]"),
                ("FORWARD_QUERY", "user,session"),
                ("WORKERS", "many"),
            ],
        );
        let expected = json!({
            "read_buffer": 8192, "retry": { "max_attempts": 9, "enabled": false, "multiplier": 1.5 }, "idle_timeout": "5m",
            "http_addr": "", "security": { "auth_tokens": ["one", "two"], "allowed_clients": ["10.0.0.0/8"] },
            "forward_query": ["user", "session"], "workers": "many",
        });
        assert_eq!(tree, expected);
        assert!(overlay.errors.is_empty() && overlay.warnings.is_empty());
        assert_eq!(overlay.origin.get("retry.enabled").map(String::as_str), Some("RETRY_ENABLED"));
    }

    #[test]
    fn lists_of_objects_are_json() {
        let (tree, overlay) = laid(json!({}), &[("UPSTREAMS", "[{\"url\": \"rtmp://a\"}]")]);
        assert!(overlay.errors.is_empty());
        assert_eq!(tree["upstreams"][0]["url"], "rtmp://a");
        for wrong in ["rtmp://user:hush@a", "[{\"url\": \"rtmp://hush"] {
            let (_, overlay) = laid(json!({}), &[("UPSTREAMS", wrong)]);
            assert_eq!(overlay.errors.len(), 1);
            assert!(!overlay.errors[0].text.contains("hush"), "{}", overlay.errors[0]);
        }
    }

    #[test]
    fn an_upstream_of_the_environment_replaces_both_and_says_so() {
        for key in ["upstream", "upstreams"] {
            let (tree, overlay) = laid(json!({ key: "old" }), &[("UPSTREAM", "rtmp://new")]);
            assert_eq!(tree, json!({ "upstream": "rtmp://new" }));
            assert_eq!(texts(&overlay.warnings), [format!("UPSTREAM: from the environment replaces `{key}` of the file")]);
        }
        let (tree, overlay) = laid(json!({ "upstream": "old", "upstreams": [] }), &[("UPSTREAMS", "[]")]);
        assert_eq!(tree, json!({ "upstreams": [] }));
        assert!(overlay.errors.is_empty());
    }

    #[test]
    fn upstream_and_upstreams_in_one_source_is_an_error() {
        assert_eq!(laid(json!({ "upstream": "a", "upstreams": [] }), &[]).1.errors.len(), 1);
        assert_eq!(laid(json!({}), &[("UPSTREAM", "a"), ("UPSTREAMS", "[]")]).1.errors.len(), 1);
    }

    #[test]
    fn a_secret_is_read_from_the_file_that_its_variable_names() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "rtmp://origin/live").unwrap();
        let path = file.path().to_str().unwrap();
        let (tree, _) = laid(json!({}), &[("UPSTREAM_FILE", path), ("UPSTREAM", "")]);
        assert_eq!(tree, json!({ "upstream": "rtmp://origin/live" }));
        let (_, overlay) = laid(json!({}), &[("UPSTREAM_FILE", path), ("UPSTREAM", "rtmp://a")]);
        assert_eq!(texts(&overlay.errors), ["UPSTREAM: is set together with UPSTREAM_FILE; keep one"]);
        let (_, overlay) = laid(json!({}), &[("LOG_FINGERPRINT_KEY_FILE", "/nowhere/key")]);
        assert!(overlay.errors[0].to_string().starts_with("LOG_FINGERPRINT_KEY_FILE: the file \"/nowhere/key\" cannot be read"));
        let (tree, _) = laid(json!({}), &[("SECURITY_AUTH_TOKENS_FILE", "/run/tokens")]);
        assert_eq!(tree, json!({ "security": { "auth_tokens_file": "/run/tokens" } }));
    }

    #[test]
    fn a_variable_that_only_looks_like_ours_is_named() {
        let strays = [
            ("SECURITY_AUTH_TOKEN", "hush"),
            ("RETRY_COLOUR", "blue"),
            ("UPSTEAM", "rtmp://hush"),
            ("PATH", "/bin"),
            ("UPSTREAM_PORT", "tcp://10.0.0.1"),
        ];
        let (_, overlay) = laid(json!({}), &strays);
        assert_eq!(
            texts(&overlay.warnings),
            [
                "RETRY_COLOUR: names no key and has no effect",
                "SECURITY_AUTH_TOKEN: names no key and has no effect; did you mean SECURITY_AUTH_TOKENS?",
                "UPSTEAM: names no key and has no effect; did you mean UPSTREAM?",
            ]
        );
    }

    #[test]
    fn an_empty_variable_is_taken_as_not_set_and_said() {
        let (tree, overlay) = laid(json!({ "upstream": "rtmp://a" }), &[("UPSTREAM", "")]);
        assert_eq!(tree, json!({ "upstream": "rtmp://a" }));
        assert_eq!(texts(&overlay.warnings), ["UPSTREAM: is set but empty, and is taken as not set"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_no_text_is_an_error_and_a_stranger_s_is_not() {
        use std::os::unix::ffi::OsStringExt;
        let broken = || OsString::from_vec(vec![0xff]);
        let env = Env::from_os([("UPSTREAM".into(), broken()), ("OTHER".into(), broken())].into_iter());
        let overlay = overlay(&mut json!({}), &env);
        assert_eq!(texts(&overlay.errors), ["UPSTREAM: is not valid UTF-8"]);
    }
}
