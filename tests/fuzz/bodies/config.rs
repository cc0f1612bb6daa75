//! A configuration file: it is judged, always the same way; what is wrong is said within bounds and without a secret; what is right
//! equals itself.

use relay::config::{Env, Judges, diff, parse};
use serde_json::Value;

/// Stands in the secrets of the corpus, and nowhere else.
const SECRET: &str = "S3CRET";

/// Reads `data` as a file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if names_files(text) {
        return;
    }
    let judge = relay::app::judge_upstream;
    let judged = parse(text, &Env::empty(), &judge);
    let shown = match &judged {
        Ok(loaded) => {
            let same = parse(text, &Env::empty(), &judge).expect("it was right before");
            assert_eq!(loaded.for_digest(), same.for_digest());
            assert!(diff(loaded, &same).is_empty(), "it is no other than itself");
            let again = loaded.again(&Env::empty(), Judges { upstream: &judge, files: &|_| Vec::new() });
            assert!(again.is_ok_and(|again| again.for_digest() == loaded.for_digest()));
            format!("{loaded:?}")
        }
        Err(problems) => {
            assert!(!problems.errors.is_empty(), "what is wrong has a name");
            assert!(problems.to_string().len() <= 1000 + 20 * text.len().max(100), "and not too long a one");
            format!("{problems}{problems:?}")
        }
    };
    assert!(!holds_secrets_alone(text) || !shown.contains(SECRET), "{shown}");
}

/// Whether other files might be read, which are no matter of this one.
fn names_files(text: &str) -> bool {
    let is_empty = |rest: &str| rest.starts_with("\": \"\"");
    text.contains("\\u") || !text.split("_file").skip(1).all(is_empty)
}

/// Whether every [`SECRET`] in the text is the value of a key that is known to be one.
fn holds_secrets_alone(text: &str) -> bool {
    let Ok(tree) = serde_json::from_str::<Value>(text) else { return false };
    let security = &tree["security"];
    let tokens = security["auth_tokens"].as_array().into_iter().flatten();
    let tokens = tokens.flat_map(|token| [token, &token["token"]]);
    let users = security["users"].as_array().into_iter().flatten().map(|user| &user["password"]);
    let others = [&security["admin_token"], &security["auth_secret"]];
    let count = |value: &Value| value.as_str().map_or(0, |text| text.matches(SECRET).count());
    let known: usize = tokens.chain(users).chain(others).map(count).sum();
    known == text.matches(SECRET).count()
}
