//! A source file as the rules see it: its code without comments, texts and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file.
pub struct Source {
    /// From the root of the project, as "src/session/flow.rs".
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Source {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path: path.display().to_string(), text }
    }

    /// Whether the whole file is a test, declared under `#[cfg(test)]`.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.ends_with("_tests.rs")
    }

    /// The room that the file belongs to; none for the crate's and the program's own.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split('/').next()?;
        let room = first.strip_suffix(".rs").unwrap_or(first);
        (!["lib", "main", "cli"].contains(&room)).then_some(room)
    }

    /// The code alone.
    pub fn code(&self) -> String {
        without_tests(&without_words(&self.text))
    }

    /// Every line of code that holds `word`, with its place in the code.
    pub fn lines_with(&self, word: &str) -> Vec<String> {
        let code = self.code();
        code.lines().filter(|line| holds(line, word)).map(|line| format!("{}: {}", self.path, line.trim())).collect()
    }

    /// Every path behind `crate::`, as "protocol::name::Action".
    pub fn imports(&self) -> Vec<String> {
        let code = self.code();
        let path = |rest: &str| {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            rest[..end].trim_end_matches(':').to_owned()
        };
        code.split("crate::").skip(1).map(path).collect()
    }

    /// Whether a chain of `super::` leads to the crate's root.
    pub fn climbs_out(&self) -> bool {
        let depth = self.path.trim_start_matches("src/").split('/').count();
        self.code().contains(&"super::".repeat(depth))
    }
}

/// Whether `line` holds `word` as a word of its own where it begins or ends like one.
fn holds(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part) && word.starts_with(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part) && word.ends_with(part);
        !before && !after
    })
}

/// Rust files below `dir`.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("a directory can be listed").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All sources below `dir`.
pub fn all(dir: &str) -> Vec<Source> {
    files(Path::new(dir)).iter().map(|path| Source::read(path)).collect()
}

/// The text with comments, texts in quotes and characters blanked out; lines stay where they are.
fn without_words(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + word_length(&text[at..], at > 0 && is_part(bytes[at - 1]));
        if end > at {
            code.extend(text[at..end].chars().map(|c| if c == '\n' { c } else { ' ' }));
            at = end;
        } else {
            let next = text[at..].chars().next().expect("`at` is within the text");
            code.push(next);
            at += next.len_utf8();
        }
    }
    code
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Bytes of the comment, quoted text or character that `rest` begins with; 0 for code.
fn word_length(rest: &str, in_word: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let raw = rest.strip_prefix('b').unwrap_or(rest);
    if let (false, Some(hashes)) = (in_word, raw.strip_prefix('r')) {
        let count = hashes.bytes().take_while(|&byte| byte == b'#').count();
        if hashes[count..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(count));
            let open = rest.len() - hashes.len() + count + 1;
            return rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len());
        }
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    // A lifetime has no second quote right behind its first letter.
    let character = rest.strip_prefix('\'').is_some_and(|c| c.starts_with('\\') || c.chars().nth(1) == Some('\''));
    if character { quoted(rest, '\'') } else { 0 }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// The code without items under `#[cfg(test)]`. Expects code whose texts are blanked out already.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        rest = &rest[at + MARK.len()..];
        rest = &rest[item(rest)..];
    }
    kept + rest
}

/// Bytes of the item in front: up to its `;`, or to the end of its block.
fn item(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

#[test]
fn words_and_tests_are_no_code() {
    let text = r##"//! use crate::a;
use crate::b; // crate::c
const URL: &str = "rtmp://crate::d \" crate::e";
const RAW: &str = r#"crate::f " crate::g"#;
fn x<'a>(c: char) -> bool { c == '"' || c == '\'' /* crate::h */ }
#[cfg(test)]
#[path = "x_tests.rs"]
mod tests;
#[cfg(test)]
mod more { use crate::i; fn y() { if true {} } }
use crate::j::{k, l};
"##;
    let source = Source { path: "src/room/x.rs".into(), text: text.into() };
    assert_eq!(source.imports(), ["b", "j"]);
    assert!(source.code().contains("fn x<'a>(c: char) -> bool"));
}

#[test]
fn a_word_is_found_where_it_is_one() {
    assert!(holds("unsafe { x }", "unsafe"));
    assert!(!holds("deny(unsafe_code)", "unsafe"));
    assert!(holds("a.unwrap();", ".unwrap()"));
    assert!(!holds("a.unwrap_or(b)", ".unwrap()"));
    assert!(holds("x = tokio::spawn(y)", "tokio::"));
}

#[test]
fn a_climb_out_of_the_room_is_seen() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    assert!(source("src/room.rs", "use super::other;").climbs_out());
    assert!(!source("src/room/file.rs", "use super::other;").climbs_out());
    assert!(source("src/room/file.rs", "use super::super::other;").climbs_out());
}
