//! What `make fuzz` tries for hours, tried for seconds: every body over the committed corpus, and over what chance makes of it.

#![allow(clippy::unwrap_used, reason = "a corpus that cannot be read is a failed test")]

#[allow(dead_code, reason = "the tests of behaviour read and write more than the bodies do")]
#[path = "../it/amf.rs"]
mod amf;
#[path = "bodies/all.rs"]
mod bodies;
mod corpus;
#[allow(dead_code, reason = "the tests of behaviour read and write more than the bodies do")]
#[path = "../it/parser.rs"]
mod parser;
#[path = "../it/recording.rs"]
mod recording;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// How often chance tries each body; `FUZZ_CASES` for more.
const CASES: u32 = 150;

fn body(target: &str) -> fn(&[u8]) {
    bodies::ALL.iter().find(|(name, ..)| *name == target).unwrap_or_else(|| panic!("no target {target}")).1
}

#[test]
fn every_file_of_the_corpus_holds_what_its_target_promises() {
    for (target, run, _) in bodies::ALL {
        let files = corpus::files(target);
        assert!(files.len() > 1, "{target} has a corpus");
        for (name, bytes) in files {
            let result = catch_unwind(AssertUnwindSafe(|| run(&bytes)));
            assert!(result.is_ok(), "fuzz/corpus/{target}/{name}: see above");
        }
    }
}

#[test]
fn every_target_is_built_by_cargo_fuzz_and_told_of() {
    let targets: BTreeSet<String> = bodies::ALL.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let stems = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(stems("fuzz/fuzz_targets"), targets);
    assert_eq!(stems("fuzz/corpus"), targets);
    let manifest = std::fs::read_to_string("fuzz/Cargo.toml").unwrap();
    let page = std::fs::read_to_string("docs/RELIABILITY.md").unwrap();
    for target in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "fuzz/Cargo.toml: {target}");
        let text = std::fs::read_to_string(format!("fuzz/fuzz_targets/{target}.rs")).unwrap();
        assert!(text.contains(&format!("bodies::{target}::run(data)")), "{target} runs its own body");
        assert!(page.contains(&format!("| `{target}` |")), "docs/RELIABILITY.md does not tell of {target}");
    }
}

#[test]
fn the_corpus_begins_with_what_real_programs_said() {
    corpus::compare_or_write();
}

#[test]
fn the_corpus_is_small() {
    let bytes: usize = bodies::ALL.iter().flat_map(|(target, ..)| corpus::files(target)).map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 600_000, "{bytes} bytes");
}

/// A change of an input: where, what, and with which bytes.
type Edit = (f64, u8, Vec<u8>);

fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for (at, how, with) in edits {
        let at = (bytes.len() as f64 * at) as usize;
        let to = (at + with.len()).min(bytes.len());
        match how % 5 {
            0 => drop(bytes.splice(at..to, with.iter().copied())),
            1 => drop(bytes.splice(at..at, with.iter().copied())),
            2 => drop(bytes.drain(at..to)),
            3 => bytes.truncate(at),
            _ => {
                let again = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
    }
    bytes
}

/// Runs a body over bytes of chance, and over files of its corpus that chance has changed.
fn try_by_chance(target: &str) {
    let run = body(target);
    let files: Vec<Vec<u8>> = corpus::files(target).into_iter().map(|(_, bytes)| bytes).collect();
    let edit = (0.0..1.0f64, any::<u8>(), prop::collection::vec(any::<u8>(), 0..9));
    let changed = (prop::sample::select(files), prop::collection::vec(edit, 0..6)).prop_map(|(file, edits)| edited(file, &edits));
    let any_input = prop_oneof![4 => changed, 1 => prop::collection::vec(any::<u8>(), 0..1500)];
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let tried = runner.run(&any_input, |bytes| {
        run(&bytes);
        Ok(())
    });
    tried.unwrap_or_else(|e| panic!("{target}: {e}"));
}

macro_rules! by_chance {
    ($($target:ident: $promise:ident,)*) => {
        $(#[test]
        fn $promise() {
            try_by_chance(stringify!($target));
        })*

        #[test]
        fn every_target_is_tried_by_chance() {
            let mut tried = [$(stringify!($target)),*];
            let mut targets = bodies::ALL.map(|(name, ..)| name);
            tried.sort_unstable();
            targets.sort_unstable();
            assert_eq!(tried, targets);
        }
    };
}

by_chance! {
    sniff: what_a_peer_speaks_is_known_within_a_few_bytes_and_for_good,
    proxy: a_proxy_header_says_the_same_in_every_split_and_reads_back,
    handshake: a_handshake_is_the_same_in_every_split_and_answers_nothing_too_early,
    chunk_reader: whole_messages_come_out_of_chunks_in_every_split_as_another_reader_finds_them,
    joiner: a_joined_stream_says_what_the_original_said_for_every_split_and_joining_point,
    amf0: what_amf0_says_is_bounded_and_written_as_it_was_read,
    rtmp_session: the_command_phase_is_the_same_in_every_split_and_the_token_stays_here,
    rtsp_framing: rtsp_messages_and_frames_are_the_same_in_every_split_and_read_back,
    rtsp_session: an_rtsp_conversation_is_whole_ordered_and_leads_nobody_elsewhere,
    name: a_name_is_one_however_it_is_split_and_leads_nowhere_else,
    config: a_file_is_judged_the_same_twice_and_no_secret_is_repeated,
}
