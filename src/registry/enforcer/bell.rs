//! A bell wakes a thread that waits for a point on the boot clock.
//!
//! The timeout of a channel was rejected: it runs on `CLOCK_MONOTONIC`, which stands still while the machine is suspended.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use machineid_clock::BootTime;
use machineid_sys as sys;
use rustix::event::{EventfdFlags, PollFd, PollFlags};

/// An eventfd and a timer: one thread waits, other threads ring. Both descriptors are opened at the start.
#[derive(Debug)]
pub(super) struct Bell {
    rung: OwnedFd,
    timer: sys::Timer,
}

impl Bell {
    /// Fails when no descriptor is available.
    pub(super) fn new() -> io::Result<Self> {
        let rung = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { rung, timer: sys::Timer::on_boot_clock()? })
    }

    /// Ends the current wait, or the next one if no thread waits now.
    pub(super) fn ring(&self) {
        // A full counter still wakes the thread.
        let _ = rustix::io::write(&self.rung, &1_u64.to_ne_bytes());
    }

    /// Waits until the bell is rung, until `point`, or until one of these descriptors is readable; may return early. Returns
    /// the index of the last readable descriptor.
    pub(super) fn wait(&self, point: Option<BootTime>, also: &[BorrowedFd<'_>]) -> Option<usize> {
        let _ = self.timer.set(point.map(BootTime::since_boot));
        let mut fds = vec![PollFd::new(&self.rung, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
        fds.extend(also.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        // When a signal interrupts the wait, the caller looks at everything and waits again.
        let _ = rustix::event::poll(&mut fds, None);
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.rung, &mut count);
        self.timer.clear();
        fds[2..].iter().rposition(|fd| !fd.revents().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ends_at_its_point_and_when_rung() {
        let bell = Bell::new().unwrap();
        let point = BootTime::now() + Duration::from_millis(10);
        bell.wait(Some(point), &[]);
        assert!(BootTime::now() >= point);
        bell.ring();
        bell.ring();
        bell.wait(None, &[]);
        bell.wait(Some(BootTime::default()), &[]);
    }
}
