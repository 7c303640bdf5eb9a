//! What was found on this host. Plain data: nothing here says whether it is good.

use std::path::PathBuf;

use jiff::Timestamp;
use machineid_protocol::HoldsAgainst;
use machineid_protocol::status::Status;
use machineid_sys::ForkError;
use machineid_tree::NoCgroup;
use rustix::io::Errno;

/// Everything the checks decide by.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) now: Timestamp,
    pub(super) user: User,
    pub(super) wrapper: Wrapper,
    pub(super) socket: Socket,
    /// Whose login sessions the socket's directory depends on, where it depends on any.
    pub(super) sessions: Option<Sessions>,
    /// What the daemon said, or why it said nothing, in a sentence for the operator.
    pub(super) daemon: Result<Daemon, String>,
    pub(super) kernel: Kernel,
    pub(super) proc: Proc,
    pub(super) cgroup: Cgroup,
    pub(super) pidns: Result<(), NoPidns>,
    pub(super) routes: Vec<Route>,
}

/// The user this was asked as, and so the one whose agents it is about.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) name: Option<String>,
}

/// The wrapper that `machineid drill` and operators start.
#[derive(Clone, Debug)]
pub(super) enum Wrapper {
    /// It is neither beside this program nor on the search path.
    Missing,
    Found {
        path: PathBuf,
        /// As it says itself, or why it did not.
        version: Result<String, String>,
    },
}

/// A socket below `/run/user/UID`, which the login manager removes with the user's last session.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    pub(super) user: Owner,
    /// Whether the user lingers: the directory then stays without a session.
    pub(super) lingers: bool,
}

/// The daemon's socket in the file system.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) path: PathBuf,
    pub(super) state: SocketState,
}

#[derive(Clone, Debug)]
pub(super) enum SocketState {
    Missing,
    /// Its directory may not be searched.
    Hidden,
    /// Something else has its name.
    OtherFile,
    There {
        owner: Owner,
        group: Owner,
        mode: u32,
        /// Whether this user may connect.
        may_open: bool,
        /// Whether everybody could replace it: its directory is writable for them and not sticky.
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

/// What the daemon said and who it is.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub(super) status: Box<Status>,
    /// `/readyz`: its words when it is not ready.
    pub(super) not_ready: Option<String>,
    pub(super) listener: Option<Listener>,
}

/// The process behind the socket, as the kernel reports it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listener {
    /// `None` when it is in a PID namespace that ours does not contain.
    pub(super) pid: Option<i32>,
    pub(super) uid: u32,
    /// Whether a wrapper would take its answers: it is root, this user, or the owner of the socket's directory.
    pub(super) trusted: bool,
    pub(super) powers: Powers,
}

/// The capabilities that make a difference to enforcement.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Powers {
    /// `CAP_KILL`: it may signal every user's processes.
    pub(super) kill: bool,
    /// `CAP_DAC_OVERRIDE`: it may write every control group.
    pub(super) write: bool,
}

/// What the kernel offers; each was tried.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) pidfd: Result<(), Errno>,
    pub(super) peer_pidfd: bool,
    pub(super) clone3: Result<(), ForkError>,
}

/// This program's view of `/proc`.
#[derive(Clone, Debug)]
pub(super) struct Proc {
    pub(super) usable: Result<(), String>,
    /// Its `hidepid` option, when it hides anything.
    pub(super) hides: Option<String>,
}

/// Control groups.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    pub(super) mount: CgroupMount,
    /// What came of making a leaf below the own group, as the wrapper would.
    pub(super) leaf: Result<Leaf, NoCgroup>,
    /// For a leaf that this user may not make: the first group from the own one upwards that this user may write to.
    pub(super) own_above: Option<PathBuf>,
    /// The owner of the own group, when that is where no leaf could be made.
    pub(super) owner: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CgroupMount {
    None,
    /// Version 2 alone.
    Unified(PathBuf),
    /// Version 2 beside version 1, which has the controllers.
    Hybrid(PathBuf),
}

/// A leaf that was made, tried and removed.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) below: PathBuf,
    pub(super) holds_against: HoldsAgainst,
    /// Whether a process could be made in it.
    pub(super) entered: Result<(), String>,
    /// Whether `cgroup.kill` ended that process.
    pub(super) killed: Result<(), String>,
    pub(super) can_freeze: bool,
    pub(super) removed: Result<(), Errno>,
}

/// Why no PID namespace is available, and what the host's settings say about it.
#[derive(Clone, Debug)]
pub(super) struct NoPidns {
    pub(super) step: PidnsStep,
    pub(super) why: String,
    /// `user.max_user_namespaces`.
    pub(super) most_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, which Debian's kernels have.
    pub(super) unprivileged_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, which Ubuntu's kernels have.
    pub(super) apparmor_restricts: Option<u64>,
}

/// How far the probe of a PID namespace came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PidnsStep {
    Make,
    MapIds,
    MountProc,
}

/// A service that would start something for this user outside the tree that asked for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) kind: RouteKind,
    /// A path, or what else names it.
    pub(super) place: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RouteKind {
    /// Docker, containerd, podman and their kin: their sockets can be opened.
    Containers,
    /// The system's systemd, by its private socket.
    SystemManager,
    /// The system bus, on which polkit decides what systemd does for whom.
    SystemBus,
    /// The user's own systemd.
    UserManager,
    Cron,
    At,
    Tmux,
    Screen,
}
