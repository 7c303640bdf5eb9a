//! From facts to verdicts. Pure.
//!
//! | file | concept |
//! |---|---|
//! | `daemon` | versions, the socket, the daemon, what it holds, its key |
//! | `containment` | what holds a tree of this user's together, and how to get better |
//! | `host` | the kernel, `/proc`, and the ways out |

mod containment;
mod daemon;
mod host;

pub(super) use containment::{Expected, expected};
use serde::Serialize;

use super::facts::Facts;

/// From good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// Enforcement works, and could be stronger.
    Warn,
    /// Something does not work.
    Fail,
}

/// One precondition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) level: Level,
    /// Its name, for people and scripts.
    pub(super) what: &'static str,
    pub(super) found: String,
    /// What to do about it.
    pub(super) remedy: Option<String>,
}

impl Check {
    pub(super) fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, what, found: found.into(), remedy: None }
    }

    pub(super) fn warn(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, what, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn fail(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, what, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// All of them, in the order in which they are to be mended.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    [daemon::checks(facts), containment::checks(facts), host::checks(facts)].concat()
}

#[cfg(test)]
mod tests;
