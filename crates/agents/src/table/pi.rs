//! pi.

use crate::agent::{AgentProfile, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "pi",
    programs: &["pi"],
    packages: &["@mariozechner/pi-coding-agent"],
    tried: "0.73.1",
    source: "run against a stand-in model server: nothing of it was left after a stop, in every containment",
    state: StateDirectory { variable: None, below_home: ".pi/agent" },
    daemon: None,
    hooks: Some("~/.pi/agent/extensions"),
};
