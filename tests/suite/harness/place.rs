//! Who runs a daemon and its agents, and in which control group.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// An ordinary user for tests that root runs. Not 65534, which stands for unknown users as well.
pub(crate) const ORDINARY: u32 = 54_321;
/// A second one.
pub(crate) const ANOTHER: u32 = 54_322;

/// The users that run the daemon and its agents, if not the user that runs the test.
#[derive(Default)]
pub(crate) struct Place {
    daemon: Option<u32>,
    agent: Option<u32>,
    group: Option<Delegated>,
    /// The capabilities that the daemon's user keeps, as options of `setpriv`.
    keeps: &'static [&'static str],
    programs: std::sync::OnceLock<tempfile::TempDir>,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test is skipped, past the test harness, which would swallow it.
pub(crate) fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

impl Place {
    /// Everything as the user that runs the test.
    pub(crate) fn own() -> Self {
        Self::default()
    }

    /// Daemon, wrappers and agents as one ordinary user. Takes root.
    pub(crate) fn ordinary() -> Self {
        Self { daemon: Some(ORDINARY), agent: Some(ORDINARY), ..Self::own() }
    }

    /// The same in a control group that was handed over to this user, as a login session's is.
    pub(crate) fn ordinary_delegated() -> Option<Self> {
        Some(Self { group: Some(Delegated::to(ORDINARY)?), ..Self::ordinary() })
    }

    /// The daemon as root, wrappers and agents as an ordinary user. Takes root.
    pub(crate) fn ordinary_under_root() -> Self {
        Self { agent: Some(ORDINARY), ..Self::own() }
    }

    /// The daemon as an ordinary user with `CAP_KILL` alone, wrappers and agents as another one, in a control group that root
    /// made, as the packages have it. Takes root.
    pub(crate) fn as_packaged() -> Option<Self> {
        let keeps = &["--inh-caps=-all,+kill", "--ambient-caps=-all,+kill", "--bounding-set=-all,+kill"];
        let group = Some(Delegated::to(0)?);
        Some(Self { daemon: Some(ORDINARY), agent: Some(ANOTHER), group, keeps, ..Self::own() })
    }

    /// Whether the agents' user is another than the daemon's.
    pub(crate) fn is_mixed(&self) -> bool {
        self.agent != self.daemon
    }

    /// Hands a file or directory over to the user that runs the daemon.
    pub(crate) fn give_to_daemon(&self, path: &Path) {
        if let Some(uid) = self.daemon {
            chown(path, Some(uid), Some(uid)).unwrap();
        }
    }

    /// Hands a directory over to the user that runs the agents.
    pub(crate) fn give_to_agents(&self, path: &Path) {
        if let Some(uid) = self.agent {
            chown(path, Some(uid), Some(uid)).unwrap();
        }
    }

    /// Lets everybody look into a scratch directory, when not all are the same user.
    pub(crate) fn open(&self, directory: &Path) {
        if self.agent.is_some() {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    pub(crate) fn as_daemon(&self, command: Command) -> Command {
        self.moved(command, self.daemon, self.keeps)
    }

    pub(crate) fn as_agent(&self, command: Command) -> Command {
        self.moved(command, self.agent, &[])
    }

    /// A program where the agents' user can execute it: the build's own directory need not be reachable for others.
    pub(crate) fn reachable(&self, program: impl AsRef<Path>) -> PathBuf {
        let program = program.as_ref();
        if self.agent.is_none() || is_reachable(program) {
            return program.to_owned();
        }
        let directory = self.programs.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
            directory
        });
        let copy = directory.path().join(program.file_name().unwrap());
        if !copy.exists() {
            fs::copy(program, &copy).unwrap();
        }
        copy
    }

    /// The same command as another user, in the group. The process keeps its number: each step becomes the next.
    fn moved(&self, command: Command, user: Option<u32>, keeps: &[&str]) -> Command {
        let Some(uid) = user else { return command };
        let mut moved = Command::new("sh");
        let enter = match &self.group {
            Some(group) => format!("echo $$ > '{}' && ", group.path.join("cgroup.procs").display()),
            None => String::new(),
        };
        let keeps = keeps.join(" ");
        let become_them = format!("{enter}exec setpriv --reuid {uid} --regid {uid} --clear-groups {keeps} -- \"$@\"");
        moved.arg("-c").arg(become_them).arg("sh").arg(command.get_program()).args(command.get_args());
        moved.env_clear().stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                moved.env(name, value);
            }
        }
        // The test's own search path may lead through a home directory.
        moved.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        moved
    }
}

fn is_reachable(program: &Path) -> bool {
    let mode = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    mode(program) & 0o5 == 0o5 && program.ancestors().skip(1).all(|directory| mode(directory) & 0o1 == 0o1)
}

/// A control group that an ordinary user may divide. Removed when dropped.
struct Delegated {
    path: PathBuf,
}

impl Delegated {
    /// `None` where there is no control group of version 2 that we may write to.
    fn to(uid: u32) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let path = own_cgroup()?.join(format!("test-{}-{number}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let made = Self { path };
        chown(&made.path, Some(uid), Some(uid)).unwrap();
        for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(made.path.join(file), Some(uid), Some(uid)).unwrap();
        }
        Some(made)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = remove_cgroup(&self.path);
    }
}

/// Removes a control group with those below it. Fails while a process is in one of them.
pub(crate) fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for below in fs::read_dir(path)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&below.path())?;
    }
    fs::remove_dir(path)
}

/// The directory of the version 2 control group this process is in.
pub(crate) fn own_cgroup() -> Option<PathBuf> {
    cgroup_of("self")
}

/// The same of any process. `None` without version 2, or when it has ended.
pub(crate) fn cgroup_of(pid: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let place = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let within = place.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new(mount.split(' ').nth(4)?).join(within.trim_start_matches('/')))
}

/// Whether this user may make a control group below its own.
pub(crate) fn can_make_cgroups() -> bool {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Some(own) = own_cgroup() else { return false };
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let path = own.join(format!("probe-{}-{number}", std::process::id()));
    fs::create_dir(&path).is_ok() && fs::remove_dir(&path).is_ok()
}

/// Whether this user, or the ordinary one, may make a PID namespace.
pub(crate) fn can_make_pid_namespaces(place: &Place) -> bool {
    let mut probe = Command::new("unshare");
    if place.agent.is_some() || !is_root() {
        probe.args(["--user", "--map-root-user"]);
    }
    probe.args(["--pid", "--fork", "--mount-proc", "true"]).env("PATH", "/usr/bin:/bin").stderr(Stdio::null());
    place.as_agent(probe).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
