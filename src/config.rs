//! What did the operator choose?
//!
//! [`load`] reads the file, lays the environment's variables over it, and judges the whole: [`Config`] is what came of it,
//! [`Problems`] everything that was wrong, at once. Nothing is bound, dialled or looked up meanwhile.
//!
//! Inside: `file` is the JSON's shape with every default, `schema` what follows from it, `shape` judges each key, `check` all of
//! them together. Secrets cannot be printed: neither `Debug` nor an error text repeats one.

use std::io::Read;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::Value;

mod access;
mod address;
mod check;
mod descriptors;
mod doors;
mod env;
mod file;
mod finding;
mod network;
mod routing;
mod scalar;
mod schema;
mod secret;
mod settings;
mod shape;
mod tokens;
mod tree;

pub use address::{AddressError, ListenAddr};
pub use descriptors::{FdBudget, RESERVE, fd_budget};
pub use env::Env;
pub use finding::{Finding, Problems};
pub use schema::{Key, keys, schema};
pub use settings::*;

use check::{Facts, check, resolve};
use file::File;
use finding::{Origin, place};
use shape::Shape;
use tokens::Placed;

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "config.json";

/// Largest file that is read: 1 MiB.
const MAX_FILE: u64 = 1 << 20;

/// Whether an upstream's URL can be used, given the networks that are open to it. The error is a sentence without credentials,
/// keys or query: what was found and what would be right.
pub type UpstreamJudge<'a> = dyn Fn(&str, &[IpNetwork]) -> Result<(), String> + 'a;

/// What is wrong with a file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// The key that names it.
    pub key: String,
    /// What was found and what would be right; nothing of what the file holds.
    pub text: String,
    /// Whether the relay cannot run like this.
    pub fatal: bool,
}

/// Whether the files that a configuration names can be used. It is asked about configurations with other problems too.
pub type FilesJudge<'a> = dyn Fn(&Config) -> Vec<Objection> + 'a;

/// Who judges what this room does not understand.
#[derive(Clone, Copy)]
pub struct Judges<'a> {
    /// Upstreams' URLs.
    pub upstream: &'a UpstreamJudge<'a>,
    /// Files with certificates and keys.
    pub files: &'a FilesJudge<'a>,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is worth a look, though usable.
    pub warnings: Vec<Finding>,
    /// Where it came from: a file's name, or "the environment".
    pub source: String,
    /// Keys that came from the environment, each with its variable.
    pub from_environment: std::collections::BTreeMap<String, String>,
}

/// Reads and judges the configuration: the file named, else `config.json` of the working directory, else the environment alone.
pub fn load(named: Option<&Path>, env: &Env, judges: Judges<'_>) -> Result<Loaded, Problems> {
    let default = Path::new(DEFAULT_FILE);
    match named.or_else(|| default.exists().then_some(default)) {
        Some(path) => {
            let source = path.display().to_string();
            let text = read_text(path).map_err(|reason| problem(&source, format!("cannot be read: {reason}")))?;
            assemble(&source, path.parent().unwrap_or(Path::new("")), &text, env, judges)
        }
        None if env.names_an_upstream() => assemble("the environment", Path::new(""), "{}", env, judges),
        None => {
            let text = "no configuration: name a file (relay config.json), put a config.json here, or set the variable UPSTREAM";
            Err(problem("relay", text.into()))
        }
    }
}

/// As [`load`], for a configuration that is at hand as text. The files that it names are not looked at.
pub fn parse(text: &str, env: &Env, judge: &UpstreamJudge<'_>) -> Result<Loaded, Problems> {
    let judges = Judges { upstream: judge, files: &|_| Vec::new() };
    assemble("the configuration", Path::new(""), text, env, judges)
}

fn problem(source: &str, text: String) -> Problems {
    Problems { source: source.to_owned(), errors: vec![Finding { at: String::new(), text }], warnings: Vec::new() }
}

fn assemble(source: &str, base: &Path, text: &str, env: &Env, judges: Judges<'_>) -> Result<Loaded, Problems> {
    let mut tree = tree::parse(text).map_err(|reason| problem(source, reason))?;
    let env::Overlay { origin, mut errors, mut warnings } = env::overlay(&mut tree, env);
    let mut shape = Shape::new(&origin);
    shape.walk(schema(), &tree, "", false);
    let mut bad = shape.prune(&mut tree);
    errors.extend(shape.findings);
    let file = match deserialize(&tree, &origin) {
        Ok(file) if tree.is_object() => file,
        // A root that is no object has been named already; an object that fails here is a difference between schema and types.
        verdict => {
            errors.extend(verdict.err().filter(|_| tree.is_object()));
            return Err(Problems { source: source.to_owned(), errors, warnings });
        }
    };
    let more_tokens = read_tokens(&file, base, &origin).unwrap_or_else(|wrong| {
        errors.extend(wrong);
        bad.insert("security.auth_tokens_file".into());
        Vec::new()
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let judge = judges.upstream;
    let facts = Facts { origin: &origin, bad: &bad, given: &tree, base, cores, more_tokens, judge };
    let checked = check(file, facts, judges.files);
    errors.extend(checked.errors);
    warnings.extend(checked.warnings);
    let source = source.to_owned();
    if errors.is_empty() {
        Ok(Loaded { config: checked.config, warnings, source, from_environment: origin })
    } else {
        Err(Problems { source, errors, warnings })
    }
}

fn deserialize(tree: &Value, origin: &Origin) -> Result<File, Finding> {
    serde_path_to_error::deserialize(tree).map_err(|error| {
        // serde's own sentence may repeat the value, which may be a secret.
        Finding::new(place(origin, &error.path().to_string()), "has the wrong type or form")
    })
}

fn read_tokens(file: &File, base: &Path, origin: &Origin) -> Result<Vec<Placed>, Vec<Finding>> {
    const KEY: &str = "security.auth_tokens_file";
    let written = &file.security.auth_tokens_file;
    if written.is_empty() {
        return Ok(Vec::new());
    }
    let path: PathBuf = resolve(base, origin, KEY, written);
    let unreadable = |reason| vec![Finding::new(place(origin, KEY), format!("the file {path:?} cannot be read: {reason}"))];
    let text = read_text(&path).map_err(unreadable)?;
    tokens::parse_file(&text, &path.display().to_string())
}

/// A small text file. The error says why not, without its name.
fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE { Err("it is larger than 1 MiB".into()) } else { Ok(text) }
}

#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod tests;
