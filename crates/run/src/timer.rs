//! A timer on the boot clock, to poll for.

use std::os::fd::{AsFd, BorrowedFd};

use machineid_clock::BootTime;
use machineid_sys as sys;
use rustix::io::Errno;

/// A timer that becomes readable at its time. A time that passes during a suspend has passed on resume.
#[derive(Debug)]
pub(super) struct DeadlineTimer(sys::Timer);

impl DeadlineTimer {
    pub(super) fn new() -> Result<Self, Errno> {
        sys::Timer::on_boot_clock().map(Self)
    }

    /// Sets the timer to this point, or disarms it.
    pub(super) fn set(&self, at: Option<BootTime>) {
        let _ = self.0.set(at.map(BootTime::since_boot));
    }

    /// Makes it unreadable until it fires again.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}

impl AsFd for DeadlineTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
