//! The roles of the drill's canaries, and the hidden verb by which this program becomes one.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// The hidden verb.
pub(crate) const VERB: &str = "drill-canary";

/// The role of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// The process started by the wrapper; it makes the others.
    Leader,
    /// A process in its own session, like `setsid` and daemons.
    Session,
    /// A process that ignores or blocks all signals but SIGKILL.
    Stubborn,
    /// The first half of a double fork: makes the orphan and ends.
    Fork,
    /// A process whose parent has ended, in its own session, with an empty environment.
    Orphan,
}

impl Role {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Session => "session",
            Self::Stubborn => "stubborn",
            Self::Fork => "fork",
            Self::Orphan => "orphan",
        }
    }

    /// The description for users.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Leader => "the command itself",
            Self::Session => "a child in a session of its own",
            Self::Stubborn => "a child that ignores SIGTERM",
            Self::Fork => "the first half of a double fork",
            Self::Orphan => "an orphan of a double fork, without its environment",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
