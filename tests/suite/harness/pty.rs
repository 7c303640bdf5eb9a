//! Both ends of a new terminal.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

/// The end that a person types at and reads, and the end that belongs to a command.
///
/// Not by `openpty`: its descriptors are inherited by what other tests start in the same moment.
pub(crate) fn open() -> (File, OwnedFd) {
    let line = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&line).unwrap();
    unlockpt(&line).unwrap();
    let other = File::options().read(true).write(true).open(ptsname_r(&line).unwrap()).unwrap();
    (OwnedFd::from(line).into(), other.into())
}
