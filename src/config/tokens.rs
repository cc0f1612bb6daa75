//! Pure: which tokens are there, and what does each open?

use std::collections::BTreeSet;

use globset::GlobBuilder;
use serde::Deserialize;
use serde_json::Value;

use super::finding::{Finding, Origin};
use super::scalar::{RawToken, RawUser, TokenAction, TokenObject};
use super::schema::keys;
use super::settings::TokenEntry;
use super::shape::Shape;
use super::tree;

/// Characters that a URL's query does not carry as they are.
const FRAGILE: &str = "\"#%&+/<>?[\\]^`{|}";

/// A token and where it stands, as "security.auth_tokens[2]".
pub(super) type Placed = (String, TokenObject);

/// Reads a file of tokens: a JSON list as in `auth_tokens`, or one token a line, with empty lines and `#` lines left out.
pub(super) fn parse_file(text: &str, at: &str) -> Result<Vec<Placed>, Vec<Finding>> {
    // A comment may stand before the list.
    if text.trim_start().starts_with(['[', '/']) {
        return parse_json(text, at);
    }
    let lines = text.lines().enumerate().map(|(index, line)| (format!("{at}: line {}", index + 1), line.trim()));
    let tokens: Vec<_> = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
    // In the variable a comma parts two tokens, here it would not: better ask than let a wrong token in.
    let comma = |(at, _): &(String, &str)| Finding::new(at, "holds a comma; one token a line, or all as a JSON list");
    let wrong: Vec<_> = tokens.iter().filter(|(_, line)| line.contains(',')).map(comma).collect();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(tokens.into_iter().map(|(at, line)| (at, RawToken::Plain(line.into()).detailed())).collect())
}

fn parse_json(text: &str, at: &str) -> Result<Vec<Placed>, Vec<Finding>> {
    let list = tree::parse(text).map_err(|reason| vec![Finding::new(at, reason)])?;
    let none = Origin::new();
    let mut shape = Shape::new(&none);
    let node = keys().iter().find(|key| key.path == "security.auth_tokens").map_or(&Value::Null, |key| &key.node);
    shape.walk(node, &list, at, true);
    if !shape.findings.is_empty() {
        return Err(shape.findings);
    }
    let tokens = Vec::<RawToken>::deserialize(list).map_err(|_| vec![Finding::new(at, "is not a list of tokens")])?;
    Ok(tokens.into_iter().enumerate().map(|(index, token)| (format!("{at}[{index}]"), token.detailed())).collect())
}

/// What came of judging tokens.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) entries: Vec<TokenEntry>,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

/// Judges every token. One without a name is called by its number.
pub(super) fn judge(tokens: Vec<Placed>) -> Judged {
    let mut judged = Judged::default();
    let mut seen = BTreeSet::new();
    for (number, (at, token)) in tokens.into_iter().enumerate() {
        if !seen.insert(token.token.expose().to_owned()) {
            judged.warnings.push(Finding::new(at, "is a token that stands further up already; what stands there counts"));
            continue;
        }
        judged.errors.extend(errors_of(&at, &token));
        if token.token.expose().chars().any(|c| FRAGILE.contains(c) || !c.is_ascii()) {
            let text = "holds characters that a URL does not carry as they are; letters, digits and -._~ always work";
            judged.warnings.push(Finding::new(&at, text));
        }
        judged.entries.push(entry(number, token));
    }
    judged
}

fn errors_of(at: &str, token: &TokenObject) -> Vec<Finding> {
    let text = token.token.expose();
    let mut errors = Vec::new();
    let mut refuse = |wrong: bool, text: &str| {
        if wrong {
            errors.push(Finding::new(at, text));
        }
    };
    refuse(text.is_empty(), "the token is empty");
    refuse(text.chars().any(|c| c.is_whitespace() || c.is_control()), "the token holds a blank or a control character");
    refuse(text.len() > 512, "the token is longer than 512 bytes");
    refuse(!text.is_empty() && token.name.contains(text), "`name` repeats the token, and logs show names");
    errors.extend(scope_errors(at, &token.name, &token.actions, &token.streams));
    errors
}

/// What is wrong with what a token, or a user, opens and is called.
pub(super) fn scope_errors(at: &str, name: &str, actions: &[TokenAction], streams: &[String]) -> Vec<Finding> {
    let mut errors = Vec::new();
    if actions.is_empty() {
        let text = "`actions` is empty, so it opens nothing; expected \"publish\", \"play\" or both";
        errors.push(Finding::new(at, text));
    }
    if name.chars().any(char::is_control) {
        errors.push(Finding::new(at, "`name` holds a control character"));
    }
    let bad = bad_patterns(streams).map(|(index, error)| Finding::new(format!("{at}.streams[{index}]"), error));
    errors.extend(bad);
    errors
}

/// Patterns that are none, by their place. They are not repeated: they may spell out a stream key.
pub(super) fn bad_patterns(patterns: &[String]) -> impl Iterator<Item = (usize, String)> {
    let judged = patterns.iter().map(|pattern| GlobBuilder::new(pattern).literal_separator(true).build());
    judged.enumerate().filter_map(|(index, glob)| Some((index, format!("is no pattern: {}", glob.err()?.kind()))))
}

/// A user's entry: its password is the token.
pub(super) fn entry_of(user: RawUser) -> TokenEntry {
    let RawUser { user, password, name, actions, streams } = user;
    let name = if name.is_empty() { user } else { name };
    entry(0, TokenObject { token: password, name, actions, streams })
}

fn entry(number: usize, token: TokenObject) -> TokenEntry {
    let TokenObject { token, name, actions, streams } = token;
    let name = if name.is_empty() { format!("token-{}", number + 1) } else { name };
    let may = |action| actions.contains(&action);
    TokenEntry { token: token.into_secret(), name, publish: may(TokenAction::Publish), play: may(TokenAction::Play), streams }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let tokens = parse_file(text, "tokens.txt").unwrap();
        tokens.into_iter().map(|(at, token)| (at, token.token.expose().to_owned())).collect()
    }

    #[test]
    fn a_file_holds_one_token_a_line() {
        let expected = [("tokens.txt: line 2", "one"), ("tokens.txt: line 4", "two#2")];
        assert_eq!(read("# ours\n one \r\n\ntwo#2"), expected.map(|(at, token)| (at.to_owned(), token.to_owned())));
        assert_eq!(read(""), []);
    }

    #[test]
    fn a_file_may_be_a_json_list() {
        let tokens = read("// ours\n[\"one\", {\"token\": \"two\", \"actions\": [\"play\"]}]");
        assert_eq!(tokens[1], ("tokens.txt[1]".to_owned(), "two".to_owned()));
    }

    #[test]
    fn errors_of_a_file_name_its_line_and_no_token() {
        for text in [
            "ok\nhush,hush",
            "[\"hush",
            "[5]",
            "[{\"tokn\": \"hush\"}]",
            "[{\"hush\": 1}]",
            "[{\"token\": \"hush\", \"actions\": \"hush\"}]",
        ] {
            let errors = parse_file(text, "tokens.txt").unwrap_err();
            assert!(
                errors.iter().all(|error| error.at.starts_with("tokens.txt") && !error.to_string().contains("hush")),
                "{errors:?}"
            );
        }
    }

    #[test]
    fn every_token_gets_a_name_and_doubles_are_said() {
        let judged = judge(parse_file("hush\nhush\nother", "t").unwrap());
        let names: Vec<_> = judged.entries.iter().map(|entry| (entry.token.expose_secret(), entry.name.as_str())).collect();
        assert_eq!(names, [("hush", "token-1"), ("other", "token-3")]);
        assert!(judged.errors.is_empty());
        assert_eq!(judged.warnings[0].at, "t: line 2");
    }

    #[test]
    fn a_token_that_cannot_work_is_refused() {
        let text = r#"["", "hu sh", {"token": "hush", "actions": []}, {"token": "hush2", "name": "hush2!"}, {"token": "hush3", "streams": ["ok/*", "hush/[a"]}]"#;
        let errors = judge(parse_file(text, "t").unwrap()).errors;
        let places: Vec<_> = errors.iter().map(|error| error.at.as_str()).collect();
        assert_eq!(places, ["t[0]", "t[1]", "t[2]", "t[3]", "t[4].streams[1]"]);
        assert!(errors.iter().all(|error| !error.text.contains("hush")), "{errors:?}");
    }

    #[test]
    fn a_token_that_a_url_would_change_is_warned_about() {
        assert_eq!(judge(parse_file("a+b/c\nplain-1_2.3~=", "t").unwrap()).warnings.len(), 1);
    }
}
