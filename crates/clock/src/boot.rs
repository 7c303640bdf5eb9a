//! The boot clock. Code that decides is *given* a [`BootTime`]; only shells read the clock.
//!
//! Leases run on `CLOCK_BOOTTIME`: it does not jump when the wall clock is set, and it goes on while the machine is
//! suspended, so a suspend cannot lengthen a lease. `CLOCK_MONOTONIC` (on which `Instant` is based) stands still in a
//! suspend.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point on the boot clock, in nanoseconds since the host (or the time namespace) booted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime {
    nanos: u64,
}

impl BootTime {
    /// Reads the boot clock.
    #[must_use]
    pub fn now() -> Self {
        Self { nanos: nanos_of(ClockId::Boottime) }
    }

    /// The point this many milliseconds after boot.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { nanos: millis.saturating_mul(1_000_000) }
    }

    /// Whole milliseconds since boot, rounded down: a deadline sent over the wire can only come early.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.nanos / 1_000_000
    }

    /// The point as a duration since boot.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

fn nanos_of(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// A moment on both clocks that cannot be set: the boot clock, and the one that stands still in a suspend. Two of them
/// tell whether the machine was suspended in between; see [`crate::Suspends`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The boot clock.
    pub boot: BootTime,
    /// `CLOCK_MONOTONIC`.
    pub awake: Duration,
}

impl Moment {
    /// Reads both clocks. A thread that is preempted between the readings would find them apart, as after a suspend, so
    /// they are read again until the readings are close.
    #[must_use]
    pub fn now() -> Self {
        const CLOSE: Duration = Duration::from_millis(1);
        let read = || {
            let before = Duration::from_nanos(nanos_of(ClockId::Monotonic));
            let boot = BootTime::now();
            let awake = Duration::from_nanos(nanos_of(ClockId::Monotonic));
            (awake.saturating_sub(before), Self { boot, awake })
        };
        let (mut apart, mut best) = read();
        for _ in 0..8 {
            if apart < CLOSE {
                break;
            }
            let (again, moment) = read();
            if again <= apart {
                (apart, best) = (again, moment);
            }
        }
        best
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self { nanos: self.nanos.saturating_add(nanos) }
    }
}

impl Sub<Duration> for BootTime {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self { nanos: self.nanos.saturating_sub(nanos) }
    }
}

impl fmt::Debug for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot+{:?}", self.since_boot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let start = BootTime::from_millis(10);
        assert_eq!(start - Duration::from_secs(1), BootTime::from_millis(0));
        assert_eq!(start.saturating_since(BootTime::from_millis(20)), Duration::ZERO);
        assert_eq!((start + Duration::MAX).since_boot(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn milliseconds_round_down_so_a_sent_deadline_comes_early() {
        let point = BootTime::from_millis(5) + Duration::from_micros(999);
        assert_eq!(point.as_millis(), 5);
    }

    #[test]
    fn the_boot_clock_moves_forward() {
        let first = BootTime::now();
        assert!(BootTime::now() >= first);
        assert!(first > BootTime::default());
    }

    #[test]
    fn both_clocks_are_read_at_one_moment() {
        let before = BootTime::now();
        let (first, second) = (Moment::now(), Moment::now());
        assert!(first.boot >= before && second.boot >= first.boot && second.awake >= first.awake);
    }
}
