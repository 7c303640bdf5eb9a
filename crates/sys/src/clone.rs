//! Creating a process directly in a control group or in new namespaces.

#![expect(unsafe_code, reason = "clone3, for which no library has a form that returns twice")]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::process::{Fork, ForkError, last_errno};
use super::threads::is_single_threaded;

/// libc's constant of this name has too narrow a type for this value.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The new namespaces of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// A PID namespace: the process is the first one in it, and all others in it end with it.
    pub pid: bool,
    /// A mount namespace, which a `/proc` of the new PID namespace needs.
    pub mount: bool,
    /// A user namespace, which permits an ordinary user to make the other two. Its ids must still be mapped; see
    /// [`super::map_own_ids`].
    pub user: bool,
}

/// Where a forked process begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForkOptions<'a> {
    /// The directory of the control group it begins in; `None` means its parent's. Unlike a later move, which waits up
    /// to 12 ms for every processor, this costs nothing.
    pub into_cgroup: Option<BorrowedFd<'a>>,
    /// The namespaces it begins in.
    pub namespaces: Namespaces,
}

/// Forks as [`super::fork`] does, into a control group or namespaces.
///
/// Fails when other threads run, and with [`ForkError::Kernel`]: ENOSYS where a container's seccomp filter hides the
/// call, EPERM where namespaces are not allowed, EACCES, EBUSY, EOPNOTSUPP or ENODEV where the control group cannot be
/// entered, ENOSPC or EUSERS at a limit of namespaces. No process has then been made, and [`super::fork`] can be tried.
///
/// Handlers that are registered with the C library for a fork do not run. With glibc the child takes its parent's
/// *thread* id for its own until it forks itself: `raise` and `abort` would signal the wrong thread. Use
/// [`super::die_by`].
pub fn fork_with(options: ForkOptions<'_>) -> Result<Fork, ForkError> {
    if !is_single_threaded().ok_or(ForkError::NoProc)? {
        return Err(ForkError::Threads);
    }
    let Namespaces { pid, mount, user } = options.namespaces;
    let mut flags = 0;
    for (wanted, flag) in [(pid, libc::CLONE_NEWPID), (mount, libc::CLONE_NEWNS), (user, libc::CLONE_NEWUSER)] {
        if wanted {
            flags |= u64::from(flag.unsigned_abs());
        }
    }
    let mut cgroup = 0;
    if let Some(directory) = options.into_cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = u64::try_from(directory.as_raw_fd()).map_err(|_| ForkError::Kernel(Errno::BADF))?;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: `arguments` is a live local of the size given, and names no memory: the child goes on with a copy of
    // everything on a copy of this stack, as after `fork`. There is one thread only, as was just checked, so no lock can be
    // held by a thread that the child lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(ForkError::Kernel(last_errno())),
        0 => Ok(Fork::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.map(Fork::Parent).ok_or(ForkError::Kernel(Errno::INVAL))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_while_other_threads_run() {
        std::thread::scope(|scope| {
            let (end, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert_eq!(fork_with(ForkOptions::default()), Err(ForkError::Threads));
            drop(end);
        });
    }
}
