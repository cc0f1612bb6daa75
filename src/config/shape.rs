//! Pure: has this JSON the shape that the schema states? Finds every unknown key, wrong type and value out of bounds at once;
//! serde, which runs afterwards, stops at its first.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::finding::{Finding, Origin, place, quoted, shown};
use super::scalar::{DURATION_FORM, DURATION_FORMAT, Span};
use super::schema::{alternatives, keys, nearest, properties};

/// The walk over one JSON tree.
pub(super) struct Shape<'a> {
    origin: &'a Origin,
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
    bad: BTreeSet<Vec<String>>,
}

/// Where the walk is.
#[derive(Clone)]
struct Place {
    /// As people read it: "upstreams[1].url".
    path: String,
    /// Names down to the first list: what is taken out when something below is wrong.
    steps: Vec<String>,
    in_list: bool,
    secret: bool,
}

impl Place {
    fn child(&self, name: &str, node: Option<&Value>) -> Self {
        let mut child = self.clone();
        child.path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        child.secret |= node.and_then(|node| node.get("writeOnly")) == Some(&Value::Bool(true));
        if !self.in_list {
            child.steps.push(name.to_owned());
        }
        child
    }

    fn item(&self, index: usize) -> Self {
        Self { path: format!("{}[{index}]", self.path), in_list: true, ..self.clone() }
    }
}

impl<'a> Shape<'a> {
    /// A walk that names values from the environment by their variables.
    pub(super) fn new(origin: &'a Origin) -> Self {
        Self { origin, findings: Vec::new(), bad: BTreeSet::new() }
    }

    /// Looks at `tree`, which stands at `path` in the configuration ("" for all of it).
    pub(super) fn walk(&mut self, node: &Value, tree: &Value, path: &str, secret: bool) {
        let steps = if path.is_empty() { Vec::new() } else { vec![path.to_owned()] };
        self.value(node, tree, &Place { path: path.to_owned(), steps, in_list: false, secret });
    }

    /// Takes every key with something wrong in it out of `tree`, so that the rest can be judged too; returns those keys.
    pub(super) fn prune(&self, tree: &mut Value) -> BTreeSet<String> {
        for steps in &self.bad {
            let Some((last, parents)) = steps.split_last() else { continue };
            let parent = parents.iter().try_fold(&mut *tree, |node, step| node.get_mut(step));
            if let Some(Value::Object(map)) = parent {
                map.shift_remove(last);
            }
        }
        self.bad.iter().map(|steps| steps.join(".")).collect()
    }

    fn report(&mut self, at: &Place, text: impl Into<String>) {
        self.findings.push(Finding::new(place(self.origin, &at.path), text));
        self.bad.insert(at.steps.clone());
    }

    fn value(&mut self, whole: &Value, value: &Value, at: &Place) {
        let Some(node) = alternatives(whole).find(|node| has_type(node, value)) else {
            return self.report(at, mismatch(whole, value, at));
        };
        match value {
            Value::Object(map) => self.object(node, map, at),
            Value::Array(items) => {
                let item = node.get("items").unwrap_or(&Value::Null);
                items.iter().enumerate().for_each(|(index, value)| self.value(item, value, &at.item(index)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                if !in_bounds(node, value) {
                    self.report(at, mismatch(whole, value, at));
                }
            }
        }
    }

    fn object(&mut self, node: &Value, map: &Map<String, Value>, at: &Place) {
        for (name, value) in map {
            match properties(node).and_then(|known| known.get(name)) {
                Some(child) => self.value(child, value, &at.child(name, Some(child))),
                None => self.unknown(node, name, at),
            }
        }
        for name in node.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                self.report(at, format!("the key `{name}` is missing"));
            }
        }
    }

    fn unknown(&mut self, node: &Value, name: &str, at: &Place) {
        let (hint, near) = hint(node, name, at);
        // Among tokens a name that resembles none of ours may be a token itself.
        if at.secret && !near {
            return self.report(at, format!("holds an unknown key (not shown, it may be a secret); {hint}"));
        }
        let mut child = at.child(&shown_name(name), None);
        if let (false, Some(step)) = (at.in_list, child.steps.last_mut()) {
            *step = name.to_owned();
        }
        self.report(&child, format!("unknown key; {hint}"));
    }
}

/// What an unknown key was probably meant to be, and whether that is a name near to it.
fn hint(node: &Value, name: &str, at: &Place) -> (String, bool) {
    let known: Vec<&str> = properties(node).into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let paths = || keys().iter().map(|key| key.path.as_str()).filter(|_| !at.in_list);
    if let Some((section, rest)) = name.split_once('.').filter(|_| paths().any(|path| path == name)) {
        return (format!("write \"{section}\": {{ \"{rest}\": ... }}"), true);
    }
    // The right key at the wrong place: `auth_tokens` at the top.
    if let Some(path) = paths().find(|path| path.rsplit('.').next() == Some(name) && *path != name) {
        return (format!("its place is `{path}`"), true);
    }
    match nearest(name, known.iter().copied()) {
        Some(near) => (format!("did you mean `{near}`?"), true),
        None if known.len() > 12 => ("`relay --print-schema` lists the known ones".into(), false),
        None => (format!("known here: {}", known.join(", ")), false),
    }
}

/// A key's name without what would break the line.
fn shown_name(name: &str) -> String {
    let quoted = quoted(name);
    if quoted.trim_matches('"') == name { name.to_owned() } else { quoted }
}

fn has_type(node: &Value, value: &Value) -> bool {
    match node.get("type").and_then(Value::as_str) {
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        // A `oneOf` of constants has no type of its own.
        _ => value.is_string(),
    }
}

fn in_bounds(node: &Value, value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let bound = |name| node.get(name).and_then(Value::as_f64);
            let number = number.as_f64().unwrap_or(f64::NAN);
            bound("minimum").is_none_or(|min| number >= min) && bound("maximum").is_none_or(|max| number <= max)
        }
        Value::String(text) if is_duration(node) => Span::parse(text).is_some_and(|span| span_fits(node, span)),
        Value::String(text) => words(node).is_none_or(|words| words.contains(&text.as_str())),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => true,
    }
}

fn span_fits(node: &Value, span: Span) -> bool {
    let bound = |name| node.get(name).and_then(Value::as_str).and_then(Span::parse);
    bound("x-minimum").is_none_or(|min| span.0 >= min.0) && bound("x-maximum").is_none_or(|max| span.0 <= max.0)
}

fn is_duration(node: &Value) -> bool {
    node.get("format").and_then(Value::as_str) == Some(DURATION_FORMAT)
}

/// The words that a string may be, if only some will do.
fn words(node: &Value) -> Option<Vec<&str>> {
    let listed = node.get("enum").and_then(Value::as_array);
    let described = node.get("oneOf").and_then(Value::as_array);
    match (listed, described) {
        (Some(listed), _) => Some(listed.iter().filter_map(Value::as_str).collect()),
        (_, Some(described)) => Some(described.iter().filter_map(|one| one.get("const")?.as_str()).collect()),
        (None, None) => None,
    }
}

fn mismatch(node: &Value, value: &Value, at: &Place) -> String {
    // Whoever writes a string where a list or an object belongs may have put a token there.
    let holds_more = alternatives(node).all(|node| matches!(node.get("type").and_then(Value::as_str), Some("object" | "array")));
    let found = shown(value, at.secret || holds_more);
    if is_duration(node) && value.is_number() {
        return format!("found {found}, a number without a unit; write \"{value}s\" for seconds, or \"20ms\", \"5m\", \"1h30m\"");
    }
    format!("found {found}; expected {}{}", form(node, &at.path), meant(node, value))
}

/// The one of a few words that was probably meant.
fn meant(node: &Value, value: &Value) -> String {
    let words: Vec<&str> = alternatives(node).filter_map(words).flatten().collect();
    let near = value.as_str().and_then(|text| nearest(text, words.into_iter()));
    near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

/// What may be written at `path`.
pub(super) fn form(node: &Value, path: &str) -> String {
    let seconds = if path.ends_with("_sec") { " of seconds" } else { "" };
    alternatives(node).map(|node| expected(node, seconds)).collect::<Vec<_>>().join(" or ")
}

fn expected(node: &Value, seconds: &str) -> String {
    if let Some(words) = words(node) {
        return words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
    }
    match node.get("type").and_then(Value::as_str) {
        Some("integer") => format!("a whole number{}", bounds(node)),
        Some("number") => format!("a number{seconds}{}", bounds(node)),
        Some("boolean") => "true or false".into(),
        Some("array") => match node.get("items").and_then(|item| item.get("type")).and_then(Value::as_str) {
            Some("object") => "a list of objects: [{...}]".into(),
            _ => "a list: [\"...\"]".into(),
        },
        Some("object") => "an object: {...}".into(),
        _ if is_duration(node) => format!("{DURATION_FORM}{}", span_bounds(node)),
        _ => "a string".into(),
    }
}

fn bounds(node: &Value) -> String {
    let bound = |name| node.get(name).and_then(Value::as_f64);
    match (bound("minimum"), bound("maximum")) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(", {min} or more"),
        (None, Some(max)) => format!(", {max} or less"),
        (None, None) => String::new(),
    }
}

fn span_bounds(node: &Value) -> String {
    let bound = |name| node.get(name).and_then(Value::as_str);
    match (bound("x-minimum"), bound("x-maximum")) {
        (Some(min), Some(max)) => format!(", from \"{min}\" to \"{max}\""),
        (None, Some(max)) => format!(", at most \"{max}\""),
        _ => String::new(),
    }
}
