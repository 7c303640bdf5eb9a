//! Why a client cannot reach the daemon's socket although a daemon may run: the sandbox around the client, and which setting
//! of that sandbox to change.
//!
//! What is looked at cannot be forged to any use: the answer is a sentence for people, and a client that cannot reach the
//! daemon is not allowed either way.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};

/// The longest line of ancestors that is looked at.
const LONGEST: usize = 64;

/// What a process can see of its sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sandbox {
    /// The error with which the kernel refuses to make a unix socket.
    no_unix_sockets: Option<Errno>,
    /// Whether the process is inside bubblewrap, of which srt is made as well.
    in_bubblewrap: bool,
    /// Whether the socket's file can be seen from here.
    sees_socket: bool,
    /// What forbids the way to a socket that its modes, and those of its directories, permit.
    policy: Option<Policy>,
}

/// A policy of the host beside the modes of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    SeLinux,
    AppArmor,
}

/// Why this process cannot reach the daemon behind `socket`, and what to change; `None` when no sandbox is the reason. To be
/// called after an attempt that failed.
#[must_use]
pub fn why_unreachable(socket: &Path) -> Option<String> {
    explain(look(socket), socket)
}

fn look(path: &Path) -> Sandbox {
    let refused = |error: Errno| matches!(error, Errno::EPERM | Errno::EACCES | Errno::EAFNOSUPPORT);
    let one = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map(drop);
    // Some filters forbid only one of the two calls. Both are needed: by the client, and by the wrapper and its guardian.
    let two = || socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).map(drop);
    let sees_socket = path.symlink_metadata().is_ok();
    Sandbox {
        no_unix_sockets: one.and_then(|()| two()).err().filter(|error| refused(*error)),
        in_bubblewrap: !sees_socket && in_bubblewrap(),
        sees_socket,
        policy: policy(path),
    }
}

/// The policy in force, when a connection is refused that the modes permit.
fn policy(path: &Path) -> Option<Policy> {
    use std::os::unix::net::UnixStream;
    let refused = UnixStream::connect(path).is_err_and(|error| error.raw_os_error() == Some(Errno::EACCES as i32));
    if !refused || !modes_permit(path) {
        return None;
    }
    if fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "1") {
        return Some(Policy::SeLinux);
    }
    let profile = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    profile.trim_end().ends_with("(enforce)").then_some(Policy::AppArmor)
}

/// Whether this user may write to the file and search each directory above it, as far as owners and modes tell. (Access
/// control lists do not count: with one, the mode of the group is its mask.)
fn modes_permit(path: &Path) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let permits = |about: &Metadata, bit: u32| {
        let groups = nix::unistd::getgroups().unwrap_or_default();
        let in_group =
            nix::unistd::getegid().as_raw() == about.gid() || groups.iter().any(|gid| gid.as_raw() == about.gid());
        let shift = match (about.uid() == nix::unistd::geteuid().as_raw(), in_group) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        about.mode() >> shift & bit != 0
    };
    let of = |path: &Path, bit| path.metadata().is_ok_and(|about| permits(&about, bit));
    of(path, 2)
        && path
            .ancestors()
            .skip(1)
            .filter(|directory| !directory.as_os_str().is_empty())
            .all(|directory| of(directory, 1))
}

/// bubblewrap moves its new root over `/newroot`, and stays as the parent of what it starts, or as the first process of a PID
/// namespace.
fn in_bubblewrap() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut roots = mounts.lines().map(|line| line.split(' '));
    if roots.any(|mut fields| fields.nth(3) == Some("/newroot") && fields.next() == Some("/")) {
        return true;
    }
    let mut pid = nix::unistd::getpid().as_raw();
    for _ in 0..LONGEST {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        let Some((name, rest)) = stat.rsplit_once(')') else { return false };
        if name.ends_with("(bwrap") {
            return true;
        }
        match rest.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()) {
            Some(parent) if parent > 0 => pid = parent,
            Some(_) | None => return false,
        }
    }
    false
}

fn explain(sandbox: Sandbox, socket: &Path) -> Option<String> {
    let directory = socket.parent().unwrap_or(Path::new("/")).display();
    match sandbox {
        // What RestrictAddressFamilies= answers; a kernel without unix sockets runs no userland.
        Sandbox { no_unix_sockets: Some(Errno::EAFNOSUPPORT), .. } => Some(
            "this process may make no unix socket: its unit forbids the address family; add AF_UNIX to \
             RestrictAddressFamilies= of the unit"
                .to_owned(),
        ),
        Sandbox { no_unix_sockets: Some(_), .. } => Some(
            "this process may make no unix socket: a seccomp filter of its sandbox forbids it; allow unix sockets there (srt: \
             network.allowAllUnixSockets, Claude Code: sandbox.network.allowAllUnixSockets; elsewhere permit socket(AF_UNIX) \
             and socketpair in the filter)"
                .to_owned(),
        ),
        Sandbox { policy: Some(Policy::SeLinux), .. } => Some(format!(
            "SELinux forbids this process to use {}, though the file's mode permits it; sudo ausearch -m avc -ts recent names the \
             rule, and audit2allow makes a module of it (a container: mount the directory with :z, or run it with --security-opt \
             label=disable)",
            socket.display()
        )),
        Sandbox { policy: Some(Policy::AppArmor), .. } => Some(format!(
            "AppArmor forbids this process to use {}, though the file's mode permits it; permit it in the profile that \
             /proc/self/attr/current names: {} rw,",
            socket.display(),
            socket.display()
        )),
        Sandbox { sees_socket: false, in_bubblewrap: true, .. } => Some(format!(
            "{directory} with the socket is not visible in this sandbox (bubblewrap); bind it into the sandbox (bwrap: --ro-bind \
             {directory} {directory}; srt: remove it from filesystem.denyRead), or name another path with --socket"
        )),
        Sandbox { sees_socket: true, .. } | Sandbox { in_bubblewrap: false, .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sandbox_is_told_with_its_own_setting() {
        let socket = Path::new("/run/machineid/sidecar.sock");
        let told = |sandbox| explain(sandbox, socket).unwrap_or_default();
        let none = Sandbox::default();
        assert_eq!(told(none), "");
        let filter = Sandbox { no_unix_sockets: Some(Errno::EPERM), in_bubblewrap: true, ..none };
        assert!(told(filter).contains("network.allowAllUnixSockets"), "the filter goes first");
        let unit = Sandbox { no_unix_sockets: Some(Errno::EAFNOSUPPORT), ..none };
        assert!(told(unit).contains("RestrictAddressFamilies="));
        let bubblewrap = Sandbox { in_bubblewrap: true, ..none };
        assert!(told(bubblewrap).contains("--ro-bind /run/machineid /run/machineid"));
        let policy = |policy| told(Sandbox { policy: Some(policy), sees_socket: true, ..none });
        assert!(policy(Policy::SeLinux).contains("ausearch") && policy(Policy::AppArmor).contains("sidecar.sock rw,"));
        // A socket that is there and on which nothing listens is no fault of a sandbox.
        assert_eq!(told(Sandbox { sees_socket: true, ..bubblewrap }), "");
    }

    #[test]
    fn what_the_modes_permit_is_told_from_what_they_forbid() {
        use std::os::unix::fs::PermissionsExt;
        let file = std::env::temp_dir().join(format!("machineid-modes-{}", std::process::id()));
        fs::write(&file, "").unwrap();
        assert!(modes_permit(&file));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(modes_permit(&file), nix::unistd::geteuid().is_root(), "nothing forbids root");
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_test_is_in_no_sandbox_that_forbids_unix_sockets() {
        assert_eq!(look(Path::new("/nonexistent")).no_unix_sockets, None);
    }
}
