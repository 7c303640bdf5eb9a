//! Aider.

use crate::agent::{AgentProfile, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "aider",
    programs: &["aider"],
    packages: &["aider-chat"],
    tried: "0.86.2",
    source: "run against a stand-in model server: nothing of it was left after a stop, in every containment",
    state: StateDirectory { variable: None, below_home: ".aider" },
    daemon: None,
    hooks: None,
};
