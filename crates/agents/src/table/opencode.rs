//! opencode.

use crate::agent::{AgentProfile, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "opencode",
    programs: &["opencode"],
    packages: &["opencode-ai"],
    tried: "1.18.33",
    source: "run against a stand-in model server: nothing of it was left after a stop, in every containment",
    state: StateDirectory { variable: None, below_home: ".config/opencode" },
    daemon: None,
    hooks: Some("~/.config/opencode/plugin"),
};
