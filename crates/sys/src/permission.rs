//! Whether a process may be signalled.

use std::os::fd::AsFd;

/// Whether a signal of this process would reach the process behind this pidfd. Asks with signal 0, which does nothing.
/// `false` for a process that has ended.
pub fn may_signal<Fd: AsFd>(pidfd: Fd) -> bool {
    super::pidfd_signal::send(pidfd, 0, None).is_ok()
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
