//! Cline. Each start starts a hub if none answers, and a start that finds one hands it the session.

use crate::agent::{AgentDaemon, AgentProfile, Keep, Mark, MeetingPoint, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "cline",
    programs: &["cline"],
    packages: &["cline"],
    tried: "3.0.65",
    source: "run against a stand-in model server: parents of tool commands, sockets and arguments read from /proc; \
             cline hub --help",
    state: StateDirectory { variable: None, below_home: ".cline" },
    daemon: Some(AgentDaemon {
        title: "cline hub",
        marks: &[Mark::Begins(&["--cline-hub-daemon"])],
        // The hub's token is in the directory: a client that cannot read it cannot speak to the port.
        meeting_points: &[MeetingPoint::State("data/locks/hub"), MeetingPoint::Loopback(25463)],
        lock: Some("data/locks/hub/production.json.instance.lock"),
        keeps: &[Keep::Variable("CLINE_SESSION_BACKEND_MODE", "local"), Keep::Subcommand("hub")],
        in_tree: "CLINE_SESSION_BACKEND_MODE=local",
        isolated_by: &[("CLINE_SESSION_BACKEND_MODE", "local")],
        stop: "cline hub stop",
    }),
    hooks: Some("~/.cline/hooks"),
};
