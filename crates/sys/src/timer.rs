//! Timers read from a descriptor. nix's `TimerFd` does not give its descriptor's number, which tokio needs, and a time
//! of zero disarms it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustix::io::Errno;

use super::process::from_nix;

/// A time in the year 2242, for which no process waits.
const NEVER: Duration = Duration::from_secs(1 << 33);

/// A timer, non-blocking and closed on exec, whose descriptor becomes readable at its time.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// Makes a timer on the boot clock: a time that passes during a suspend has passed on resume. Fails when no
    /// descriptor is available.
    pub fn on_boot_clock() -> Result<Self, Errno> {
        Self::on(ClockId::CLOCK_BOOTTIME)
    }

    /// Makes a timer on the wall clock, for [`Timer::set_until_clock_jumps`]. Fails when no descriptor is available.
    pub fn on_wall_clock() -> Result<Self, Errno> {
        Self::on(ClockId::CLOCK_REALTIME)
    }

    fn on(clock: ClockId) -> Result<Self, Errno> {
        TimerFd::new(clock, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK).map(Self).map_err(from_nix)
    }

    /// Sets the timer to this reading of its clock, or disarms it. A reading in the past fires at once.
    pub fn set(&self, reading: Option<Duration>) -> Result<(), Errno> {
        match reading {
            Some(reading) => self.0.set(once(reading), TimerSetTimeFlags::TFD_TIMER_ABSTIME),
            None => self.0.unset(),
        }
        .map_err(from_nix)
    }

    /// Sets the timer to become readable when the clock is set, as it is by every resume from a suspend.
    pub fn set_until_clock_jumps(&self) -> Result<(), Errno> {
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        self.0.set(once(NEVER), flags).map_err(from_nix)
    }

    /// Makes the timer unreadable until it fires again.
    pub fn clear(&self) {
        // EAGAIN when it has not fired.
        let _ = self.0.wait();
    }
}

fn once(reading: Duration) -> Expiration {
    // A time of zero would disarm the timer.
    let reading = reading.max(Duration::from_nanos(1));
    let seconds = i64::try_from(reading.as_secs()).unwrap_or(i64::MAX);
    Expiration::OneShot(TimeSpec::new(seconds, i64::from(reading.subsec_nanos())))
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
