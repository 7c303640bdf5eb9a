//! Closing the descriptors that a forked process does not need.

#![expect(unsafe_code, reason = "neither nix nor rustix has close_range")]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::process::last_errno;

/// Closes every descriptor except those in `keep`. For a forked child that goes on without its parent's descriptors.
///
/// An owner of a closed descriptor must not be used or dropped afterwards: the number may be another descriptor's by
/// then. So this is for a process that ends by [`super::exit_now`].
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
    // SAFETY: closing touches no memory. The caller promises not to use the descriptors afterwards.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
