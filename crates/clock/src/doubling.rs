//! Exponential back-off: pauses that double with each failure. Without jitter, which each caller adds as needed.

use std::time::Duration;

/// A pause that doubles from `first` to `longest`.
#[derive(Clone, Copy, Debug)]
pub struct Doubling {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Doubling {
    /// The pause after this many failures in a row, at least one.
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_longest_and_stays_there() {
        let pauses = Doubling { first: Duration::from_millis(250), longest: Duration::from_secs(5) };
        let millis: Vec<u128> = [0, 1, 2, 3, 5, 6, u32::MAX].map(|n| pauses.after(n).as_millis()).into();
        assert_eq!(millis, [250, 250, 500, 1_000, 4_000, 5_000, 5_000]);
    }
}
