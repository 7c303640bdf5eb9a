//! What a hook prints, and its exit code.

use serde_json::Value;

use super::agents::Agent;
use super::verdict::Reason;

/// The exit code that most agents take for a block.
pub const BLOCK: u8 = 2;

/// The hook's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// For the agent, usually JSON.
    pub stdout: String,
    /// For the agent or its user.
    pub stderr: String,
    /// 0, or [`BLOCK`].
    pub exit: u8,
}

impl Reply {
    /// A yes that leaves the agent's own questions to its user in place: an explicit "allow" would skip them.
    pub(crate) fn silent() -> Self {
        Self::default()
    }

    /// A yes of an agent that wants to read one.
    pub(crate) fn yes(json: &Value) -> Self {
        Self { stdout: line(json), ..Self::default() }
    }

    /// A no by the exit code, with the reason on stderr.
    pub(crate) fn by_exit_code(reason: &Reason) -> Self {
        Self { stdout: String::new(), stderr: format!("{reason}\n"), exit: BLOCK }
    }

    /// A no by JSON and by the exit code.
    pub(crate) fn by_both(json: &Value, reason: &Reason) -> Self {
        Self { stdout: line(json), ..Self::by_exit_code(reason) }
    }

    /// A no by JSON alone: this agent takes every exit code but 0 for a broken hook.
    pub(crate) fn by_json(json: &Value, reason: &Reason) -> Self {
        Self { exit: 0, ..Self::by_both(json, reason) }
    }

    /// Whether the agent takes this for a no.
    #[must_use]
    pub fn blocks(&self, agent: Agent) -> bool {
        agent.form().is_no(self)
    }
}

fn line(json: &Value) -> String {
    format!("{json}\n")
}
