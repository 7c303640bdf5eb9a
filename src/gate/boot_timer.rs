//! A timer for points on the boot clock.
//!
//! tokio's timers run on `CLOCK_MONOTONIC`, which stands still while the machine is suspended: a lease timed by them would be
//! extended by every suspend. A timerfd on `CLOCK_BOOTTIME` fires on waking.

use std::io;

use machineid_clock::BootTime;
use machineid_sys as sys;
use tokio::io::unix::AsyncFd;

/// A reusable timer. It occupies one file descriptor.
#[derive(Debug)]
pub(crate) struct BootTimer {
    timer: AsyncFd<sys::Timer>,
    /// The time for which the kernel's timer is armed, or at which it has fired unnoticed.
    set_to: Option<BootTime>,
}

impl BootTimer {
    /// Creates a timer. Fails when the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { timer: sys::watch_timer(sys::Timer::on_boot_clock()?)?, set_to: None })
    }

    /// Waits until the boot clock reads `point` or more; for ever when it is `None`. Cancel-safe.
    ///
    /// If the timer is already armed for an earlier time, it stays so and is armed again after it fires. This saves a system
    /// call when the deadline changes thousands of times a second.
    ///
    /// Fails only when the kernel refuses the timer.
    pub(crate) async fn wait_until(&mut self, point: Option<BootTime>) -> io::Result<()> {
        let Some(point) = point else { return std::future::pending().await };
        loop {
            if self.set_to.is_none_or(|at| at > point) {
                self.set(point)?;
            }
            let mut ready = self.timer.readable().await?;
            ready.clear_ready();
            self.set_to = None;
            if BootTime::now() >= point {
                return Ok(());
            }
        }
    }

    fn set(&mut self, point: BootTime) -> io::Result<()> {
        self.timer.get_ref().set(Some(point.since_boot()))?;
        self.set_to = Some(point);
        Ok(())
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

    #[tokio::test]
    async fn one_set_to_an_earlier_point_fires_at_the_later_one_and_the_other_way_round() {
        let mut timer = BootTimer::new().unwrap();
        let start = BootTime::now();
        let at = |millis| start + Duration::from_millis(millis);
        for (abandoned, waited_for) in [(10, 40), (1000, 60), (70, 70), (71, 90)] {
            drop(tokio::time::timeout(Duration::ZERO, timer.wait_until(Some(at(abandoned)))).await);
            timer.wait_until(Some(at(waited_for))).await.unwrap();
            let now = BootTime::now();
            assert!(now >= at(waited_for) && now < at(900), "{waited_for}: {now:?}");
        }
    }
}
