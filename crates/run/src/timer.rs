//! A timer on the boot clock, to poll for.

use std::os::fd::{AsFd, BorrowedFd};

use machineid_clock::BootTime;
use machineid_sys as sys;
use rustix::io::Errno;

/// Becomes readable at its time. One that passed during a suspend has passed on waking.
#[derive(Debug)]
pub(super) struct DeadlineTimer(sys::Timer);

impl DeadlineTimer {
    pub(super) fn new() -> Result<Self, Errno> {
        sys::Timer::on_boot_clock().map(Self)
    }

    /// Sets it to this point, or to none.
    pub(super) fn set(&self, at: Option<BootTime>) {
        let _ = self.0.set(at.map(BootTime::since_boot));
    }

    /// Takes note of its having fired.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}

impl AsFd for DeadlineTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
