//! gptme.

use crate::agent::{AgentProfile, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "gptme",
    programs: &["gptme"],
    packages: &["gptme"],
    tried: "0.35.1",
    source: "run against a stand-in model server: nothing of it was left after a stop, in every containment",
    state: StateDirectory { variable: None, below_home: ".config/gptme" },
    daemon: None,
    hooks: None,
};
