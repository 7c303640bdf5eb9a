//! Telling a suspend of the machine from the delay of a process. Pure: it is given the moments.
//!
//! Between two moments the boot clock advances by the time that passed, and `CLOCK_MONOTONIC` by the time that the
//! machine was awake. The difference is the time that the machine was suspended. Both clocks differ between time
//! namespaces only by constants, and neither can be set, so neither a change of the wall clock nor a busy host looks
//! like a suspend.

use std::time::Duration;

use crate::{BootTime, Moment};

/// A shorter difference is no suspend: the two clocks are never read at exactly the same moment.
const SHORTEST: Duration = Duration::from_millis(100);

/// Detects suspends for one task or thread, which passes each moment at which it wakes.
#[derive(Clone, Copy, Debug)]
pub struct Suspends {
    last: Moment,
}

impl Suspends {
    /// Begins at this moment.
    #[must_use]
    pub const fn from(start: Moment) -> Self {
        Self { last: start }
    }

    /// How long the machine was suspended since the previous moment; `None` when it was not.
    pub fn until(&mut self, moment: Moment) -> Option<Duration> {
        let passed = moment.boot.saturating_since(self.last.boot);
        let awake = moment.awake.saturating_sub(self.last.awake);
        self.last = moment;
        passed.checked_sub(awake).filter(|slept| *slept >= SHORTEST)
    }

    /// The boot clock at the latest moment.
    #[must_use]
    pub const fn now(&self) -> BootTime {
        self.last.boot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment(boot_ms: u64, awake_ms: u64) -> Moment {
        Moment { boot: BootTime::from_millis(boot_ms), awake: Duration::from_millis(awake_ms) }
    }

    #[test]
    fn a_suspend_is_what_the_boot_clock_gained() {
        let mut suspends = Suspends::from(moment(10_000, 500));
        assert_eq!(suspends.until(moment(70_000, 60_500)), None, "held up for a minute");
        assert_eq!(suspends.until(moment(130_000, 60_600)), Some(Duration::from_millis(59_900)));
        assert_eq!(suspends.until(moment(130_001, 60_601)), None, "each is told once");
        assert_eq!(suspends.until(moment(130_051, 60_602)), None, "too short to be one");
        assert_eq!(suspends.now(), BootTime::from_millis(130_051));
    }

    proptest! {
        #[test]
        fn time_that_passes_awake_is_never_a_suspend(
            boot in 0_u64..1 << 50, awake in 0_u64..1 << 50, steps in proptest::collection::vec(0_u64..1 << 30, 1..20),
        ) {
            let (mut boot, mut awake) = (boot, awake);
            let mut suspends = Suspends::from(moment(boot, awake));
            for step in steps {
                (boot, awake) = (boot + step, awake + step);
                prop_assert_eq!(suspends.until(moment(boot, awake)), None);
            }
        }

        #[test]
        fn every_suspend_is_found_with_its_length(step in 0_u64..1 << 30, slept in 100_u64..1 << 40) {
            let mut suspends = Suspends::from(moment(5_000, 9_000));
            let found = suspends.until(moment(5_000 + step + slept, 9_000 + step));
            prop_assert_eq!(found, Some(Duration::from_millis(slept)));
        }
    }
}
