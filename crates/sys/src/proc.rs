//! Whether `/proc` shows this process's PID namespace.

use std::fmt;

use rustix::io::Errno;

use super::process::from_nix;

/// Why the numbers in `/proc` cannot be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcError {
    /// No process file system is mounted at `/proc`.
    Missing,
    /// `/proc` belongs to another PID namespace.
    OtherNamespace,
    /// `/proc` cannot be read.
    Unreadable(Errno),
}

impl fmt::Display for ProcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "/proc is not mounted here; mount it (mount -t proc proc /proc; chroot: mount --bind /proc ROOT/proc; bwrap: \
                 --proc /proc)",
            ),
            Self::OtherNamespace => f.write_str(
                "/proc shows another PID namespace than this process is in; mount it there (unshare --mount-proc; bwrap: \
                 --proc /proc)",
            ),
            Self::Unreadable(errno) => write!(f, "/proc cannot be read: {}", super::shortage::in_words(*errno)),
        }
    }
}

impl std::error::Error for ProcError {}

/// Checks that `/proc` was mounted in this process's PID namespace. In the `/proc` of another namespace the same number names
/// another process: a tree would not be found, or processes of another tree would be taken for it.
pub fn check_proc() -> Result<(), ProcError> {
    let own = nix::unistd::getpid().to_string();
    match nix::fcntl::readlink("/proc/self") {
        Ok(number) if number == own.as_str() => Ok(()),
        Ok(_) => Err(ProcError::OtherNamespace),
        Err(nix::errno::Errno::ENOENT) => match nix::sys::statfs::statfs("/proc") {
            Ok(found) if found.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC => {
                Err(ProcError::OtherNamespace)
            }
            Ok(_) | Err(_) => Err(ProcError::Missing),
        },
        Err(errno) => Err(ProcError::Unreadable(from_nix(errno))),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_proc_of_a_test_is_its_own() {
        assert_eq!(super::check_proc(), Ok(()));
    }
}
