//! The facts found on this host. Plain data, without a judgement.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use jiff::Timestamp;
use machineid_hook::settings::Found;
use machineid_hook::{Agent, Scope};
use machineid_protocol::HoldsAgainst;
use machineid_protocol::status::Status;
use machineid_sys::ForkError;
use machineid_tree::NoCgroup;
use rustix::io::Errno;

use crate::host::socket::DaemonError;

/// All facts that the checks use.
#[derive(Debug)]
pub(super) struct HostFacts {
    pub(super) now: Timestamp,
    pub(super) user: CurrentUser,
    pub(super) wrapper: WrapperFacts,
    pub(super) socket: SocketFacts,
    /// The user whose login sessions the socket's directory depends on, if any.
    pub(super) sessions: Option<LoginSessions>,
    /// The daemon's answers, or why there are none.
    pub(super) daemon: Result<Daemon, DaemonError>,
    pub(super) kernel: Kernel,
    pub(super) proc: ProcView,
    pub(super) cgroup: Cgroup,
    pub(super) pidns: Result<(), NoPidns>,
    pub(super) routes: Vec<EscapeRoute>,
    pub(super) hooks: Vec<HookFacts>,
}

/// The user who runs the command, and whose agents the checks are about.
#[derive(Clone, Debug)]
pub(super) struct CurrentUser {
    pub(super) uid: u32,
    pub(super) name: Option<String>,
}

/// The wrapper that `machineid drill` and operators start.
#[derive(Debug)]
pub(super) enum WrapperFacts {
    /// The wrapper is neither beside this program nor on the search path.
    Missing,
    Found {
        path: PathBuf,
        /// Its own answer, or why there is none.
        version: Result<String, NoVersion>,
    },
}

/// Why a wrapper did not print its version.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoVersion {
    #[error("it hangs")]
    Hangs,
    #[error("{0}")]
    NotStarted(io::Error),
    #[error("{0}")]
    Failed(ExitStatus),
    #[error("it says nothing")]
    Empty,
}

/// A socket below `/run/user/UID`, which the login manager removes with the user's last session.
#[derive(Clone, Debug)]
pub(super) struct LoginSessions {
    pub(super) user: Owner,
    /// Whether the user lingers: the directory then stays without a session.
    pub(super) lingers: bool,
}

/// The daemon's socket in the file system.
#[derive(Clone, Debug)]
pub(super) struct SocketFacts {
    pub(super) path: PathBuf,
    pub(super) state: SocketState,
}

#[derive(Clone, Debug)]
pub(super) enum SocketState {
    Missing,
    /// The socket's directory may not be searched.
    Hidden,
    /// The path leads to a file that is not a socket.
    OtherFile,
    There {
        owner: Owner,
        group: Owner,
        mode: u32,
        /// Whether this user may connect.
        may_open: bool,
        /// Whether any user could replace the socket: its directory is writable for all users and not sticky.
        replaceable: bool,
    },
    Unreadable(Errno),
}

/// A user or a group.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) id: u32,
    pub(super) name: Option<String>,
}

/// The daemon's answers and its process.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub(super) status: Box<Status>,
    /// The text of `/readyz` when the daemon is not ready.
    pub(super) not_ready: Option<String>,
    /// What is at the path of the authority's unix socket, if the daemon asks there.
    pub(super) authority_socket: Option<SocketFacts>,
    pub(super) listener: Option<Listener>,
}

/// The process behind the socket, as the kernel reports it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listener {
    /// `None` when the process is in a PID namespace that ours does not contain.
    pub(super) pid: Option<i32>,
    pub(super) uid: u32,
    /// Whether a wrapper would accept its answers: it runs as root, as this user, or as the owner of the socket's
    /// directory.
    pub(super) trusted: bool,
    pub(super) powers: Powers,
}

/// The capabilities that matter for enforcement.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Powers {
    /// `CAP_KILL`: the daemon may signal every user's processes.
    pub(super) kill: bool,
    /// `CAP_DAC_OVERRIDE`: the daemon may write to every control group.
    pub(super) write: bool,
}

/// The kernel's features; each was tested.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) pidfd: Result<(), Errno>,
    pub(super) peer_pidfd: bool,
    pub(super) clone3: Result<(), ForkError>,
}

/// This program's view of `/proc`.
#[derive(Clone, Debug)]
pub(super) struct ProcView {
    pub(super) usable: Result<(), String>,
    /// The `hidepid` option, if it hides anything.
    pub(super) hides: Option<String>,
}

/// Control groups.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    pub(super) mount: CgroupMount,
    /// The result of making a leaf below our own group, as the wrapper would.
    pub(super) leaf: Result<LeafTrial, NoCgroup>,
    /// If this user may not make a leaf: the first group, from our own one upwards, that this user may write to.
    pub(super) own_above: Option<PathBuf>,
    /// The owner of our own group, if no leaf could be made there.
    pub(super) owner: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CgroupMount {
    None,
    /// Version 2 only.
    Unified(PathBuf),
    /// Version 2 beside version 1, which has the controllers.
    Hybrid(PathBuf),
}

/// A leaf that was made, tested and removed.
#[derive(Clone, Debug)]
pub(super) struct LeafTrial {
    pub(super) below: PathBuf,
    pub(super) holds_against: HoldsAgainst,
    /// Whether a process could be made in it.
    pub(super) entered: Result<(), LeafFault>,
    /// Whether `cgroup.kill` ended that process.
    pub(super) killed: Result<(), LeafFault>,
    pub(super) can_freeze: bool,
    pub(super) removed: Result<(), Errno>,
}

/// Why a test of a leaf failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LeafFault {
    #[error("{0}")]
    Kernel(Errno),
    #[error("{0}")]
    Fork(ForkError),
    #[error("the process in it was not killed")]
    NotKilled,
}

/// Why a probe of a PID namespace failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PidnsFault {
    #[error("{0}")]
    Kernel(Errno),
    #[error("{0}")]
    Fork(ForkError),
    /// The reason reported by the first process of the namespace.
    #[error("{0}")]
    Reported(String),
    #[error("its first process ended without a report")]
    NoReport,
}

/// Why no PID namespace is available, and the host's settings about it.
#[derive(Clone, Debug)]
pub(super) struct NoPidns {
    pub(super) step: PidnsStep,
    pub(super) why: PidnsFault,
    /// `user.max_user_namespaces`.
    pub(super) most_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, which Debian's kernels have.
    pub(super) unprivileged_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, which Ubuntu's kernels have.
    pub(super) apparmor_restricts: Option<u64>,
}

/// The step at which the probe of a PID namespace failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PidnsStep {
    Make,
    MapIds,
    MountProc,
}

/// A service that would start something for this user outside the tree that asked for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EscapeRoute {
    pub(super) kind: RouteKind,
    /// A path, or another name of the service.
    pub(super) place: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RouteKind {
    /// Docker, containerd, podman and their kin: their sockets can be opened.
    Containers,
    /// The system's systemd, by its private socket.
    SystemManager,
    /// The system bus, on which polkit decides what systemd does for which user.
    SystemBus,
    /// Daemons of an agent with this name, which run tools for its later starts.
    AgentDaemon(&'static str),
    /// The user's own systemd.
    UserManager,
    Cron,
    At,
    Tmux,
    Screen,
    /// Another terminal multiplexer.
    Multiplexer,
    /// An ssh server that takes this user's keys.
    Ssh,
}

/// An agent that is installed, or whose settings name our hook.
#[derive(Clone, Debug)]
pub(super) struct HookFacts {
    pub(super) agent: Agent,
    /// Its own version, where that matters and it tells.
    pub(super) version: Option<(u32, u32, u32)>,
    /// The settings that could name the hook and exist.
    pub(super) places: Vec<HookPlace>,
}

/// One file of an agent's settings.
#[derive(Clone, Debug)]
pub(super) struct HookPlace {
    pub(super) path: PathBuf,
    pub(super) scope: Scope,
    /// How the hook stands there, or why the file cannot be read.
    pub(super) state: Result<Found, String>,
    /// A setting with which hooks are off.
    pub(super) off: Option<String>,
    /// What happened when the hook was run; `None` where it is not named.
    pub(super) trial: Option<HookTrial>,
}

/// The hook, run twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HookTrial {
    pub(super) with_daemon: HookAnswer,
    /// With a socket that does not exist.
    pub(super) without: HookAnswer,
    /// What could not be tried.
    pub(super) untried: Option<&'static str>,
}

/// What an agent would have made of the hook's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HookAnswer {
    Yes,
    No(String),
    /// Neither: most agents would let the call through.
    Broken(String),
}
