//! A timer on the boot clock, to poll for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use machineid_clock::BootTime;
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Becomes readable at its time. One that passed during a suspend has passed on waking.
#[derive(Debug)]
pub(super) struct Timer(OwnedFd);

impl Timer {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        rustix::time::timerfd_create(TimerfdClockId::Boottime, flags).map(Self)
    }

    /// Sets it to this point, or to none.
    pub(super) fn set(&self, at: Option<BootTime>) {
        let value = at.map_or(NEVER, |at| {
            // All zero would disarm it.
            let since_boot = at.since_boot().max(Duration::from_nanos(1));
            Timespec {
                tv_sec: i64::try_from(since_boot.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(since_boot.subsec_nanos()),
            }
        });
        let setting = Itimerspec { it_interval: NEVER, it_value: value };
        let _ = rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &setting);
    }

    /// Takes note of its having fired.
    pub(super) fn clear(&self) {
        let mut expirations = [0_u8; 8];
        let _ = rustix::io::read(&self.0, &mut expirations);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
