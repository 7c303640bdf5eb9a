//! The longest time from a revoke to the end of the last process.
//!
//! The daemon computes it from its configuration; the command line uses that of the default settings for a sidecar that
//! has not reported to the authority.

use std::time::Duration;

use crate::span;

/// The time that the implementation itself may add: sending signals, and noticing that the tree is empty.
const MARGIN: Duration = Duration::from_secs(1);

/// How many agents are ended within [`MARGIN`] when all are stopped at once and all ignore SIGTERM.
const CROWD: u32 = 1_000;

/// The time that each further agent adds, measured on two processors with PID namespaces, which take the kernel longest
/// to end.
const EACH_BEYOND: Duration = Duration::from_micros(1_500);

/// The default settings on which the bound depends, as they are written in the configuration file.
pub mod defaults {
    /// `authority.timeout`.
    pub const TIMEOUT: &str = "3s";
    /// `enforcement.interval`.
    pub const INTERVAL: &str = "4s";
    /// `enforcement.lease`.
    pub const LEASE: &str = "30s";
    /// `enforcement.stop_grace`.
    pub const STOP_GRACE: &str = "10s";
}

/// The bounds of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLatency {
    /// While the authority answers.
    pub connected: Duration,
    /// While the authority does not answer.
    pub cut_off: Duration,
}

impl StopLatency {
    /// The bounds of these settings.
    #[must_use]
    pub fn new(interval: Duration, timeout: Duration, lease: Duration, stop_grace: Duration) -> Self {
        Self {
            connected: longest_silence(interval, timeout) + stop_grace + MARGIN,
            cut_off: lease + stop_grace + MARGIN,
        }
    }

    /// The bounds with this many agents. Up to a thousand they are those of the configuration; then they grow.
    #[must_use]
    pub fn with(self, agents: usize) -> Self {
        let beyond = u32::try_from(agents).unwrap_or(u32::MAX).saturating_sub(CROWD);
        let more = EACH_BEYOND.saturating_mul(beyond);
        Self { connected: self.connected + more, cut_off: self.cut_off + more }
    }

    /// The larger of the two.
    #[must_use]
    pub fn worst(self) -> Duration {
        self.connected.max(self.cut_off)
    }
}

/// The bounds of the default settings.
///
/// # Panics
///
/// Never: a test parses the defaults.
#[must_use]
pub fn default_stop_bound() -> StopLatency {
    let span = |text| span::parse(text).expect("the defaults are tested");
    StopLatency::new(
        span(defaults::INTERVAL),
        span(defaults::TIMEOUT),
        span(defaults::LEASE),
        span(defaults::STOP_GRACE),
    )
}

/// The longest time between a change at the authority and the answer that contains it: `interval` + `timeout`.
#[must_use]
pub fn longest_silence(interval: Duration, timeout: Duration) -> Duration {
    interval + timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_stop_within_41_seconds_at_the_worst() {
        let second = Duration::from_secs(1);
        let bound = default_stop_bound();
        assert_eq!(bound, StopLatency::new(4 * second, 3 * second, 30 * second, 10 * second));
        assert_eq!(bound.connected, 18 * second);
        assert_eq!(bound.cut_off, 41 * second);
        assert_eq!(bound.worst(), 41 * second);
    }

    #[test]
    fn the_bound_grows_with_the_agents_beyond_a_thousand() {
        let second = Duration::from_secs(1);
        let bound = StopLatency::new(4 * second, 3 * second, 30 * second, 10 * second);
        assert_eq!((bound.with(0), bound.with(1_000)), (bound, bound));
        assert_eq!(bound.with(3_000).cut_off, 44 * second);
        assert_eq!(bound.with(3_000).connected, 21 * second);
    }
}
