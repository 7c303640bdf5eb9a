//! Qwen Code.

use crate::agent::{AgentProfile, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "qwen-code",
    programs: &["qwen"],
    packages: &["@qwen-code/qwen-code"],
    tried: "0.15.10",
    source: "run against a stand-in model server: nothing of it was left after a stop, in every containment",
    state: StateDirectory { variable: None, below_home: ".qwen" },
    daemon: None,
    hooks: Some("~/.qwen/settings.json"),
};
