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
    let now = BootTime::now();
    let ago = now.saturating_since(point);
    let ahead = point.saturating_since(now);
    let wall = wall_now();
    wall.checked_sub(ago).and_then(|t| t.checked_add(ahead)).unwrap_or(wall)
}
