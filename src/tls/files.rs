//! The files that hold certificates and keys: read with a bound, and what is wrong with one said without repeating it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest file that is read: 1 MiB. A whole system's roots are a quarter of that.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a file that the configuration names. The text never repeats what the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The configuration's key for the file.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What was found and what would be right.
    pub text: String,
}

impl FileProblem {
    pub(super) fn new(key: &'static str, path: &Path, text: impl Into<String>) -> Self {
        Self { key, path: path.to_owned(), text: text.into() }
    }

    /// The sentence behind the key.
    pub fn sentence(&self) -> String {
        format!("the file {} {}", self.path.display(), self.text)
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.sentence())
    }
}

impl std::error::Error for FileProblem {}

/// Reads the file that stands under `key`.
pub(super) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, FileProblem> {
    let problem = |text: String| FileProblem::new(key, path, text);
    let file = File::open(path).map_err(|error| problem(unreadable(&error)))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| problem(unreadable(&error)))?;
    if bytes.len() as u64 > MAX_FILE { Err(problem("is larger than 1 MiB".into())) } else { Ok(bytes) }
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".into(),
        io::ErrorKind::PermissionDenied => "cannot be read: the user that the relay runs as may not".into(),
        io::ErrorKind::IsADirectory => "is a directory; expected a file".into(),
        _ => format!("cannot be read: {error}"),
    }
}
