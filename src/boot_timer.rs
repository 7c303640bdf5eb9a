//! Waiting for a point on the boot clock.
//!
//! tokio's timers run on `CLOCK_MONOTONIC`, which stands still while the machine is suspended: a lease timed by them
//! would be longer by every suspend. A timerfd on `CLOCK_BOOTTIME` fires on waking.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

use crate::clock::BootTime;
use crate::sys;

/// One reusable timer. Costs a file descriptor for as long as it lives.
#[derive(Debug)]
pub(crate) struct BootTimer {
    timer: AsyncFd<OwnedFd>,
}

impl BootTimer {
    /// Fails when the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Self { timer: sys::watch(timer)? })
    }

    /// Waits until the boot clock reads `point` or more; for ever when there is none. May be dropped and called again.
    ///
    /// Fails only when the kernel refuses the timer.
    pub(crate) async fn wait_until(&mut self, point: Option<BootTime>) -> io::Result<()> {
        let Some(point) = point else { return std::future::pending().await };
        let since_boot = point.since_boot();
        // An all-zero time would disarm the timer.
        let value = Timespec {
            tv_sec: i64::try_from(since_boot.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(since_boot.subsec_nanos().max(1)),
        };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        loop {
            let mut ready = self.timer.readable().await?;
            if BootTime::now() >= point {
                ready.clear_ready();
                return Ok(());
            }
            // Readiness left over from an earlier point.
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn fires_at_its_point_and_again_when_reused() {
        let mut timer = BootTimer::new().unwrap();
        for millis in [0, 5, 20] {
            let point = BootTime::now() + Duration::from_millis(millis);
            timer.wait_until(Some(point)).await.unwrap();
            assert!(BootTime::now() >= point);
        }
    }

    #[tokio::test]
    async fn readiness_of_an_abandoned_wait_does_not_end_the_next_one_early() {
        let mut timer = BootTimer::new().unwrap();
        let soon = BootTime::now() + Duration::from_millis(1);
        drop(tokio::time::timeout(Duration::from_micros(1), timer.wait_until(Some(soon))).await);
        let later = BootTime::now() + Duration::from_millis(30);
        timer.wait_until(Some(later)).await.unwrap();
        assert!(BootTime::now() >= later);
    }
}
