//! Claude Code. `--bg` and agent view hand a session to a daemon, which runs it on a terminal of its own.

use crate::agent::{AgentDaemon, AgentProfile, Keep, Mark, MeetingPoint, StateDirectory};

pub(super) static AGENT: AgentProfile = AgentProfile {
    name: "claude-code",
    programs: &["claude"],
    packages: &["@anthropic-ai/claude-code"],
    tried: "2.1.332",
    source: "run against a stand-in model server: sockets and arguments read from /proc; claude daemon --help",
    state: StateDirectory { variable: Some("CLAUDE_CONFIG_DIR"), below_home: ".claude" },
    daemon: Some(AgentDaemon {
        title: "claude daemon",
        marks: &[Mark::Begins(&["daemon", "run"]), Mark::Begins(&["--bg-pty-host"]), Mark::Begins(&["--bg-spare"])],
        meeting_points: &[MeetingPoint::OfUser("/tmp/cc-daemon-"), MeetingPoint::State("daemon")],
        lock: Some("daemon.lock"),
        keeps: &[Keep::Argument("-p"), Keep::Argument("--print"), Keep::Subcommand("daemon")],
        in_tree: "claude -p",
        isolated_by: &[],
        stop: "claude daemon stop --any",
    }),
    hooks: Some("~/.claude/settings.json"),
};
