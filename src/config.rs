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
mod diff;
mod doors;
mod effect;
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
pub use diff::{Change, View, diff, overridden};
pub use effect::{Effect, effects};
pub use env::Env;
pub use finding::{Finding, Problems};
pub use schema::{Key, keys, schema};
pub use settings::*;

use check::{Facts, check, resolve};
use env::Overlay;
use file::File;
use finding::{Origin, place};
use shape::Shape;
use tokens::Placed;

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "config.json";

/// The key of a further file.
const TOKENS_FILE: &str = "security.auth_tokens_file";

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
    given: Given,
}

/// What was given, for comparing with what will be. Holds secrets, and is never printed.
#[derive(Clone)]
struct Given {
    /// The file with the environment's variables over it.
    whole: Value,
    /// The file alone.
    file: Value,
    /// Directory of the file, which its paths are relative to.
    base: PathBuf,
    /// Where the file is; `None` for the environment alone.
    path: Option<PathBuf>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Loaded {
    /// Reads the same place again, under the variables `env`.
    ///
    /// # Errors
    /// As for [`load`].
    pub fn again(&self, env: &Env, judges: Judges<'_>) -> Result<Self, Problems> {
        if let Some(path) = &self.given.path {
            return load(Some(path), env, judges);
        }
        let mut given = self.given.clone();
        given.whole = given.file.clone();
        let overlay = env::overlay(&mut given.whole, env);
        judged(&self.source, given, overlay, judges)
    }

    /// Files that were read and may change.
    pub fn files(&self) -> Vec<PathBuf> {
        let tokens = tree::get(&self.given.whole, TOKENS_FILE).and_then(Value::as_str).filter(|path| !path.is_empty());
        let tokens = tokens.map(|path| resolve(&self.given.base, &self.from_environment, TOKENS_FILE, path));
        self.given.path.iter().cloned().chain(tokens).collect()
    }

    /// Whether somebody chose a value for the key, be it its default.
    pub fn gives(&self, key: &str) -> bool {
        tree::get(&self.given.whole, key).is_some()
    }

    /// Everything that was chosen, secrets among it, as bytes to be digested: equal for equal choices.
    pub fn for_digest(&self) -> Vec<u8> {
        diff::bytes(self)
    }

    /// The same with the values that `running` has for these keys: what can be applied where they cannot change.
    ///
    /// # Errors
    /// The two do not go together.
    pub fn keeping(&self, running: &Self, keys: &[&str], judges: Judges<'_>) -> Result<Self, Problems> {
        let (mut given, mut origin) = (self.given.clone(), self.from_environment.clone());
        for key in keys {
            tree::remove(&mut given.whole, key);
            origin.remove(*key);
            if let Some(value) = tree::get(&running.given.whole, key) {
                tree::set(&mut given.whole, key, value.clone());
            }
            origin.extend(running.from_environment.get(*key).map(|variable| ((*key).to_owned(), variable.clone())));
        }
        judged(&self.source, given, Overlay { origin, ..Overlay::default() }, judges)
    }
}

/// Reads and judges the configuration: the file named, else `config.json` of the working directory, else the environment alone.
pub fn load(named: Option<&Path>, env: &Env, judges: Judges<'_>) -> Result<Loaded, Problems> {
    let default = Path::new(DEFAULT_FILE);
    match named.or_else(|| default.exists().then_some(default)) {
        Some(path) => {
            let source = path.display().to_string();
            let text = read_text(path).map_err(|reason| problem(&source, format!("cannot be read: {reason}")))?;
            assemble(&source, Some(path), &text, env, judges)
        }
        None if env.names_an_upstream() => assemble("the environment", None, "{}", env, judges),
        None => {
            let text = "no configuration: name a file (relay config.json), put a config.json here, or set the variable UPSTREAM";
            Err(problem("relay", text.into()))
        }
    }
}

/// As [`load`], for a configuration that is at hand as text. The files that it names are not looked at.
pub fn parse(text: &str, env: &Env, judge: &UpstreamJudge<'_>) -> Result<Loaded, Problems> {
    let judges = Judges { upstream: judge, files: &|_| Vec::new() };
    assemble("the configuration", None, text, env, judges)
}

fn problem(source: &str, text: String) -> Problems {
    Problems { source: source.to_owned(), errors: vec![Finding { at: String::new(), text }], warnings: Vec::new() }
}

fn assemble(source: &str, path: Option<&Path>, text: &str, env: &Env, judges: Judges<'_>) -> Result<Loaded, Problems> {
    let file = tree::parse(text).map_err(|reason| problem(source, reason))?;
    let mut whole = file.clone();
    let overlay = env::overlay(&mut whole, env);
    let base = path.and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    judged(source, Given { whole, file, base, path: path.map(Path::to_owned) }, overlay, judges)
}

fn judged(source: &str, given: Given, overlay: Overlay, judges: Judges<'_>) -> Result<Loaded, Problems> {
    let Overlay { origin, mut errors, mut warnings } = overlay;
    let (mut tree, base) = (given.whole.clone(), given.base.as_path());
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
        Ok(Loaded { config: checked.config, warnings, source, from_environment: origin, given })
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
    const KEY: &str = TOKENS_FILE;
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
