//! mini-swe-agent.

use crate::agent::{AgentProfile, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "mini-swe-agent",
    programs: &["mini"],
    packages: &["mini-swe-agent"],
    tried: "2.4.6",
    source: "run against a stand-in model server: nothing of it was left after a stop, in every containment",
    state: StateDirectory { variable: None, below_home: ".config/mini-swe-agent" },
    daemon: None,
    hooks: None,
};
