//! Mistral Vibe.

use crate::agent::{AgentProfile, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "mistral-vibe",
    programs: &["vibe"],
    packages: &["mistral-vibe"],
    tried: "3.0.2",
    source: "run against a stand-in model server: nothing of it was left after a stop, in every containment",
    state: StateDirectory { variable: None, below_home: ".vibe" },
    daemon: None,
    hooks: Some("~/.vibe/hooks.toml"),
};
