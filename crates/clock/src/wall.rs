//! The wall clock.

use crate::BootTime;

/// The wall-clock time, for display and audit records only: no decision depends on it.
#[must_use]
pub fn wall_now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The wall-clock time of a point on the boot clock, as far as the wall clock is correct now.
#[must_use]
pub fn wall_at(point: BootTime) -> jiff::Timestamp {
    WallClock::now().at(point)
}

/// Both clocks at one moment, to convert many points: the two clocks are read once for all.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    boot: BootTime,
    wall: jiff::Timestamp,
}

impl WallClock {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        Self { boot: BootTime::now(), wall: wall_now() }
    }

    /// The wall-clock time of a point on the boot clock, as far as the wall clock was correct at the reading.
    #[must_use]
    pub fn at(self, point: BootTime) -> jiff::Timestamp {
        let ago = self.boot.saturating_since(point);
        let ahead = point.saturating_since(self.boot);
        self.wall.checked_sub(ago).and_then(|time| time.checked_add(ahead)).unwrap_or(self.wall)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn points_keep_their_distance_from_the_moment_of_the_reading() {
        let clock = WallClock::now();
        let second = Duration::from_secs(1);
        assert_eq!(clock.at(clock.boot), clock.wall);
        assert_eq!(clock.at(clock.boot - second), clock.wall.checked_sub(second).unwrap());
        assert_eq!(clock.at(clock.boot + second), clock.wall.checked_add(second).unwrap());
    }
}
