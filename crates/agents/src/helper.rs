//! What a process is to the agents beside it.

use std::ffi::{OsStr, OsString};

use super::agent::AgentProfile;
use super::program::{interpreter, program_name, script};
use super::services::{CONTAINER_ENGINES, MULTIPLEXERS, SERVICE_MANAGERS, SERVICES};
use super::table::TABLE;

/// A process, as `/proc` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The target of `/proc/<pid>/exe`; empty when it cannot be read.
    pub exe: &'a OsStr,
    /// The arguments, the program's own name first; see [`super::split_command_line`].
    pub arguments: &'a [OsString],
    /// The user.
    pub uid: u32,
}

/// What a process is to an agent that is connected to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperKind {
    /// A daemon of this agent, which runs tools for its clients.
    AgentDaemon(&'static AgentProfile),
    /// A container engine: what it starts is in no tree of its clients.
    ContainerEngine,
    /// A service manager, `cron` or `at`: the same.
    ServiceManager,
    /// A terminal multiplexer: the same.
    TerminalMultiplexer,
    /// An ordinary service, which starts nothing for its clients: a resolver, the bus, a database, a model server.
    Service,
    /// Anything else.
    Other,
}

impl HelperKind {
    /// The kind as a word, for status pages and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::AgentDaemon(_) => "agent-daemon",
            Self::ContainerEngine => "container-engine",
            Self::ServiceManager => "service-manager",
            Self::TerminalMultiplexer => "terminal-multiplexer",
            Self::Service => "service",
            Self::Other => "other",
        }
    }
}

/// What this process is to an agent that is connected to it. A process can give itself any name: the answer informs people, and
/// decides about no process that is not pinned by other means.
#[must_use]
pub fn kind_of(process: &Seen<'_>) -> HelperKind {
    let arguments = process.arguments.get(1..).unwrap_or_default();
    let first = process.arguments.first().map(OsString::as_os_str);
    // An agent that is a script has its interpreter as the executable.
    let behind =
        interpreter(process.exe).or_else(|| first.and_then(interpreter)).and_then(|valued| script(arguments, valued));
    // A wrapper script that is executed as `sh codex` or by its own first line.
    let shell = ["sh", "bash", "dash", "zsh"].iter().any(|shell| program_name(process.exe) == *shell);
    let behind = behind.or_else(|| shell.then(|| script(arguments, &[])).flatten());
    let (program, own) = behind.unwrap_or((process.exe, arguments));
    let names = [program_name(program), first.map(program_name).unwrap_or_default()];
    let is_any = |known: &[&str]| names.iter().any(|name| name.to_str().is_some_and(|name| known.contains(&name)));
    let is_daemon = |agent: &&'static AgentProfile| {
        agent.daemon.as_ref().is_some_and(|daemon| {
            let title = names[1].to_str().and_then(|name| name.split_once(' ')).map(|(first, _)| first);
            let known = is_any(agent.programs) || title.is_some_and(|title| agent.programs.contains(&title));
            known && daemon.marks.iter().any(|mark| mark.is_on(own))
        })
    };
    if let Some(agent) = TABLE.into_iter().find(is_daemon) {
        return HelperKind::AgentDaemon(agent);
    }
    // The name of a process is its own choice; its executable is not.
    let executable = program_name(program).to_str().unwrap_or_default();
    let is = |known: &[&str]| known.contains(&executable);
    if is(CONTAINER_ENGINES) {
        HelperKind::ContainerEngine
    } else if is(SERVICE_MANAGERS) {
        HelperKind::ServiceManager
    } else if is(MULTIPLEXERS) {
        HelperKind::TerminalMultiplexer
    } else if is(SERVICES) {
        HelperKind::Service
    } else {
        HelperKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(exe: &str, line: &str) -> HelperKind {
        let arguments: Vec<OsString> = line.split('|').map(OsString::from).collect();
        kind_of(&Seen { exe: OsStr::new(exe), arguments: &arguments, uid: 1000 })
    }

    fn daemon_of(exe: &str, line: &str) -> Option<&'static str> {
        match kind(exe, line) {
            HelperKind::AgentDaemon(agent) => Some(agent.name),
            HelperKind::ContainerEngine
            | HelperKind::ServiceManager
            | HelperKind::TerminalMultiplexer
            | HelperKind::Service
            | HelperKind::Other => None,
        }
    }

    const CODEX: &str =
        "/home/a/.codex/packages/app-server-daemon/releases/0.171.0-x86_64-unknown-linux-musl/bin/codex";
    const CLINE: &str = "/usr/lib/node_modules/@cline/cli-linux-x64/bin/cline";
    const CLAUDE: &str = "/home/a/.local/share/claude/versions/2.1.332/claude";

    /// The command lines were recorded from the programs of the versions in the table.
    #[test]
    fn daemons_are_recognised_by_recorded_command_lines() {
        for (exe, line, name) in [
            (CODEX, "/x/bin/codex|app-server|--listen|unix://|--analytics-default-enabled|--managed-daemon", "codex"),
            ("/x/codex (deleted)", "codex|-c|a=b|app-server|--listen=ws://127.0.0.1:4500", "codex"),
            ("/usr/bin/node", "node|/usr/bin/codex|app-server|--listen|unix:///s", "codex"),
            ("/usr/bin/dash", "/bin/sh|/tmp/codex|app-server|--listen|unix:///s", "codex"),
            (
                CLINE,
                "/x/bin/cline|--cline-hub-daemon|--cwd|/home/a|--host|127.0.0.1|--port|25463|--pathname|/hub",
                "cline",
            ),
            (CLAUDE, "/x/claude|daemon|run|--origin|transient|--spawned-by|{\"label\":\"claude --bg\"}", "claude-code"),
            (CLAUDE, "claude bg-spare|--bg-spare|/tmp/cc-daemon-0/2825078e/spare/95d3ea30.claim.sock", "claude-code"),
            (
                CLAUDE,
                "claude bg-pty-host|--bg-pty-host|/tmp/cc-daemon-0/2825078e/pty/0b27a5dc.sock|200|50|--|/x/claude",
                "claude-code",
            ),
        ] {
            assert_eq!(daemon_of(exe, line), Some(name), "{line}");
        }
    }

    #[test]
    fn clients_and_servers_on_standard_streams_are_no_daemons() {
        for (exe, line) in [
            (CODEX, "codex|exec|--skip-git-repo-check|start the app-server --listen unix://"),
            (CODEX, "codex|app-server"),
            (CODEX, "codex|app-server|--listen|stdio://"),
            (CODEX, "codex|app-server|daemon|start"),
            (CODEX, "codex|app-server|daemon|pid-update-loop"),
            (CODEX, "codex|app-server|proxy"),
            (CLINE, "cline|-P|openai-compatible|please go on"),
            (CLAUDE, "claude|-p|daemon run"),
            (CLAUDE, "claude|--session-id|0b27a5dc|say hello"),
            ("/usr/bin/vim", "vim|app-server|--listen|unix://"),
            ("/usr/bin/node", "node|server.js|app-server|--listen|unix://"),
        ] {
            assert_eq!(kind(exe, line), HelperKind::Other, "{line}");
        }
    }

    #[test]
    fn other_helpers_are_known_by_their_executable() {
        for (exe, line, expected) in [
            ("/usr/bin/dockerd", "dockerd|-H|fd://", HelperKind::ContainerEngine),
            ("/usr/bin/podman", "podman|system|service", HelperKind::ContainerEngine),
            ("/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd|--user", HelperKind::ServiceManager),
            ("/usr/bin/tmux", "tmux|new-session|-d", HelperKind::TerminalMultiplexer),
            ("/usr/bin/dbus-daemon", "dbus-daemon|--session", HelperKind::Service),
            ("/usr/bin/python3.12", "/usr/bin/python3|/usr/local/bin/litellm|--port|4000", HelperKind::Service),
            ("/usr/bin/ollama", "ollama|serve", HelperKind::Service),
            ("/usr/bin/python3", "python3|broker.py", HelperKind::Other),
            // A name that a process gave itself.
            ("/tmp/x", "dockerd|-H", HelperKind::Other),
            ("", "", HelperKind::Other),
        ] {
            assert_eq!(kind(exe, line), expected, "{line}");
        }
        assert_eq!(kind_of(&Seen { exe: OsStr::new(""), arguments: &[], uid: 0 }), HelperKind::Other);
    }
}
