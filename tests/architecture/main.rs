//! Does the house stand as it was drawn? The rules of docs/ARCHITECTURE.md, read from the sources themselves.
//!
//! What a compiler or clippy can hold is not repeated here. Each rule first makes sure that it found something to judge.

mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{Source, all, files};

/// Who may import whom. `app` may import every room; a path names less than the whole room. Also the order of building: each
/// room imports only rooms further up.
const LAW: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("origin", &["protocol"]),
    ("admission", &["protocol::name", "config", "telemetry"]),
    ("tls", &["config", "telemetry"]),
    ("upstream", &["protocol::name", "protocol::proxy", "protocol::rtmp::handshake", "config", "telemetry", "tls"]),
    ("session", &["protocol", "config", "telemetry", "tls", "admission", "upstream"]),
    ("listener", &["config", "telemetry", "tls", "admission", "session"]),
    ("http", &["config", "telemetry", "tls", "admission", "upstream"]),
    ("app", &["protocol", "config", "telemetry", "origin", "tls", "admission", "upstream", "session", "listener", "http"]),
];

/// What makes a file depend on when, where or by which chance it runs.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    ".elapsed()",
    "rand::",
    "tokio::",
    "actix",
    "tracing::",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "thread_local",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "socket2::",
    "rustix::",
    "libc::",
];

/// Sources of the program itself, tests left out.
fn program() -> Vec<Source> {
    let sources: Vec<_> = all("src").into_iter().filter(|source| !source.is_test()).collect();
    assert!(sources.len() > 80, "only {} sources were found", sources.len());
    sources
}

/// Says where `word` stands in the code of sources other than those named.
fn outside(sources: &[Source], word: &str, allowed: &[&str]) -> Vec<String> {
    let others = sources.iter().filter(|source| !allowed.contains(&source.path.as_str()));
    others.flat_map(|source| source.lines_with(word)).collect()
}

fn none(violations: Vec<String>, rule: &str) {
    assert!(violations.is_empty(), "{rule}\n{}", violations.join("\n"));
}

#[test]
fn every_room_is_named_by_the_law() {
    let rooms: BTreeSet<String> = program().iter().filter_map(|source| source.room().map(str::to_owned)).collect();
    let named: BTreeSet<String> = LAW.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(rooms, named);
}

#[test]
fn the_law_has_no_circle() {
    for (at, (room, may)) in LAW.iter().enumerate() {
        for imported in *may {
            let imported = imported.split("::").next().unwrap_or_default();
            assert!(
                LAW[..at].iter().any(|(earlier, _)| *earlier == imported),
                "{room} imports {imported}, which is not further up"
            );
        }
    }
}

#[test]
fn no_room_imports_what_the_law_does_not_let_it() {
    let mut seen = 0;
    let mut violations = Vec::new();
    for source in program() {
        let Some(room) = source.room() else { continue };
        let may = LAW.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, may)| may);
        for import in source.imports() {
            seen += 1;
            let lets = |path: &str| import == path || import.strip_prefix(path).is_some_and(|rest| rest.starts_with("::"));
            if import.split("::").next() != Some(room) && !may.iter().any(|path| lets(path)) {
                violations.push(format!("{}: crate::{import}", source.path));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found");
    none(violations, "the import law (tests/architecture/main.rs, docs/ARCHITECTURE.md) does not let these in:");
}

#[test]
fn nobody_reaches_another_room_by_a_way_that_the_law_cannot_see() {
    let sources = program();
    none(outside(&sources, "crate::{", &[]), "write one `use crate::room::...` a line:");
    let up: Vec<_> = sources.iter().filter(|source| source.climbs_out()).map(|source| source.path.clone()).collect();
    none(up, "`super::` leads out of the room; write `crate::room`:");
}

#[test]
fn the_program_s_own_files_know_the_application_and_the_configuration_alone() {
    for name in ["src/main.rs", "src/cli.rs"] {
        let source = Source::read(Path::new(name));
        let code = source.code();
        let used: Vec<&str> =
            code.split("relay::").skip(1).map(|rest| rest.split([':', ';', ' ']).next().unwrap_or_default()).collect();
        assert!(!used.is_empty(), "{name} uses nothing of the library");
        assert!(used.iter().all(|room| ["app", "config"].contains(room)), "{name} uses {used:?}");
    }
}

#[test]
fn what_calls_itself_pure_is_pure() {
    let pure: Vec<_> =
        program().into_iter().filter(|s| s.text.starts_with("//! Pure:") || s.room() == Some("protocol")).collect();
    assert!(pure.len() > 35, "only {} pure files were found", pure.len());
    let violations = IMPURE.iter().flat_map(|word| outside(&pure, word, &[])).collect();
    none(violations, "a pure file takes time, chance and the world as arguments:");
}

#[test]
fn the_whole_protocol_calls_itself_pure() {
    let below = |source: &&Source| source.path.starts_with("src/protocol/") && source.path != "src/protocol/rtmp.rs";
    let sources = program();
    let protocol: Vec<_> = sources.iter().filter(below).collect();
    assert!(protocol.len() > 8);
    let silent =
        protocol.iter().filter(|source| !source.text.starts_with("//! Pure:")).map(|source| source.path.clone()).collect();
    none(silent, "files of `protocol` begin with `//! Pure:`");
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let sources = program();
    let place = "src/session/sockopt.rs";
    assert!(sources.iter().any(|source| source.path == place && !source.lines_with("unsafe {").is_empty()));
    none(outside(&sources, "unsafe", &[place]), "unsafe code has one place:");
    none(outside(&sources, "unsafe_code", &[place]), "and only that place lifts the lint:");
}

#[test]
fn sockets_to_upstreams_are_opened_behind_the_guard_alone() {
    let sources = program();
    let dial = "src/upstream/dial.rs";
    assert!(sources.iter().any(|source| source.path == dial && !source.lines_with("TcpSocket::").is_empty()));
    // The demonstration's publisher and the probe of health are clients of a relay, not the relay.
    let allowed = [dial, "src/app/demo/publisher.rs", "src/app/health.rs"];
    let ways = ["TcpSocket::", "TcpStream::connect", "UnixStream::connect"];
    none(ways.iter().flat_map(|way| outside(&sources, way, &allowed)).collect(), "every dial goes through upstream::Dialer:");
}

#[test]
fn a_mailbox_without_a_bound_is_used_where_something_else_bounds_it() {
    let sources = program();
    // One a permit, and permits are bounded.
    let allowed = ["src/admission/permit.rs", "src/upstream/breaker.rs"];
    assert!(allowed.iter().all(|path| sources.iter().any(|s| s.path == *path && !s.lines_with("do_send(").is_empty())));
    none(outside(&sources, "do_send(", &allowed), "do_send ignores the mailbox's capacity:");
    none(outside(&sources, "actix::prelude", &[]), "import names, not the prelude (its Supervisor is another):");
}

#[test]
fn what_happens_is_told_by_telemetry() {
    let others: Vec<_> = program().into_iter().filter(|source| source.room() != Some("telemetry")).collect();
    none(
        outside(&others, "tracing::", &["src/http/door.rs"]),
        "a happening is a struct in telemetry::events, so that it is counted too:",
    );
}

#[test]
fn nothing_is_unwrapped() {
    none(outside(&program(), ".unwrap()", &[]), "name the error, or say in an `expect` why there is none:");
}

#[test]
fn there_is_no_mod_rs_and_every_file_says_what_it_is_for() {
    let sources: Vec<_> = ["src", "tests", "benches"].iter().flat_map(|dir| all(dir)).collect();
    assert!(sources.len() > 100, "only {} sources were found", sources.len());
    let silent = |source: &&Source| !source.text.starts_with("//! ");
    none(
        sources.iter().filter(silent).map(|source| source.path.clone()).collect(),
        "the first line of a file is `//!` and its question or noun:",
    );
    let named_mod = sources.iter().filter(|source| source.path.ends_with("/mod.rs")).map(|source| source.path.clone());
    none(named_mod.collect(), "a room is room.rs and room/, never mod.rs:");
}

#[test]
fn the_crate_s_page_names_every_room() {
    let page = Source::read(Path::new("src/lib.rs")).text;
    for (room, _) in LAW {
        assert!(page.contains(&format!("[`{room}`]")), "src/lib.rs does not name {room}");
    }
}

#[test]
fn every_file_of_the_code_map_is_there_and_every_room_is_on_it() {
    let map = std::fs::read_to_string("docs/ARCHITECTURE.md").expect("docs/ARCHITECTURE.md");
    let named: BTreeSet<&str> = map.split('`').skip(1).step_by(2).filter(|word| word.starts_with("src/")).collect();
    assert!(named.len() > 20, "only {} paths are named", named.len());
    let missing: Vec<_> = named.iter().filter(|path| !Path::new(path).exists()).map(ToString::to_string).collect();
    none(missing, "docs/ARCHITECTURE.md names what is not there:");
    for (room, _) in LAW {
        assert!(map.contains(&format!("### `{room}`")), "the code map lacks {room}");
    }
}

#[test]
fn every_test_binary_is_in_the_list_that_make_runs() {
    // The Makefile takes tests/*.rs and tests/*/main.rs: a directory without main.rs would be silently left out.
    let directories = std::fs::read_dir("tests").expect("tests/").filter_map(Result::ok).map(|entry| entry.path());
    let with_code: Vec<_> = directories.filter(|path| path.is_dir() && !files(path).is_empty()).collect();
    assert!(!with_code.is_empty());
    let lost = with_code.iter().filter(|path| !path.join("main.rs").exists()).map(|path| path.display().to_string());
    none(lost.collect(), "these directories belong to no test binary:");
}
