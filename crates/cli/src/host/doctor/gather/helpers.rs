//! Processes that would work for an agent outside its tree, recognised by the table of agents.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use machineid_agents::{HelperKind, Seen, kind_of, split_command_line};

use super::super::facts::{CurrentUser, EscapeRoute, RouteKind};
use super::users;
use crate::Env;

/// The most that is read of a process's arguments or environment, in bytes.
const MOST: u64 = 256 * 1024;

/// A process that is shown.
#[derive(Debug)]
struct Helper {
    pid: u32,
    uid: u32,
    /// The file name of its executable; empty when it is not readable.
    name: String,
    kind: HelperKind,
    /// Whether its environment names a run: it is in a supervised tree.
    supervised: bool,
}

/// Adds daemons of agents, multiplexers and ssh servers to the routes, and to the other routes the processes behind them. Root
/// is shown those of all users.
pub(super) fn add(routes: &mut BTreeSet<EscapeRoute>, user: &CurrentUser, env: Env<'_>) {
    let found = all();
    let has = |kind: RouteKind, routes: &BTreeSet<EscapeRoute>| routes.iter().any(|route| route.kind == kind);
    for helper in &found {
        let own = helper.uid == user.uid;
        let kind = match helper.kind {
            HelperKind::AgentDaemon(agent) if (own || user.uid == 0) && !helper.supervised => {
                RouteKind::AgentDaemon(agent.name)
            }
            HelperKind::ContainerEngine if has(RouteKind::Containers, routes) => RouteKind::Containers,
            HelperKind::ServiceManager if own && helper.pid != 1 && has(RouteKind::UserManager, routes) => {
                RouteKind::UserManager
            }
            HelperKind::TerminalMultiplexer if own => match helper.name.as_str() {
                "tmux" if has(RouteKind::Tmux, routes) => RouteKind::Tmux,
                "screen" if has(RouteKind::Screen, routes) => RouteKind::Screen,
                "tmux" | "screen" => continue,
                _ => RouteKind::Multiplexer,
            },
            HelperKind::AgentDaemon(_)
            | HelperKind::ContainerEngine
            | HelperKind::ServiceManager
            | HelperKind::TerminalMultiplexer
            | HelperKind::Service
            | HelperKind::Other => continue,
        };
        routes.insert(EscapeRoute { kind, place: helper.place() });
    }
    // A server names its connections and forks in its title; its listener has no parent but the service manager.
    let server = found.iter().find(|helper| helper.name == "sshd" || helper.name == "dropbear");
    if let Some(server) = server.filter(|_| takes_keys(env)) {
        routes.insert(EscapeRoute { kind: RouteKind::Ssh, place: server.place() });
    }
}

impl Helper {
    fn place(&self) -> String {
        let user = users::user(self.uid);
        let user = user.name.unwrap_or_else(|| self.uid.to_string());
        let name = if self.name.is_empty() { String::new() } else { format!("{}: ", self.name) };
        format!("{name}pid {}, user {user}", self.pid)
    }
}

/// The processes that this user may look at, as far as they are of a kind that matters.
fn all() -> Vec<Helper> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<Helper> = pids.filter_map(read).collect();
    found.sort_by_key(|helper| helper.pid);
    found
}

fn read(pid: u32) -> Option<Helper> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let uid = fs::metadata(&process).ok()?.uid();
    let exe = fs::read_link(process.join("exe")).unwrap_or_default();
    let arguments = split_command_line(&bytes(&process.join("cmdline")).unwrap_or_default());
    let kind = kind_of(&Seen { exe: exe.as_os_str(), arguments: &arguments, uid });
    let comm = || fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
    let name = exe.file_name().map_or_else(comm, |name| name.to_string_lossy().into_owned());
    let supervised = matches!(kind, HelperKind::AgentDaemon(_))
        && bytes(&process.join("environ")).is_some_and(|environ| {
            environ.split(|&byte| byte == 0).any(|entry| entry.starts_with(b"MACHINEID_RUN_ID="))
        });
    Some(Helper { pid, uid, name, kind, supervised })
}

fn bytes(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether a key opens a session of this user.
fn takes_keys(env: Env<'_>) -> bool {
    let home = env("HOME").map(PathBuf::from);
    home.is_some_and(|home| fs::metadata(home.join(".ssh/authorized_keys")).is_ok_and(|keys| keys.len() > 0))
}
