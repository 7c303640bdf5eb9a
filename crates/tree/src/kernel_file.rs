//! Files of `/proc` and of control groups: opening, reading and writing them.
//!
//! The calls are nix's; their errors are passed on as rustix's, like all errors of this crate.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use machineid_sys::from_nix;
use nix::NixPath;
use nix::errno::Errno as NixErrno;
use nix::fcntl::{self, OFlag};
use nix::sys::{stat::Mode, uio};
use nix::unistd;
use rustix::io::Errno;

/// Opens a file for reading.
pub(super) fn open<P: ?Sized + NixPath>(path: &P) -> Result<OwnedFd, Errno> {
    open_at(fcntl::AT_FDCWD, path, OFlag::O_RDONLY)
}

/// Opens a directory for reading.
pub(super) fn open_directory<P: ?Sized + NixPath>(path: &P) -> Result<OwnedFd, Errno> {
    open_at(fcntl::AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// Opens a file below a directory, closed on exec.
pub(super) fn open_at<P: ?Sized + NixPath>(at: impl AsFd, name: &P, flags: OFlag) -> Result<OwnedFd, Errno> {
    loop {
        match fcntl::openat(&at, name, flags | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(NixErrno::EINTR) => {}
            opened => return opened.map_err(from_nix),
        }
    }
}

/// Reads from the descriptor's offset; 0 at the end.
pub(super) fn read_on(file: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match unistd::read(&file, buffer) {
            Err(NixErrno::EINTR) => {}
            read => return read.map_err(from_nix),
        }
    }
}

/// Writes a text, which the kernel takes as a whole.
pub(super) fn write(file: impl AsFd, text: &[u8]) -> Result<(), Errno> {
    unistd::write(file, text).map(drop).map_err(from_nix)
}

/// Reads the file at this path to its end.
///
/// `std::fs::read` asks for the size first, is told 0 and begins with 32 bytes: twelve calls instead of four, and the
/// kernel makes the text again for many of them. The start of an agent reads five such files.
pub(super) fn read(path: &str) -> Result<Vec<u8>, Errno> {
    read_from_start(open(path)?.as_fd())
}

/// Reads the file from its beginning without moving the descriptor's offset, so that several threads may read it at a
/// time.
pub(super) fn read_from_start(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match uio::pread(file, &mut buffer, i64::try_from(text.len()).unwrap_or(i64::MAX)) {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(NixErrno::EINTR) => {}
            Err(errno) => return Err(from_nix(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_is_read_to_its_end_however_long_it_is() {
        let long = super::read("/proc/self/smaps").unwrap();
        assert!(long.len() > 4096 && long.ends_with(b"\n"), "{} bytes", long.len());
        assert!(long.split(|&byte| byte == b'\n').any(|line| line.ends_with(b"[stack]")));
        assert_eq!(super::read("/proc/self/nothing"), Err(rustix::io::Errno::NOENT));
    }
}
