//! How long to wait before the next attempt when one brought no answer.

use std::time::Duration;

/// The first ceiling.
const FIRST: Duration = Duration::from_millis(250);
/// The last ceiling.
const LAST: Duration = Duration::from_secs(5);

/// Exponential backoff with full jitter: uniform between nothing and a ceiling that doubles from 250 ms to 5 s.
///
/// Full jitter, not "ceiling ± 10 %": a fleet that lost its authority in the same second must not come back in the same
/// second. While a lease runs down the ceiling is a quarter of what is left of it, but at least 250 ms, so that a short
/// outage near its end is noticed in time. An authority's `Retry-After` is a floor.
pub(super) fn delay(
    failures: u32,
    lease_left: Option<Duration>,
    retry_after: Option<Duration>,
    rng: &mut fastrand::Rng,
) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    let mut ceiling = FIRST.saturating_mul(1 << doublings).min(LAST);
    if let Some(left) = lease_left {
        ceiling = ceiling.min((left / 4).max(FIRST));
    }
    ceiling.mul_f64(rng.f64()).max(retry_after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stays_within_its_bounds(failures in 1_u32..100, seed: u64, left in proptest::option::of(0_u64..60_000)) {
            let left = left.map(Duration::from_millis);
            let delay = delay(failures, left, None, &mut fastrand::Rng::with_seed(seed));
            prop_assert!(delay <= LAST);
            if let Some(left) = left {
                prop_assert!(delay <= (left / 4).max(FIRST));
            }
        }

        #[test]
        fn never_comes_before_the_authority_asked(seed: u64, asked in 0_u64..100_000) {
            let asked = Duration::from_millis(asked);
            prop_assert!(delay(1, None, Some(asked), &mut fastrand::Rng::with_seed(seed)) >= asked);
        }
    }
}
