//! Daemons of an agent that run outside its tree, looked for before the agent starts.
//!
//! Such an agent would hand its work to the daemon, and a stop of the run would not reach it. Only processes of the same user
//! count whose state directory is the agent's: with another one the agent does not find the daemon.
//!
//! A daemon that is itself in a supervised tree counts as inside when a stop of this run's device stops that tree too: with
//! the same device, or when this run is the host's. Its environment tells, as it does for every process of a tree.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use machineid_agents::{AgentProfile, HelperKind, Started, Variables, started};
use machineid_outside::{Proc, Processes as _};
use machineid_tree::Pid;
use nix::unistd::geteuid;

use super::Run;

/// What to do when a daemon of the agent runs outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// Start nothing.
    Refuse,
    /// Say so and go on.
    Allow,
}

/// A daemon of the agent that starts, outside its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutsideDaemon {
    agent: &'static AgentProfile,
    pid: Pid,
}

/// The most that is read of a process's environment, in bytes: the kernel lets it have megabytes.
const MOST: u64 = 256 * 1024;

impl OutsideDaemon {
    fn title(self) -> &'static str {
        self.agent.daemon.as_ref().map_or(self.agent.name, |daemon| daemon.title)
    }

    /// Why nothing is started, with the ways out.
    pub(super) fn refusal(self) -> String {
        let (stop, in_tree) = self.agent.daemon.as_ref().map_or(("", ""), |daemon| (daemon.stop, daemon.in_tree));
        format!(
            "{} (pid {}) runs outside, and a stop would not reach what it does for {}: end it ({stop}), keep the work in the \
             tree ({in_tree}), hide it with --isolate, or accept it with --outside allow",
            self.title(),
            self.pid,
            self.agent.name,
        )
    }

    /// What is accepted by `--outside allow`.
    pub(super) fn warning(self) -> String {
        format!("{} (pid {}) runs outside: a stop does not reach what it does for this run", self.title(), self.pid)
    }
}

/// The agent that this command starts; through a link to its program too.
pub(super) fn agent_of(command: &[OsString], variables: Variables<'_>, directory: &Path) -> Option<Started> {
    started(command).or_else(|| {
        let (program, arguments) = command.split_first()?;
        let target = resolve(program, variables, directory)?;
        // Behind a link named otherwise, an interpreter or a runner is not looked for.
        let argv: Vec<OsString> = std::iter::once(target.into()).chain(arguments.iter().cloned()).collect();
        started(&argv)
    })
}

/// The file behind the link that this program is. `None` when it is no link.
fn resolve(program: &OsStr, variables: Variables<'_>, directory: &Path) -> Option<PathBuf> {
    let link = |path: PathBuf| path.is_symlink().then(|| path.canonicalize().ok()).flatten();
    if program.as_bytes().contains(&b'/') {
        return link(directory.join(program));
    }
    let path = variables("PATH")?;
    let found = std::env::split_paths(&path).map(|place| place.join(program)).find(|place| place.exists())?;
    link(found)
}

/// The first daemon of the run's agent that runs outside and that the agent would use. `None` too when the run is isolated,
/// or its command keeps the work in the tree.
pub(super) fn find(run: &Run) -> Option<OutsideDaemon> {
    let started = run.agent.as_ref().filter(|_| run.isolation.is_none())?;
    let agent = started.agent;
    agent.daemon.as_ref()?;
    let variables = |wanted: &str| {
        let all = started.variables.iter().rev().chain(&run.environment);
        all.into_iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
    };
    if agent.kept_by(&started.arguments, &variables).is_some() {
        return None;
    }
    let own = place(agent, &variables);
    let uid = geteuid().as_raw();
    let mut pids: Vec<Pid> =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| number(&entry.file_name())).collect();
    pids.sort_unstable();
    let counts = |pid: &Pid| {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        is_daemon(agent, *pid, &directory, uid) && {
            // What cannot be read counts as the same.
            let environ = Environ(read(&directory.join("environ")).unwrap_or_default());
            let other = place(agent, &|name| environ.get(name));
            (own.is_none() || other.is_none() || own == other) && !is_inside(run, &environ)
        }
    };
    pids.into_iter().find(counts).map(|pid| OutsideDaemon { agent, pid })
}

fn number(name: &OsStr) -> Option<Pid> {
    name.to_str()?.parse().ok().and_then(Pid::new)
}

fn is_daemon(agent: &'static AgentProfile, pid: Pid, directory: &Path, uid: u32) -> bool {
    if !fs::metadata(directory).is_ok_and(|found| found.uid() == uid) {
        return false;
    }
    Proc.program(pid).is_some_and(|program| program.kind() == HelperKind::AgentDaemon(agent))
}

/// The agent's state directory, links resolved.
fn place(agent: &AgentProfile, variables: Variables<'_>) -> Option<PathBuf> {
    let directory = agent.state_directory(variables)?;
    Some(directory.canonicalize().unwrap_or(directory))
}

/// Whether a process with this environment is in a tree that ends with the run's device.
fn is_inside(run: &Run, environ: &Environ) -> bool {
    let is = |name: &str, wanted: &OsStr| environ.get(name).is_some_and(|value| value == wanted);
    environ.get("MACHINEID_RUN_ID").is_some_and(|run_id| !run_id.is_empty())
        && is("MACHINEID_SOCKET", run.socket.as_os_str())
        // A deny of the host's device stops every tree of the daemon.
        && run.settings.device.as_ref().is_none_or(|device| is("MACHINEID_DEVICE_ID", OsStr::new(device.as_str())))
}

/// The environment that a process was started with, as `/proc` shows it.
#[derive(Debug)]
struct Environ(Vec<u8>);

impl Environ {
    fn get(&self, name: &str) -> Option<OsString> {
        let entries = self.0.split(|&byte| byte == 0);
        let mut values = entries.filter_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.next().map(|value| OsString::from_vec(value.to_vec()))
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_agents::by_name;

    #[test]
    fn the_refusal_is_one_sentence_with_the_pid_and_the_ways_out() {
        for name in ["codex", "claude-code", "cline"] {
            let daemon = OutsideDaemon { agent: by_name(name).unwrap(), pid: Pid::new(4711).unwrap() };
            let text = daemon.refusal();
            for word in ["(pid 4711)", "--isolate", "--outside allow", name] {
                assert!(text.contains(word), "{text}");
            }
            assert!(!text.contains(['\n', '.']) || name == "x", "{text}");
            assert!(text.len() < 400, "{text}");
            assert!(daemon.warning().contains("4711"));
        }
    }

    #[test]
    fn an_agent_is_found_behind_a_link_of_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("codex");
        fs::write(&program, "").unwrap();
        std::os::unix::fs::symlink(&program, directory.path().join("cx")).unwrap();
        let variables = |name: &str| (name == "PATH").then(|| directory.path().into());
        for command in ["cx", "./cx"] {
            let found = agent_of(&[command.into()], &variables, directory.path()).unwrap();
            assert_eq!(found.agent.name, "codex", "{command}");
        }
        assert!(agent_of(&["ls".into()], &variables, directory.path()).is_none());
    }

    #[test]
    fn an_environment_is_read_by_whole_names() {
        let environ = Environ(b"XHOME=/x\0HOME=/h\0EMPTY=\0HOME=/second\0".to_vec());
        assert_eq!(environ.get("HOME"), Some("/h".into()));
        assert_eq!(environ.get("EMPTY"), Some("".into()));
        assert_eq!(environ.get("HOM"), None);
    }
}
