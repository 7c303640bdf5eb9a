//! What a reload came to.

use tracing::{info, warn};

/// What a reload came to. What is wrong never undoes what is right: a wrong configuration does not keep a rotated key from
/// being taken, nor the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Outcome {
    /// The settings that changed, `"org key"` among them.
    pub(in crate::daemon) changed: Vec<&'static str>,
    /// What keeps its old value, where, and what would be right.
    pub(in crate::daemon) problems: Vec<String>,
}

/// An outcome in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Verdict {
    /// Everything that changed is in force.
    Applied,
    /// Nothing had changed.
    Unchanged,
    /// Some of it is in force, some keeps its old value.
    Partial,
    /// Everything keeps its old value.
    Failed,
}

impl Verdict {
    pub(in crate::daemon) const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

impl Outcome {
    pub(in crate::daemon) fn verdict(&self) -> Verdict {
        match (self.changed.is_empty(), self.problems.is_empty()) {
            (false, true) => Verdict::Applied,
            (true, true) => Verdict::Unchanged,
            (false, false) => Verdict::Partial,
            (true, false) => Verdict::Failed,
        }
    }

    pub(super) fn log(&self) {
        let (result, changed) = (self.verdict().as_str(), self.changed.join(", "));
        match self.verdict() {
            Verdict::Applied => info!(result, changed, "the configuration was reloaded"),
            Verdict::Unchanged => info!(result, "the configuration was reloaded; nothing had changed"),
            Verdict::Partial => info!(result, changed, "the configuration was reloaded, but for what follows"),
            Verdict::Failed => {}
        }
        for problem in &self.problems {
            warn!(result, "not taken over, the old value holds: {problem}");
        }
    }
}
