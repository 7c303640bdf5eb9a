//! Creating a process, executing another program, and ending at once.

#![expect(unsafe_code, reason = "fork, which no library can make safe, and _exit, which none offers")]

use std::ffi::{CStr, CString};
use std::fmt;

use nix::unistd::ForkResult;
use rustix::io::Errno;
use rustix::process::Pid;

use super::threads::is_single_threaded;

/// The two returns of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the old process, with the number of the new one.
    Parent(Pid),
}

/// Why no process could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkError {
    /// Another thread runs: in the child its locks would stay locked for ever.
    Threads,
    /// `/proc` is not readable.
    NoProc,
    /// The kernel refused: too many processes, or no memory.
    Kernel(Errno),
}

impl fmt::Display for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads => f.write_str("cannot fork while other threads run"),
            Self::NoProc => f.write_str("/proc is not readable; mount it"),
            Self::Kernel(errno) => write!(f, "cannot make a process: {}", super::shortage::fork_in_words(*errno)),
        }
    }
}

impl std::error::Error for ForkError {}

/// Forks. Fails when other threads run, so that the child may do everything that the parent could do.
pub fn fork() -> Result<Fork, ForkError> {
    if !is_single_threaded().ok_or(ForkError::NoProc)? {
        return Err(ForkError::Threads);
    }
    // SAFETY: there is one thread only, as was just checked, so no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() } {
        Err(errno) => Err(ForkError::Kernel(from_nix(errno))),
        Ok(ForkResult::Child) => Ok(Fork::Child),
        Ok(ForkResult::Parent { child }) => {
            Pid::from_raw(child.as_raw()).map(Fork::Parent).ok_or(ForkError::Kernel(Errno::INVAL))
        }
    }
}

/// Executes the program at `path`. Returns only on failure, with the error.
///
/// `execve` itself rather than `execvp`: what the C libraries add differs (glibc passes a file without an interpreter
/// line to the shell, musl does not).
#[must_use]
pub fn exec(path: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let Err(errno) = nix::unistd::execve(path, arguments, environment);
    from_nix(errno)
}

/// This process's group; 0 when its leader is outside the PID namespace, as for a namespace's first process. (rustix's
/// call panics there.)
#[must_use]
pub fn own_group() -> i32 {
    nix::unistd::getpgrp().as_raw()
}

/// Ends this process at once, without running exit handlers: in a forked child these are the parent's.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Turns an error of nix into one of rustix, which the workspace uses.
///
/// nix has no name for some numbers that kernels return, such as 524, and reads them as 0. They become EIO here: rustix
/// has no error 0, and panics.
#[must_use]
pub fn from_nix(errno: nix::errno::Errno) -> Errno {
    match errno as i32 {
        0 => Errno::IO,
        number => Errno::from_raw_os_error(number),
    }
}

pub(super) fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_nix_has_no_name_for_is_an_error_all_the_same() {
        assert_eq!(from_nix(nix::errno::Errno::from_raw(524)), Errno::IO);
        assert_eq!(from_nix(nix::errno::Errno::ENOENT), Errno::NOENT);
    }
}
