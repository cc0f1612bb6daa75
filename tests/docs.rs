//! Documents that must not drift from the code: the example configuration, the pages, and the links between them.

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
fn the_page_says_when_a_change_of_each_key_takes_effect() {
    use config::Effect;
    let text = chapter(PAGE, "## What a reload changes");
    for (words, effect) in
        [("at once", Effect::Live), ("for new sessions", Effect::NewSessions), ("only with a restart", Effect::NeedsRestart)]
    {
        let line = text.lines().find(|line| line.to_lowercase().starts_with(&format!("- **{words}"))).expect(words);
        let line = line.split("; `tcp.").next().unwrap_or(line);
        let known = config::effects().iter().filter(|(_, its)| *its == effect).map(|(key, _)| *key);
        same_words(code(line), known, words);
    }
}

#[test]
fn the_configurations_on_the_page_load() {
    let blocks: Vec<&str> = PAGE.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2);
    blocks.iter().for_each(|block| drop(load(block)));
}

const README: &str = include_str!("../README.md");
const METRICS: &str = include_str!("../docs/METRICS.md");
const ENDINGS: &str = include_str!("../docs/ENDINGS.md");
const ARCHITECTURE: &str = include_str!("../docs/ARCHITECTURE.md");

/// The text between a heading and the next one of the same or a higher level.
fn chapter<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading:?}")) + heading.len() + 2;
    let level = heading.bytes().take_while(|&byte| byte == b'#').count();
    let text = &page[start..];
    let ends = (1..=level).filter_map(|level| text.find(&format!("\n{} ", "#".repeat(level))));
    &text[..ends.min().unwrap_or(text.len())]
}

/// The cells of every row of a table whose first cell is code; the row of headings left out.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().zip(text.lines().skip(1).chain([""]));
    let lines = lines.filter(|(line, next)| line.starts_with("| `") && !next.starts_with("|---")).map(|(line, _)| line);
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Every word in backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn same_words<'a>(written: impl IntoIterator<Item = &'a str>, known: impl IntoIterator<Item = &'a str>, what: &str) {
    let (written, known): (BTreeSet<_>, BTreeSet<_>) = (written.into_iter().collect(), known.into_iter().collect());
    assert!(!known.is_empty(), "no {what} are known");
    let (missing, strange): (Vec<_>, Vec<_>) = (known.difference(&written).collect(), written.difference(&known).collect());
    assert!(missing.is_empty() && strange.is_empty(), "{what}: missing {missing:?}, not in the code {strange:?}");
}

#[test]
fn the_configurations_of_the_readme_load_without_a_warning() {
    let blocks: Vec<&str> = README.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        let loaded = config::parse(block, &Env::empty(), &relay::app::judge_upstream);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{block}\n{problems}"));
        assert!(loaded.warnings.is_empty(), "{block}\n{:?}", loaded.warnings);
    }
}

#[test]
fn every_key_stands_in_the_readme_with_its_default() {
    let row = |key: &Key| {
        let default = key.default.as_ref().map_or("-".into(), |default| format!("`{default}`"));
        format!("| `{}` | {default} | {} |", key.path, key.description)
    };
    let known: BTreeSet<String> = config::keys().iter().map(row).collect();
    let written: Vec<_> = chapter(README, "## Configuration").lines().filter(|line| line.starts_with("| `")).collect();
    let missing: Vec<_> = known.iter().filter(|row| !written.contains(&row.as_str())).map(String::as_str).collect();
    assert!(missing.is_empty(), "README.md lacks:\n{}", missing.join("\n"));
    assert_eq!(written.len(), known.len(), "README.md names a key that is none, or one twice");
}

#[test]
fn upstream_urls_do_what_the_readme_says() {
    use relay::config::ForwardQuery;
    use relay::protocol::name::StreamName;
    use relay::upstream::{Target, TargetId};

    let rows = rows(chapter(README, "## Where streams go").split("\n### ").next().unwrap_or_default());
    assert!(rows.len() >= 6);
    for row in rows {
        if let [url, asked] = row.iter().map(|cell| cell.trim_matches('`')).collect::<Vec<_>>()[..] {
            located(url, asked);
            continue;
        }
        let [url, app, stream] = row.iter().map(|cell| cell.trim_matches('`')).collect::<Vec<_>>()[..] else { panic!("{row:?}") };
        let target = Target::parse(TargetId(0), url).unwrap_or_else(|error| panic!("{url}: {error}"));
        // The token is out by then.
        let name = StreamName::parse(b"studio", b"cam?user=7").expect("a name");
        let names = target.address(&name, &ForwardQuery::All).unwrap_or_else(|error| panic!("{url}: {error}"));
        let got = (String::from_utf8_lossy(&names.app), String::from_utf8_lossy(&names.stream));
        assert_eq!((got.0.as_ref(), got.1.as_ref()), (app, stream), "{url}");
    }
}

/// What an RTSP upstream is asked for.
fn located(url: &str, asked: &str) {
    use relay::config::ForwardQuery;
    use relay::protocol::name::StreamName;
    use relay::upstream::{Target, TargetId};

    let target = Target::parse(TargetId(0), url).unwrap_or_else(|error| panic!("{url}: {error}"));
    let name = StreamName::parse(b"studio", b"cam?user=7").expect("a name");
    let located = target.locate(&name, &ForwardQuery::All).unwrap_or_else(|error| panic!("{url}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let query = if located.query.is_empty() { String::new() } else { format!("?{}", text(&located.query)) };
    let got = format!("{}/{}{query}", text(&located.origin), text(&located.path).trim_start_matches('/'));
    assert_eq!(got, asked, "{url}");
}

#[test]
fn the_guard_says_what_the_readme_says_it_says() {
    let text = relay::app::judge_upstream("rtmp://127.0.0.1:1936/live", &[]).expect_err("loopback");
    assert!(README.contains(&format!("error: UPSTREAM: {text}\n")), "{text}");
}

#[test]
fn every_metric_stands_in_the_readme() {
    let name = |row: &Vec<&'static str>| row[0].trim_matches('`').split('{').next().unwrap_or_default();
    let described = METRICS.split("\n## ").next().unwrap_or_default();
    let (written, known) = (rows(chapter(README, "## Metrics")), rows(described));
    same_words(written.iter().map(name), known.iter().map(name), "metrics");
}

#[test]
fn every_event_stands_in_the_readme() {
    let mut sources = String::new();
    let directories = ["src/telemetry/events", "src/telemetry", "src/http"];
    for entry in directories.iter().flat_map(|dir| std::fs::read_dir(dir).expect("a directory of the project")) {
        let path = entry.expect("it can be listed").path();
        if path.is_file() && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            sources += text.split("#[cfg(test)]").next().unwrap_or_default();
        }
    }
    let events = sources.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next());
    let table = rows(chapter(README, "## Logs"));
    same_words(table.iter().flat_map(|row| code(row[0])), events, "events");
}

#[test]
fn every_refusal_stands_in_the_readme_with_its_sentence() {
    use relay::admission::{AuthError, IpKey, Refusal};
    use relay::protocol::name::Action;
    use std::time::Duration;

    let text = chapter(README, "### A client is rejected");
    let known = relay::telemetry::labels::REJECTIONS;
    same_words(rows(text).iter().flat_map(|row| code(row[0])), known, "reasons of refusals");
    let auth = [
        AuthError::Missing,
        AuthError::Unknown,
        AuthError::Action(Action::Publish),
        AuthError::Stream,
        AuthError::Password,
        AuthError::Challenge,
        AuthError::Late,
        AuthError::Method,
        AuthError::InPlaceOfApp,
    ];
    let key = IpKey::of([192, 0, 2, 1].into());
    let others = [
        Refusal::DeniedNetwork,
        Refusal::NetworkNotAllowed,
        Refusal::RateLimit { retry_after: Duration::from_secs(2) },
        Refusal::MaxTotal { held: 1000 },
        Refusal::MaxPerIp { key, held: 2, hint: false },
        Refusal::Draining,
        Refusal::Unavailable,
    ];
    for refusal in auth.map(Refusal::Auth).iter().chain(&others) {
        assert!(text.contains(&refusal.to_string()), "the README does not say: {refusal}");
    }
}

#[test]
fn every_way_to_fail_at_an_upstream_stands_in_the_readme() {
    let text = chapter(README, "### The upstream is down");
    let words: BTreeSet<&str> = code(text).collect();
    // Counted by their own events, which have a line of their own in the text.
    let by_event = [("refused", "upstream_refused"), ("lost", "upstream_lost")];
    for kind in relay::telemetry::labels::ERROR_TYPES {
        let event = by_event.iter().find(|(word, _)| *word == kind).map(|(_, event)| *event);
        assert!(words.contains(kind) || event.is_some_and(|event| words.contains(event)), "{kind} is not explained");
    }
}

#[test]
fn every_end_of_a_session_is_explained() {
    for (side, reasons) in relay::telemetry::labels::ENDINGS {
        let table = rows(chapter(ENDINGS, &format!("## Ended by the {}", side.as_str())));
        same_words(table.iter().map(|row| row[0].trim_matches('`')), reasons.iter().copied(), "reasons of endings");
    }
}

#[test]
fn every_path_of_http_stands_in_the_readme() {
    let source = include_str!("../src/http.rs");
    let list = source.split("PATHS: [&str;").nth(1).and_then(|rest| rest.split(';').next()).expect("src/http.rs lists its paths");
    let known = list.split('"').skip(1).step_by(2);
    let table = rows(chapter(README, "## Endpoints"));
    same_words(table.iter().map(|row| row[0].trim_matches('`')), known, "paths");
}

#[test]
fn the_limits_of_the_architecture_page_are_those_of_the_code() {
    let table = rows_of_limits();
    assert!(table.len() > 20);
    for (value, name, file) in table {
        let source = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let constant = source
            .lines()
            .find(|line| line.contains(&format!("const {name}:")))
            .unwrap_or_else(|| panic!("{file} has no {name}"));
        assert!(constant.ends_with(&format!(" = {value};")), "{file}: {constant}; the page says {value}");
    }
}

/// (value, constant, file) of each row.
fn rows_of_limits() -> Vec<(&'static str, &'static str, &'static str)> {
    let lines = chapter(ARCHITECTURE, "## Limits").lines().filter(|line| line.contains("` in `"));
    let limit = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let place: Vec<&str> = code(cells[2]).collect();
        (cells[1].trim_matches('`'), place[0], place[1])
    };
    lines.map(limit).collect()
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = plain.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Headings outside blocks of code.
fn anchors(page: &str) -> BTreeSet<String> {
    let outside = page.split("```").step_by(2);
    outside.flat_map(str::lines).filter(|line| line.starts_with('#')).map(anchor).collect()
}

#[test]
fn every_link_within_the_project_leads_somewhere() {
    let mut pages: Vec<std::path::PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(Into::into).into();
    let docs = std::fs::read_dir("docs").expect("docs/").map(|entry| entry.expect("it can be listed").path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let mut followed = 0;
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap_or("".as_ref()).join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !fragment.is_empty() {
                let there = std::fs::read_to_string(&target).expect("a page is text");
                assert!(anchors(&there).contains(fragment), "{}: {link}: there is no such heading", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "only {followed} links were found");
}

#[test]
fn every_threat_names_tests_that_are_there() {
    let page = include_str!("../docs/THREAT_MODEL.md");
    let threats =
        ["Anybody on the internet", "A client with a token", "An upstream, and who answers for it", "Whoever is between"];
    let threats = threats.iter().chain(&["Whoever reads what the relay says", "Whoever gives orders"]);
    let mut named = 0;
    let lines = threats.flat_map(|heading| chapter(page, &format!("## {heading}")).lines());
    for row in lines.filter(|line| line.starts_with("| ") && *line != "| threat | what holds it | test |") {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [threat, _, tests] = cells[..] else { panic!("{row} has three cells") };
        // `[where](file)` and the names behind it, up to the next one.
        for place in tests.split("](").skip(1) {
            let (file, names) = place.split_once(')').expect("a link has an end");
            let path = std::path::Path::new("docs").join(file);
            let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{threat}: {}: {error}", path.display()));
            for name in code(names) {
                let is_there = [format!("fn {name}("), format!(": {name},")].iter().any(|words| source.contains(words));
                assert!(is_there, "{threat}: {file} has no test {name}");
                named += 1;
            }
        }
        assert!(tests.contains("]("), "{threat} is held by no test");
    }
    assert!(named > 80, "only {named} tests were found");
}

#[test]
fn every_order_stands_in_the_readme() {
    let page: Value = serde_json::from_str(include_str!("../docs/openapi.json")).unwrap();
    let described = page["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, of)| of.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase())));
    let described: Vec<String> = described.collect();
    let table = rows(chapter(README, "## Orders to a running relay"));
    same_words(table.iter().map(|row| row[0].trim_matches('`')), described.iter().map(String::as_str), "orders");
}

/// Every Rust source below `dir`, in one.
fn sources(dir: &str) -> String {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{dir}: {error}")).flatten();
    let text = |entry: std::fs::DirEntry| {
        let path = entry.path().display().to_string();
        match entry.path().is_dir() {
            true => sources(&path),
            false => {
                if path.ends_with(".rs") {
                    std::fs::read_to_string(&path).expect("a source is text")
                } else {
                    String::new()
                }
            }
        }
    };
    entries.map(text).collect()
}

#[test]
fn every_test_that_the_page_on_faults_names_is_there() {
    let page = include_str!("../docs/RELIABILITY.md");
    let all = sources("tests/it");
    // Names of tests are sentences; no metric or key has so many words.
    let named: Vec<&str> = code(chapter(page, "## Faults")).filter(|word| word.matches('_').count() > 6).collect();
    assert!(named.len() > 8, "{named:?}");
    for name in named {
        assert!(all.contains(&format!("fn {name}()")), "there is no test {name}");
    }
}
