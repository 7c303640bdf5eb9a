//! What a reload came to.

use machineid_protocol::event::ReloadResult;
use tracing::{info, warn};

/// What a reload came to. What is wrong never undoes what is right: a wrong configuration does not keep a rotated key from
/// being taken, nor the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct ReloadOutcome {
    /// The settings that changed, `"org key"` among them.
    pub(in crate::daemon) changed: Vec<&'static str>,
    /// What keeps its old value, where, and what would be right.
    pub(in crate::daemon) problems: Vec<String>,
}

impl ReloadOutcome {
    pub(in crate::daemon) fn result(&self) -> ReloadResult {
        match (self.changed.is_empty(), self.problems.is_empty()) {
            (false, true) => ReloadResult::Applied,
            (true, true) => ReloadResult::Unchanged,
            (false, false) => ReloadResult::Partial,
            (true, false) => ReloadResult::Refused,
        }
    }

    pub(super) fn log(&self) {
        let (result, changed) = (self.result().as_str(), self.changed.join(", "));
        match self.result() {
            ReloadResult::Applied => info!(result, changed, "the configuration was reloaded"),
            ReloadResult::Unchanged => info!(result, "the configuration was reloaded; nothing had changed"),
            ReloadResult::Partial => info!(result, changed, "the configuration was reloaded, except for the following"),
            ReloadResult::Refused => {}
        }
        for problem in &self.problems {
            warn!(result, "not applied, the old value stays: {problem}");
        }
    }
}
