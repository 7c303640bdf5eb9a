//! Errors of the configuration: the place, the problem and the correction.

use std::fmt;
use std::path::{Path, PathBuf};

/// The origin of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Built in.
    Default,
    /// This line of this file, counted from 1.
    File { path: PathBuf, line: usize },
    /// This environment variable.
    Environment(&'static str),
}

/// An error in the configuration. Its text names the place, the key and the correction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    origin: Origin,
    key: Option<String>,
    problem: String,
}

impl ConfigError {
    /// A problem with one setting.
    pub(crate) fn at(origin: &Origin, key: &str, problem: impl fmt::Display) -> Self {
        Self { origin: origin.clone(), key: Some(key.to_owned()), problem: problem.to_string() }
    }

    /// A problem with the file itself, at a line when one is known.
    pub(crate) fn in_file(path: &Path, line: usize, problem: impl fmt::Display) -> Self {
        let origin = Origin::File { path: path.to_owned(), line };
        Self { origin, key: None, problem: problem.to_string() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, &self.key) {
            (Origin::Default, Some(key)) => write!(f, "{key}: ")?,
            (Origin::Default, None) => {}
            (Origin::File { path, line: 0 }, _) => write!(f, "{}: ", path.display())?,
            (Origin::File { path, line }, Some(key)) => write!(f, "{}:{line}: {key}: ", path.display())?,
            (Origin::File { path, line }, None) => write!(f, "{}:{line}: ", path.display())?,
            (Origin::Environment(name), _) => write!(f, "{name}: ")?,
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}
