//! The worst time from a revoke to the last process gone.

use std::time::Duration;

/// What the machinery itself may add: sending signals, noticing that the tree is empty.
const MARGIN: Duration = Duration::from_secs(1);

/// How many agents are ended within [`MARGIN`] when all are stopped at once and none obeys SIGTERM.
const CROWD: u32 = 1_000;

/// What each agent beyond those adds, on two processors: the kernel's own end of a PID namespace is the dearest.
const EACH_BEYOND: Duration = Duration::from_micros(1_500);

/// The two bounds of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopBound {
    /// While the authority answers.
    pub(crate) connected: Duration,
    /// While it does not.
    pub(crate) cut_off: Duration,
}

impl StopBound {
    pub(crate) fn new(interval: Duration, timeout: Duration, lease: Duration, stop_grace: Duration) -> Self {
        Self {
            connected: longest_silence(interval, timeout) + stop_grace + MARGIN,
            cut_off: lease + stop_grace + MARGIN,
        }
    }

    /// The bounds while so many agents run. They are those of the configuration up to a thousand, and grow beyond.
    pub(crate) fn with(self, agents: usize) -> Self {
        let beyond = u32::try_from(agents).unwrap_or(u32::MAX).saturating_sub(CROWD);
        let more = EACH_BEYOND.saturating_mul(beyond);
        Self { connected: self.connected + more, cut_off: self.cut_off + more }
    }

    /// The larger of the two.
    pub(crate) fn worst(self) -> Duration {
        self.connected.max(self.cut_off)
    }
}

/// The longest time between a change at the authority and the answer that tells of it: `interval` + `timeout`.
pub(crate) fn longest_silence(interval: Duration, timeout: Duration) -> Duration {
    interval + timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_stop_within_41_seconds_at_the_worst() {
        let second = Duration::from_secs(1);
        let bound = StopBound::new(4 * second, 3 * second, 30 * second, 10 * second);
        assert_eq!(bound.connected, 18 * second);
        assert_eq!(bound.cut_off, 41 * second);
        assert_eq!(bound.worst(), 41 * second);
    }

    #[test]
    fn the_bound_grows_with_the_agents_beyond_a_thousand() {
        let second = Duration::from_secs(1);
        let bound = StopBound::new(4 * second, 3 * second, 30 * second, 10 * second);
        assert_eq!((bound.with(0), bound.with(1_000)), (bound, bound));
        assert_eq!(bound.with(3_000).cut_off, 44 * second);
        assert_eq!(bound.with(3_000).connected, 21 * second);
    }
}
