//! The checks: facts in, verdicts out. Pure.
//!
//! | file | concept |
//! |---|---|
//! | `daemon` | versions, the socket, the daemon, its standing, its key |
//! | `containment` | the containment of this user's trees, and how to improve it |
//! | `hooks` | the hooks of agents: armed, or why not |
//! | `host` | the kernel, `/proc`, and escape routes |

mod containment;
mod daemon;
mod hooks;
mod host;

pub(super) use containment::{Expected, expected};
use serde::Serialize;

use super::facts::HostFacts;

/// The level of a result, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// Enforcement works, but could be stronger.
    Warn,
    /// Something does not work.
    Fail,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) level: Level,
    /// The name of the check, for users and scripts.
    pub(super) what: &'static str,
    pub(super) found: String,
    /// The remedy.
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

/// All checks, in the order in which problems should be fixed.
pub(super) fn all(facts: &HostFacts) -> Vec<Check> {
    [daemon::checks(facts), containment::checks(facts), host::checks(facts), hooks::checks(facts)].concat()
}

#[cfg(test)]
mod tests;
