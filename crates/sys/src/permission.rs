//! Whether a process may be signalled.

#![expect(unsafe_code, reason = "rustix cannot send signal 0 to a pidfd")]

use std::os::fd::{AsFd, AsRawFd};

/// Whether a signal of ours would reach the process behind this pidfd. Asks with signal 0, which does nothing. A process
/// that has ended may not be signalled.
pub fn may_signal<Fd: AsFd>(pidfd: Fd) -> bool {
    // SAFETY: plain numbers, a borrowed descriptor that stays open during the call, and no siginfo.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            0_i32,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    #[test]
    fn a_process_may_signal_itself() {
        assert!(may_signal(pidfd_open(getpid(), PidfdFlags::empty()).unwrap()));
    }
}
