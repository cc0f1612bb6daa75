//! Pure: which keys are there? Derived from `file`, so that schema, variables, shape check and documents cannot disagree.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::file::File;
use super::shape;

/// One key of the configuration.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its place in the JSON, as "retry.max_attempts" or "upstreams[].url".
    pub path: String,
    /// Its environment variable; `None` for a key inside a list.
    pub variable: Option<String>,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// What applies when it is absent; `None` when there is nothing to apply.
    pub default: Option<Value>,
    /// What it does.
    pub description: String,
    /// What may be written, as "a whole number from 1 to 1000".
    pub form: String,
    pub(super) node: Value,
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<File>().to_value();
    tidy(&mut schema);
    schema
});

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    collect(&SCHEMA, "", false, &mut keys);
    keys
});

/// The JSON Schema of the configuration, as `relay --print-schema` prints it.
pub fn schema() -> &'static Value {
    &SCHEMA
}

/// Every key that holds a value, in the order of the documents.
pub fn keys() -> &'static [Key] {
    &KEYS
}

/// Names of the objects at the top, such as "retry".
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    properties(&SCHEMA).into_iter().flatten().filter(|(_, node)| properties(node).is_some()).map(|(name, _)| name.as_str())
}

/// The keys of an object's schema.
pub(super) fn properties(node: &Value) -> Option<&Map<String, Value>> {
    node.get("properties")?.as_object()
}

/// The known name that comes nearest to `name`, if one comes near at all.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // listenAddr, listen-addr and LISTEN_ADDR are the same slip.
    let plain = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let wanted = plain(name);
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&plain(candidate), &wanted);
    known.min_by_key(distance).filter(|best| distance(best) <= (wanted.chars().count() / 3).max(1))
}

/// Defaults of whole sections repeat those of their keys; formats such as "uint64" say nothing to a reader.
fn tidy(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if map.contains_key("properties") {
                map.shift_remove("default");
            }
            if map.get("format").and_then(Value::as_str).is_some_and(|format| matches!(format, "uint64" | "double")) {
                map.shift_remove("format");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn collect(node: &Value, prefix: &str, secret: bool, keys: &mut Vec<Key>) {
    for (name, child) in properties(node).into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let secret = secret || child.get("writeOnly") == Some(&Value::Bool(true));
        if properties(child).is_some() {
            collect(child, &path, secret, keys);
            continue;
        }
        let variable = (!path.contains("[]")).then(|| path.replace('.', "_").to_uppercase());
        let description = child.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        let default = child.get("default").cloned();
        let form = shape::form(child, &path);
        keys.push(Key { path: path.clone(), variable, secret, default, description, form, node: child.clone() });
        for item in child.get("items").into_iter().flat_map(alternatives) {
            collect(item, &format!("{path}[]"), secret, keys);
        }
    }
}

/// What a value may be: the node itself, or each of its `anyOf`.
pub(super) fn alternatives(node: &Value) -> impl Iterator<Item = &Value> {
    let several = node.get("anyOf").and_then(Value::as_array);
    several.into_iter().flatten().chain(several.is_none().then_some(node))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_says_what_it_does_and_what_applies_without_it() {
        assert!(keys().len() > 50);
        for key in keys() {
            assert!(!key.description.is_empty(), "{} has no description", key.path);
            let needed = [
                "upstream",
                "upstreams",
                "upstreams[].url",
                "listeners[].addr",
                "routes[].upstreams",
                "routes[].strategy",
                "security.auth_tokens[].token",
                "security.users[].user",
                "security.users[].password",
            ];
            assert_eq!(key.default.is_none(), needed.contains(&key.path.as_str()), "default of {}", key.path);
        }
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let variables: Vec<_> = keys().iter().filter_map(|key| key.variable.as_deref()).collect();
        assert_eq!(variables.len(), variables.iter().collect::<BTreeSet<_>>().len());
        for expected in ["LISTEN_ADDR", "UPSTREAM", "SECURITY_AUTH_TOKENS", "RETRY_MAX_ATTEMPTS", "LOG_LEVEL"] {
            assert!(variables.contains(&expected), "{expected}");
        }
    }

    #[test]
    fn what_is_secret_is_known() {
        let secret: Vec<_> = keys().iter().filter(|key| key.secret && key.variable.is_some()).map(|key| &*key.path).collect();
        let known = ["upstream", "upstreams", "security.auth_tokens", "security.users", "security.auth_secret"];
        assert_eq!(secret, [&known[..], &["security.admin_token", "log.fingerprint_key"]].concat());
    }

    #[test]
    fn the_nearest_name_is_found_across_ways_of_writing() {
        let known = || ["listen_addr", "upstream", "upstreams"].into_iter();
        assert_eq!(nearest("listenAddr", known()), Some("listen_addr"));
        assert_eq!(nearest("UPSTEAM", known()), Some("upstream"));
        assert_eq!(nearest("colour", known()), None);
        assert_eq!(nearest("", known()), None);
    }
}
