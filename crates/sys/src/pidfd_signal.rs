//! Signals to the process behind a pidfd, with a siginfo or as signal 0, which rustix's call cannot send.

#![expect(unsafe_code, reason = "rustix's pidfd_send_signal takes neither a siginfo nor signal 0, and nix has none")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::queue::Queued;

/// Calls `pidfd_send_signal`. Signal 0 only checks whether a signal would reach the process.
pub(super) fn send<Fd: AsFd>(pidfd: Fd, signal: libc::c_int, info: Option<&Queued>) -> Result<(), Errno> {
    let info = info.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: plain numbers, a borrowed descriptor that stays open during the call, and null or a live value of the size and
    // layout of `siginfo_t`, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, info, 0_u32) };
    if result == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}
