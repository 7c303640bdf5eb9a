//! A mount namespace of the leader's own, in which the places of an [`Isolation`] are empty.
//!
//! The leader enters it by itself, so that wrapper and guardian keep theirs. For an ordinary user a user namespace comes with
//! it, in which the user is the same; executing the command takes the rights away that it gave. Sockets with an abstract name
//! belong to the network namespace and stay reachable.

use std::fs::DirBuilder;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use machineid_sys as sys;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};
use rustix::io::Errno;

use super::super::isolation::{Covered, Isolation};
use super::message::GuardianStep;

/// An unused argument of `mount`.
const NOTHING: Option<&str> = None;

type IsolationFailure = (GuardianStep, Errno);

/// Hides what `isolation` names from this process and those that it starts. To be called by the leader, before `exec`.
pub(super) fn enter(isolation: &Isolation) -> Result<(), IsolationFailure> {
    let parent = rustix::process::getppid();
    own_mounts()?;
    // By descriptor, since the path leads into the cover afterwards.
    let kept: Vec<(&Path, OwnedFd)> = isolation
        .kept
        .iter()
        .filter_map(|path| Some((path.as_path(), open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?)))
        .collect();
    for covered in &isolation.covered {
        match cover(covered) {
            // A service that ended meanwhile took its socket away.
            Err(Errno::NOENT) if matches!(covered, Covered::Socket(_)) => {}
            Err(errno) => return Err((GuardianStep::Cover, errno)),
            Ok(()) => {}
        }
    }
    for (path, place) in kept {
        restore(path, &place).map_err(|errno| (GuardianStep::Restore, errno))?;
    }
    // Entering a user namespace is a change of rights, which may clear it; the parent may have died meanwhile.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| (GuardianStep::Isolate, sys::from_nix(errno)))?;
    if rustix::process::getppid() == parent { Ok(()) } else { Err((GuardianStep::Isolate, Errno::SRCH)) }
}

fn own_mounts() -> Result<(), IsolationFailure> {
    match unshare(CloneFlags::CLONE_NEWNS).map_err(sys::from_nix) {
        Ok(()) => {}
        Err(Errno::PERM) => {
            let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
                .map_err(|errno| (GuardianStep::Isolate, sys::from_nix(errno)))?;
            let failed = |errno| (GuardianStep::IsolateUser, errno);
            // Only root may write the files that map the ids of a process that is not dumpable, as the wrapper has made
            // itself.
            prctl::set_dumpable(true).map_err(sys::from_nix).map_err(failed)?;
            sys::map_own_ids(uid, gid).map_err(failed)?;
            prctl::set_dumpable(false).map_err(sys::from_nix).map_err(failed)?;
        }
        Err(errno) => return Err((GuardianStep::Isolate, errno)),
    }
    // The host's mounts still arrive here, as an automounter needs, and those made here do not leave.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_SLAVE | MsFlags::MS_REC, NOTHING)
        .map_err(|errno| (GuardianStep::Cover, sys::from_nix(errno)))
}

fn cover(covered: &Covered) -> Result<(), Errno> {
    match covered {
        Covered::Directory { path, mode } => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(format!("mode={mode:o}").as_str()))
        }
        // A connection to what is no socket is refused.
        Covered::Socket(path) => mount(Some("/dev/null"), path, NOTHING, MsFlags::MS_BIND, NOTHING),
    }
    .map_err(sys::from_nix)
}

fn restore(path: &Path, place: &OwnedFd) -> Result<(), Errno> {
    let source = format!("/proc/self/fd/{}", place.as_raw_fd());
    let is_directory = std::fs::metadata(&source).is_ok_and(|found| found.is_dir());
    let made = |directory: &Path| DirBuilder::new().mode(0o700).recursive(true).create(directory);
    let target = if is_directory {
        made(path)
    } else {
        path.parent().map_or(Ok(()), made).and_then(|()| std::fs::File::create(path).map(drop))
    };
    target.map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
    mount(Some(source.as_str()), path, NOTHING, MsFlags::MS_BIND, NOTHING).map_err(sys::from_nix)
}

/// Why the command could not be isolated, and what would help.
pub(super) fn explain(step: GuardianStep, errno: Errno) -> String {
    const ALLOW: &str = "allow it user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
                         kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile, a container's seccomp profile)";
    let (what, remedy) = match (step, errno) {
        (GuardianStep::Isolate, Errno::PERM) => ("this user may make no namespaces", ALLOW),
        (GuardianStep::Isolate, Errno::NOSPC | Errno::USERS) => {
            ("a limit of namespaces is reached", "raise it (sysctl user.max_user_namespaces, user.max_mnt_namespaces)")
        }
        (GuardianStep::Isolate, _) => {
            ("this kernel has no such namespaces", "use one with CONFIG_USER_NS, or start it as root")
        }
        (GuardianStep::IsolateUser, Errno::PERM | Errno::ACCESS) => {
            ("its user cannot be mapped into a namespace", ALLOW)
        }
        (GuardianStep::IsolateUser, _) => ("its user cannot be mapped into a namespace", "mount /proc, writable"),
        (GuardianStep::Restore, _) => ("the daemon's socket cannot be shown in it", "put it outside XDG_RUNTIME_DIR"),
        (
            GuardianStep::Cover
            | GuardianStep::MapUser
            | GuardianStep::MountProc
            | GuardianStep::Tie
            | GuardianStep::Fork
            | GuardianStep::Prepare,
            _,
        ) => ("nothing can be mounted in its namespace", "let this user mount there (AppArmor, SELinux)"),
    };
    format!("--isolate is not available: {what} ({errno}); {remedy}, or end what it would hide and leave it out")
}
