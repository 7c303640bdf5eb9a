//! A PID namespace for the agent, and what its first process needs in it.
//!
//! A mount namespace comes with it, for a `/proc` that shows the right processes; and for an ordinary user a user
//! namespace, which permits the other two. The user is the same inside and outside.

use std::os::fd::{AsFd, OwnedFd};

use machineid_sys::{self as sys, Fork, ForkError, ForkOptions, Namespaces};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use rustix::io::Errno;

use super::message::GuardianStep;

/// The user that makes the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamespaceUser {
    /// A user that may make namespaces.
    Privileged,
    /// A user that may make them only in a user namespace, where these two ids are mapped to themselves.
    Mapped { uid: u32, gid: u32 },
}

/// Forks the first process of a PID namespace.
pub(super) fn fork(user: NamespaceUser) -> Result<Fork, ForkError> {
    let namespaces = Namespaces { pid: true, mount: true, user: matches!(user, NamespaceUser::Mapped { .. }) };
    sys::fork_with(ForkOptions { into_cgroup: None, namespaces })
}

/// Prepares the namespace for the agent. To be called by its first process.
pub(super) fn furnish(user: NamespaceUser, control: &OwnedFd) -> Result<(), (GuardianStep, Errno)> {
    match user {
        NamespaceUser::Privileged => {}
        NamespaceUser::Mapped { uid, gid } => {
            // Only root may write the files that map the ids of a process that is not dumpable, as the wrapper has made
            // itself.
            prctl::set_dumpable(true).map_err(|errno| (GuardianStep::MapUser, sys::from_nix(errno)))?;
            sys::map_own_ids(uid, gid).map_err(|errno| (GuardianStep::MapUser, errno))?;
            prctl::set_dumpable(false).map_err(|errno| (GuardianStep::MapUser, sys::from_nix(errno)))?;
        }
    }
    sys::mount_own_proc().map_err(|errno| (GuardianStep::MountProc, errno))?;
    tie(control).map_err(|errno| (GuardianStep::Tie, errno))
}

/// Ends this process together with the wrapper.
fn tie(control: &OwnedFd) -> Result<(), Errno> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(sys::from_nix)?;
    // The wrapper may have ended before that took effect. Its pid cannot be seen in here, but only the wrapper holds
    // the other end of the socket.
    let mut fds = [PollFd::new(control.as_fd(), PollFlags::empty())];
    let ready = poll(&mut fds, PollTimeout::ZERO).map_err(sys::from_nix)?;
    let hung_up = ready > 0 && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
    if hung_up { Err(Errno::PIPE) } else { Ok(()) }
}

/// Why a namespace could not be prepared, and what would help.
pub(super) fn explain(step: GuardianStep, errno: Errno) -> String {
    let (what, remedy) = match (step, errno) {
        (GuardianStep::MapUser, Errno::PERM) => (
            "its user cannot be mapped into it",
            "let this user make user namespaces (an AppArmor profile, or sysctl kernel.apparmor_restrict_unprivileged_userns=0)",
        ),
        (GuardianStep::MapUser, _) => ("its user cannot be mapped into it", "mount /proc, writable"),
        (GuardianStep::MountProc, Errno::PERM) => (
            "no /proc can be mounted in it, as in a container that hides parts of its own",
            "let the container show the whole of /proc (docker run --security-opt systempaths=unconfined)",
        ),
        (GuardianStep::MountProc, Errno::ACCESS) => {
            ("no /proc can be mounted in it", "let this user mount in a user namespace (AppArmor, SELinux)")
        }
        (GuardianStep::MountProc, _) => ("no /proc can be mounted in it", "see that /proc is a directory"),
        (GuardianStep::Tie | GuardianStep::Fork | GuardianStep::Prepare, _) => {
            ("it cannot be tied to the wrapper", "try again")
        }
    };
    unavailable(what, errno, remedy)
}

/// Why no namespace could be made, and what would help.
pub(super) fn explain_fork(errno: Errno) -> String {
    let (what, remedy) = match errno {
        Errno::PERM => (
            "this user may make no namespaces",
            "allow it user namespaces (a container's seccomp profile, sysctl kernel.unprivileged_userns_clone, AppArmor)",
        ),
        Errno::NOSPC | Errno::USERS => (
            "a limit of namespaces is reached",
            "raise it (sysctl user.max_user_namespaces, user.max_pid_namespaces, user.max_mnt_namespaces)",
        ),
        Errno::NOSYS => ("clone3 is not available", "let the sandbox (a container's seccomp profile) allow it"),
        Errno::INVAL => ("this kernel has no such namespaces", "use one with CONFIG_PID_NS and CONFIG_USER_NS"),
        _ => ("no process can be made in a namespace", "see the error"),
    };
    unavailable(what, errno, remedy)
}

fn unavailable(what: &str, errno: Errno, remedy: &str) -> String {
    format!("containment pidns is not available: {what} ({errno}); {remedy}, or ask for another containment")
}
