//! What kind of process a helper is, and its name for people. Pure.

use std::ffi::OsStr;
use std::path::Path;

use machineid_agents::{CONTAINER_SOCKETS, HelperKind};
use machineid_protocol::outside::OutsideKind;
use machineid_protocol::printable::printable;

use super::links::Via;
use super::processes::Program;

/// The longest name, in characters.
const LONGEST: usize = 60;

const UNKNOWN: &str = "an unknown process";

/// The kind of this process and its name. `agent_uid`: the user of the agent that uses it.
pub(super) fn of(program: &Program, agent_uid: u32) -> (OutsideKind, String) {
    let own = program.exe.as_ref().map(|exe| exe.as_os_str()).or_else(|| program.args.first().map(AsRef::as_ref));
    let own = own.unwrap_or_default();
    // An agent's daemon works for its own user. What runs as a third user serves all, as databases and resolvers do.
    let serves_all = program.uid != agent_uid && program.uid != 0;
    let (kind, title) = match program.kind() {
        HelperKind::AgentDaemon(_) | HelperKind::Other if serves_all => (OutsideKind::Service, None),
        HelperKind::AgentDaemon(agent) => (OutsideKind::AgentDaemon, agent.daemon.as_ref().map(|daemon| daemon.title)),
        HelperKind::ContainerEngine => (OutsideKind::ContainerEngine, None),
        HelperKind::ServiceManager => (OutsideKind::ServiceManager, None),
        HelperKind::TerminalMultiplexer => (OutsideKind::TerminalMultiplexer, None),
        HelperKind::Service => (OutsideKind::Service, None),
        HelperKind::Other => (OutsideKind::Other, None),
    };
    (kind, title.map_or_else(|| name(own), str::to_owned))
}

fn name(path: &OsStr) -> String {
    let file = Path::new(path).file_name().unwrap_or(path);
    let name: String = printable(&file.to_string_lossy(), '?').take(LONGEST).collect();
    if name.is_empty() { UNKNOWN.to_owned() } else { name }
}

/// The kind of a process that cannot be seen, by the socket at which it listens, and a name.
pub(super) fn of_unseen(via: &Via) -> (OutsideKind, String) {
    let Some(path) = via.path() else { return (OutsideKind::Other, UNKNOWN.to_owned()) };
    let file = path.rsplit('/').next().unwrap_or_default();
    let service = ["bus", "system_bus_socket", "nscd", "socket", "io.systemd.Resolve", "io.systemd.Multiplexer"];
    // The engine of one user has the same file name in the user's own directory.
    if CONTAINER_SOCKETS.iter().any(|known| known.rsplit('/').next() == Some(file)) {
        (OutsideKind::ContainerEngine, file.trim_end_matches(".sock").to_owned())
    } else if file == "private" && path.contains("/systemd/") {
        (OutsideKind::ServiceManager, "systemd".to_owned())
    } else if path.contains("/tmux-") {
        (OutsideKind::TerminalMultiplexer, "tmux".to_owned())
    } else if service.contains(&file) || path.starts_with("/run/systemd/") {
        (OutsideKind::Service, file.to_owned())
    } else {
        (OutsideKind::Other, UNKNOWN.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn program(exe: &str, args: &[&str], uid: u32) -> Program {
        let exe = (!exe.is_empty()).then(|| PathBuf::from(exe));
        Program { exe, args: args.iter().map(Into::into).collect(), uid }
    }

    #[test]
    fn the_daemon_of_an_agent_has_the_name_of_the_table() {
        let codex = program("/opt/codex", &["codex", "app-server", "--listen", "unix:///tmp/x"], 1000);
        assert_eq!(of(&codex, 1000), (OutsideKind::AgentDaemon, "codex app-server".to_owned()));
        assert_eq!(of(&Program { uid: 1001, ..codex.clone() }, 1000).0, OutsideKind::Service, "of another user");
        assert_eq!(of(&Program { uid: 0, ..codex }, 1000).0, OutsideKind::AgentDaemon);
    }

    #[test]
    fn what_is_not_known_is_other_and_what_serves_all_is_a_service() {
        assert_eq!(of(&program("/x/broker", &["broker", "serve"], 7), 7), (OutsideKind::Other, "broker".to_owned()));
        assert_eq!(of(&program("", &["mysqld-x"], 105), 7), (OutsideKind::Service, "mysqld-x".to_owned()));
        assert_eq!(of(&program("", &[], 7), 7), (OutsideKind::Other, UNKNOWN.to_owned()));
        assert_eq!(of(&program("", &["a\u{1b}[2J"], 7), 7).1, "a?[2J");
        assert_eq!(of(&program("/usr/lib/systemd/systemd-resolved", &["x"], 0), 7).0, OutsideKind::Service);
    }

    #[test]
    fn a_process_that_cannot_be_seen_is_known_by_its_socket() {
        let kind = |path: &str| of_unseen(&Via::Unix(path.as_bytes().to_vec())).0;
        assert_eq!(kind("/run/docker.sock"), OutsideKind::ContainerEngine);
        assert_eq!(kind("/run/systemd/private"), OutsideKind::ServiceManager);
        assert_eq!(kind("/tmp/tmux-1000/default"), OutsideKind::TerminalMultiplexer);
        assert_eq!(kind("/run/dbus/system_bus_socket"), OutsideKind::Service);
        assert_eq!(kind("/tmp/x"), OutsideKind::Other);
        assert_eq!(kind("\0docker.sock"), OutsideKind::Other);
    }
}
