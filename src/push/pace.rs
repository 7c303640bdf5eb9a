//! Determines when to reconnect. Pure.

use std::time::Duration;

use machineid_clock::Doubling;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// A stream that lasted this long was a success: a failure after it is the first of a new series.
const STOOD: Duration = Duration::from_secs(10);

/// Exponential backoff with full jitter: a thousand sidecars whose authority was restarted must not come back as one.
#[derive(Debug)]
pub(super) struct Pace {
    failures: u32,
    rng: fastrand::Rng,
}

impl Pace {
    pub(super) fn new(seed: u64) -> Self {
        Self { failures: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    /// Notes how long a stream lasted.
    pub(super) fn stood(&mut self, long: Duration) {
        if long >= STOOD {
            self.failures = 0;
        }
    }

    /// The pause before the next attempt, at least as long as the authority asks for.
    pub(super) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let ceiling = Doubling { first: FIRST, longest: LONGEST }.after(self.failures);
        let wait = ceiling.mul_f64(self.rng.f64());
        // Never zero: a stream that ends immediately must not cause a busy loop.
        wait.max(Duration::from_millis(50)).max(retry_after.unwrap_or_default())
    }

    /// Consecutive failures.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_scatter_and_stay_below_their_ceiling() {
        let mut pace = Pace::new(7);
        let waits: Vec<_> = (0..12).map(|_| pace.next(None)).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST) && waits[0] <= FIRST, "{waits:?}");
        assert!(waits[8..].iter().sum::<Duration>() > waits[..4].iter().sum::<Duration>(), "{waits:?}");
        pace.stood(Duration::from_secs(1));
        assert_eq!(pace.failures(), 12, "a stream that ends at once is no success");
        pace.stood(STOOD);
        assert_eq!(pace.failures(), 0);
        assert!(pace.next(Some(Duration::from_mins(2))) >= Duration::from_mins(2));
    }
}
