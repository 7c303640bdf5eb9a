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

/// The numbers that the kernel keeps free when it begins anew, and some more.
const LOWEST_NUMBER: u32 = 1_000;
/// What is taken for the highest process number when the kernel does not say: its default.
const USUAL_HIGHEST: u32 = 32_768;

/// Lets the numbers of the namespace's next processes begin at random. From 2 on, as they would, the processes of two
/// runs have the same ones, and programs name files and sockets in a shared `/tmp` by them.
///
/// `clone3` with `set_tid` was rejected: it needs the same right and gives one process its number, not those after it.
pub(super) fn scatter_process_numbers() -> Result<(), Errno> {
    let highest = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok();
    let highest = highest.and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL_HIGHEST);
    let mut bytes = [0; 4];
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())? < bytes.len() {
        return Err(Errno::AGAIN);
    }
    let last = last_number(u32::from_ne_bytes(bytes), highest);
    // The file concerns the namespace of the process that writes it.
    std::fs::write("/proc/sys/kernel/ns_last_pid", last.to_string())
        .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// The number that was given last, as the kernel is told. The upper eighth is left out, so that most runs do not reach
/// the end and begin anew at 300.
fn last_number(random: u32, highest: u32) -> u32 {
    let span = (highest - highest / 8).saturating_sub(LOWEST_NUMBER).max(1);
    LOWEST_NUMBER.min(highest / 2) + random % span
}

/// Why the numbers begin at 2, and what would help.
pub(crate) fn explain_numbers(errno: Errno) -> String {
    let remedy = match errno {
        Errno::PERM | Errno::ACCESS => "this needs CAP_CHECKPOINT_RESTORE in the namespace (AppArmor, SELinux)",
        Errno::NOENT => "this needs a kernel with CONFIG_CHECKPOINT_RESTORE",
        Errno::ROFS => "this needs a writable /proc/sys",
        _ => "see the error",
    };
    format!(
        "process numbers in the agent's PID namespace begin at 2 ({errno}; {remedy}); programs of two runs that name files \
         in a shared /tmp by their number may collide"
    )
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
        (
            GuardianStep::Tie
            | GuardianStep::Fork
            | GuardianStep::Isolate
            | GuardianStep::IsolateUser
            | GuardianStep::Cover
            | GuardianStep::Restore
            | GuardianStep::Prepare,
            _,
        ) => ("it cannot be tied to the wrapper", "try again"),
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
    if matches!(errno, Errno::PERM | Errno::ACCESS) && restricted_by_apparmor(RESTRICTION) {
        return restricted(what, errno);
    }
    format!("containment pidns is not available: {what} ({errno}); {remedy}, or ask for another containment")
}

/// Says whether `AppArmor` takes the rights in a new user namespace from programs without a profile that permits it.
const RESTRICTION: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

fn restricted_by_apparmor(file: &str) -> bool {
    !rustix::process::geteuid().is_root() && std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

fn restricted(what: &str, errno: Errno) -> String {
    format!(
        "containment pidns is not available: {what} ({errno}), since AppArmor restricts user namespaces on this host \
         (kernel.apparmor_restrict_unprivileged_userns = 1); load the profile that permits them to machineid-run: sudo cp \
         /usr/share/machineid-sidecar/apparmor/machineid-run /etc/apparmor.d/ && sudo apparmor_parser -r \
         /etc/apparmor.d/machineid-run; or ask for another containment"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restriction_of_apparmor_is_told_with_the_profile() {
        assert!(restricted("no /proc can be mounted in it", Errno::ACCESS).contains("apparmor_parser -r"));
        assert!(!restricted_by_apparmor("/nonexistent"));
    }

    #[test]
    fn numbers_begin_between_those_of_the_kernel_and_the_end() {
        for highest in [301, 1_500, 32_768, 4_194_304] {
            for random in [0, 1, 30_000, u32::MAX] {
                let last = last_number(random, highest);
                assert!(last >= LOWEST_NUMBER.min(highest / 2) && last < highest, "{random} {highest}: {last}");
            }
        }
        assert_ne!(last_number(1, 32_768), last_number(2, 32_768));
    }
}
