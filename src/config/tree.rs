//! Pure: text to JSON, comments allowed and a key given twice refused, and the JSON's places by path.

use std::fmt;
use std::io::Read;

use json_comments::CommentSettings;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

/// Reads `text`. The error names line and column, never the content.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    // Editors on Windows begin files with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut json = Vec::with_capacity(text.len());
    let stripped = CommentSettings::c_style().strip_comments(text.as_bytes()).read_to_end(&mut json);
    stripped.map_err(|_| "not JSON: a comment or a string does not end".to_owned())?;
    // Comments became blanks, byte for byte; with their line feeds put back, line and column stay true.
    json.iter_mut().zip(text.bytes()).filter(|(_, written)| *written == b'\n').for_each(|(byte, _)| *byte = b'\n');
    let mut deserializer = serde_json::Deserializer::from_slice(&json);
    let tree = Tree::deserialize(&mut deserializer).map_err(|error| format!("not JSON: {error}"))?;
    deserializer.end().map_err(|error| format!("not JSON: {error}"))?;
    Ok(tree.0)
}

/// The value at `path` ("retry.max_attempts").
pub(super) fn get<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(tree, |node, step| node.get(step))
}

/// Puts `value` at `path`. Where the path leads through something that is no object, nothing happens: that is an error of its own.
pub(super) fn set(tree: &mut Value, path: &str, value: Value) {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut steps = parents.split('.').filter(|step| !step.is_empty());
    let parent = steps.try_fold(tree, |node, step| match node {
        Value::Object(map) => Some(map.entry(step).or_insert_with(|| Value::Object(Map::new()))),
        _ => None,
    });
    if let Some(Value::Object(map)) = parent {
        map.insert(last.to_owned(), value);
    }
}

/// Takes the value at `path` away, if there is one.
pub(super) fn remove(tree: &mut Value, path: &str) {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut steps = parents.split('.').filter(|step| !step.is_empty());
    if let Some(Value::Object(map)) = steps.try_fold(tree, |node, step| node.get_mut(step)) {
        map.shift_remove(last);
    }
}

/// A JSON value in which no object has a key twice: serde_json alone would silently take the last.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> de::Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree(Value::Null))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(Tree(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree(Value::Array(items)))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom("a key stands here for the second time in the same object"));
            }
            let Tree(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(Tree(Value::Object(map)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn comments_load_and_leave_positions_true() {
        let tree = parse("\u{feff}{ // one\n /* two\n */ \"a\": \"// no comment\" }").unwrap();
        assert_eq!(tree, json!({ "a": "// no comment" }));
        let error = parse("{ // one\n /* two\n */ \"a\": oops }").unwrap_err();
        assert!(error.contains("line 3 column 10"), "{error}");
    }

    #[test]
    fn what_is_no_json_is_refused_without_repeating_it() {
        for text in ["", "{", "{\"a\": 1,}", "{} x", "{\"a\": \"hush", "{ /* hush", "# hush\n{}", "{\"a\": 1e999}"] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("hush"), "{error}");
        }
        assert!(parse("{\"a\": 1,}").unwrap_err().contains("trailing comma at line 1"));
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let error = parse("{\"a\": {\"b\": 1,\n\"b\": 2}}").unwrap_err();
        assert!(error.contains("second time") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_value_is_set_by_path_and_never_through_something_else() {
        let mut tree = json!({ "log": 5 });
        set(&mut tree, "retry.max_attempts", json!(3));
        set(&mut tree, "listen_addr", json!(":1"));
        set(&mut tree, "log.level", json!("info"));
        assert_eq!(tree, json!({ "log": 5, "retry": { "max_attempts": 3 }, "listen_addr": ":1" }));
        assert_eq!(get(&tree, "retry.max_attempts"), Some(&json!(3)));
        assert_eq!(get(&tree, "retry.nothing"), None);
    }
}
