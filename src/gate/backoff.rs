//! The pause before the next attempt after one that brought no answer.

use std::time::Duration;

use machineid_clock::Doubling;

/// The first ceiling.
const FIRST: Duration = Duration::from_millis(250);
/// The last ceiling.
const LAST: Duration = Duration::from_secs(5);

/// Exponential backoff with full jitter: uniform between nothing and a ceiling that doubles from 250 ms to 5 s.
///
/// Full jitter instead of "ceiling ± 10 %": hosts that lost their authority in the same second must not all come back in the
/// same second. While a lease runs down, no pause is longer than a quarter of the remaining lease or 250 ms, whichever is
/// longer, so that the end of a short outage is noticed in time.
///
/// An authority's `Retry-After` is a lower bound, with the jitter on top: all hosts that were told at the same moment would
/// otherwise come back at the same moment. `Retry-After` is capped at a quarter of the remaining lease, so that an answer
/// that is no decision cannot stop agents by delaying validation until the lease ends. Without agents it is not capped.
pub(super) fn delay(
    failures: u32,
    lease_left: Option<Duration>,
    retry_after: Option<Duration>,
    rng: &mut fastrand::Rng,
) -> Duration {
    let ceiling = Doubling { first: FIRST, longest: LAST }.after(failures);
    let most = lease_left.map_or(Duration::MAX, |left| (left / 4).max(FIRST));
    let floor = retry_after.unwrap_or_default();
    let high = floor.saturating_add(ceiling).min(most);
    // The jitter keeps its width where the lease shortens the pause.
    let low = floor.min(high.saturating_sub(ceiling.min(high / 2)));
    low + high.saturating_sub(low).mul_f64(rng.f64())
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
            let delay = delay(1, None, Some(asked), &mut fastrand::Rng::with_seed(seed));
            prop_assert!(delay >= asked && delay <= asked + FIRST);
        }

        #[test]
        fn is_never_kept_from_asking_by_an_authority_while_a_lease_runs_out(seed: u64, asked: u64, left in 0_u64..60_000) {
            let (asked, left) = (Duration::from_millis(asked), Duration::from_millis(left));
            let delay = delay(1, Some(left), Some(asked), &mut fastrand::Rng::with_seed(seed));
            let most = (left / 4).max(FIRST);
            prop_assert!(delay <= most && delay >= asked.min(most / 2));
        }

        #[test]
        fn who_was_told_the_same_does_not_come_back_together(asked in 0_u64..100_000, left in 2_000_u64..60_000) {
            for left in [None, Some(Duration::from_millis(left))] {
                let one = |seed| delay(3, left, Some(Duration::from_millis(asked)), &mut fastrand::Rng::with_seed(seed));
                let all: std::collections::BTreeSet<_> = (0..50).map(|seed| one(seed).as_millis() / 5).collect();
                prop_assert!(all.len() > 15, "{all:?}");
            }
        }
    }
}
