//! Documents that must not drift from the code: the example configuration and the page of keys.

use std::collections::BTreeSet;

use relay::config::{self, Env, Key};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../config.example.json");
const PAGE: &str = include_str!("../docs/CONFIGURATION.md");

fn load(text: &str) -> config::Loaded {
    config::parse(text, &Env::empty(), &|_, _| Ok(())).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The example without its comments. Line comments only, none behind a value.
fn example() -> Value {
    let lines: Vec<_> = EXAMPLE.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    serde_json::from_str(&lines.join("\n")).expect("without its comments the example is JSON")
}

fn leaves(tree: &Value, prefix: &str, all: &mut BTreeSet<String>) {
    match tree {
        Value::Object(map) => {
            for (name, child) in map {
                leaves(child, &if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") }, all);
            }
        }
        _ => drop(all.insert(prefix.to_owned())),
    }
}

fn same(written: &Value, default: &Value) -> bool {
    match (written.as_f64(), default.as_f64()) {
        (Some(written), Some(default)) => written == default,
        _ => written == default,
    }
}

#[test]
fn the_example_loads_and_asks_for_nothing_but_the_defaults() {
    let example = load(EXAMPLE);
    assert!(example.warnings.is_empty(), "{:?}", example.warnings);
    let minimal = load(r#"{ "upstream": "rtmp://origin.example.com/live" }"#);
    assert_eq!(example.config, minimal.config);
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = example();
    let mut shown = BTreeSet::new();
    leaves(&example, "", &mut shown);
    let top: Vec<&Key> = config::keys().iter().filter(|key| key.variable.is_some() && key.path != "upstreams").collect();
    assert_eq!(shown, top.iter().map(|key| key.path.clone()).collect());
    for key in top.iter().filter(|key| key.path != "upstream") {
        let written = example.pointer(&format!("/{}", key.path.replace('.', "/"))).unwrap();
        let default = key.default.as_ref().unwrap();
        assert!(same(written, default), "{}: the example says {written}, the default is {default}", key.path);
    }
}

#[test]
fn what_the_example_shows_in_comments_loads_too() {
    let (upstream, upstreams) = ("  \"upstream\": ", "  // \"upstreams\": ");
    assert!(EXAMPLE.contains(upstream) && EXAMPLE.contains(upstreams));
    let several = EXAMPLE.replace(upstream, "  // \"upstream\": ").replace(upstreams, "  \"upstreams\": ");
    assert_eq!(load(&several).config.upstreams.len(), 2);

    let tokens = EXAMPLE.lines().find_map(|line| line.trim().strip_prefix("//   [\"s3cret\"")).unwrap();
    let with_tokens = EXAMPLE.replace("\"auth_tokens\": []", &format!("\"auth_tokens\": [\"s3cret\"{tokens}"));
    assert_eq!(load(&with_tokens).config.security.auth_tokens.len(), 2);
    for key in config::keys().iter().filter(|key| key.variable.is_none()) {
        let name = key.path.rsplit('.').next().unwrap_or_default();
        assert!(EXAMPLE.contains(&format!("\"{name}\": ")), "{} is not in the example", key.path);
    }
}

/// The line of the page that a key must have.
fn row(key: &Key) -> String {
    let code = |text: &str| format!("`{text}`");
    let variable = key.variable.as_deref().map_or("-".into(), code);
    let default = key.default.as_ref().map_or("-".into(), |default| code(&default.to_string()));
    let form = key.form.replace(", such as \"20ms\", \"30s\", \"5m\" or \"1h30m\"", "");
    format!("| {} | {form} | {default} | {variable} | {} |", code(&key.path), key.description)
}

#[test]
fn every_key_stands_on_the_page_as_it_is() {
    let lines: BTreeSet<&str> = PAGE.lines().collect();
    let missing: Vec<_> = config::keys().iter().map(row).filter(|row| !lines.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "docs/CONFIGURATION.md lacks:\n{}", missing.join("\n"));
}

#[test]
fn the_page_names_no_key_that_is_none() {
    let known: BTreeSet<String> = config::keys().iter().map(row).collect();
    let rows: Vec<_> = PAGE.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), known.len());
    assert!(rows.iter().all(|row| known.contains(*row)));
}

#[test]
fn the_configurations_on_the_page_load() {
    let blocks: Vec<&str> = PAGE.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2);
    blocks.iter().for_each(|block| drop(load(block)));
}
