//! When to connect again. Pure.

use std::time::Duration;

use machineid_clock::Doubling;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// A stream that stood this long was one: what follows is a new failure.
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

    /// A stream stood this long.
    pub(super) fn stood(&mut self, long: Duration) {
        if long >= STOOD {
            self.failures = 0;
        }
    }

    /// How long to wait before the next attempt, and no shorter than the authority wishes.
    pub(super) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let ceiling = Doubling { first: FIRST, longest: LONGEST }.after(self.failures);
        let wait = ceiling.mul_f64(self.rng.f64());
        // Never at once: a stream that ends as soon as it stands must not become a loop.
        wait.max(Duration::from_millis(50)).max(retry_after.unwrap_or_default())
    }

    /// Failures in a row.
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
