//! Closing what a forked process has no use for.

#![expect(unsafe_code, reason = "neither nix nor rustix has close_range")]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::process::last_errno;

/// In a forked child that goes on without its parent's things: closes every descriptor but those in `keep`.
///
/// Whatever else owned a descriptor must not be used or dropped afterwards: the number may be another's by then. So this
/// is for a process that ends by [`super::exit_now`].
pub fn close_others(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut kept: Vec<libc::c_uint> =
        keep.iter().filter_map(|fd| libc::c_uint::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut from: libc::c_uint = 0;
    for number in kept {
        if number > from {
            close_range(from, number - 1)?;
        }
        from = number + 1;
    }
    close_range(from, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: closing touches no memory. That nobody uses the descriptors afterwards is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
