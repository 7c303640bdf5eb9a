//! Codex. Its terminal client starts an app server, once, and hands it all later sessions' tools.

use crate::agent::{AgentDaemon, AgentProfile, Keep, Mark, MeetingPoint, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "codex",
    programs: &["codex"],
    packages: &["@openai/codex"],
    tried: "0.171.0",
    source: "run against a stand-in model server: parents of tool commands, sockets and arguments read from /proc; \
             codex app-server --help",
    state: StateDirectory { variable: Some("CODEX_HOME"), below_home: ".codex" },
    daemon: Some(AgentDaemon {
        title: "codex app-server",
        // Without --listen it serves its parent alone, on its standard streams, as an editor starts it.
        marks: &[Mark::Listens { word: "app-server", option: "--listen", except: &["stdio://", "off"] }],
        meeting_points: &[
            // A link to a socket in the last one.
            MeetingPoint::State("app-server-control"),
            // Its record: a client that finds a living process in it waits for that one's socket, and gives up.
            MeetingPoint::State("app-server-daemon"),
            MeetingPoint::OfUser("/tmp/codex-daemon-"),
        ],
        lock: Some("app-server-daemon/daemon.lock"),
        // `codex exec` runs its tools itself, with the app server alive.
        keeps: &[Keep::Argument("--no-daemon"), Keep::Subcommand("exec"), Keep::Subcommand("app-server")],
        in_tree: "codex --no-daemon",
        isolated_by: &[],
        stop: "codex app-server daemon stop",
    }),
    hooks: Some("~/.codex/hooks.json"),
};
