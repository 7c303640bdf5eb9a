//! Gemini CLI.

use crate::agent::{AgentProfile, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "gemini-cli",
    programs: &["gemini"],
    packages: &["@google/gemini-cli"],
    tried: "0.61.0",
    source: "run against a stand-in model server: nothing of it was left after a stop, in every containment",
    state: StateDirectory { variable: None, below_home: ".gemini" },
    daemon: None,
    hooks: Some("~/.gemini/settings.json"),
};
