//! Ephemeral devices that were never removed (a killed pod, a lost node) age out: an active one that has not been seen for
//! a time is removed, so that its place in the plan is free. A revoked one never is: its revoke must stay.
//!
//! A device can only be seen while this server serves. So nothing ages out for a while after its start, after a time in
//! which the database did not answer or took no notes of validations, and after a jump of the clock (a suspend, a correction): live devices validate within
//! that while, and are seen.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use machineid_clock::wall_now;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::audit::{Actor, Call};
use super::seen::Seen;
use super::store::{Store, StoreError};

/// How long nothing ages out after devices could not be seen. Far longer than a sidecar waits between two validations,
/// whatever it was told to wait.
const QUIET: Duration = Duration::from_mins(15);

/// The longest time between two looks.
const LONGEST_PERIOD: Duration = Duration::from_mins(1);

/// For how long a note of a device's validation may wait to be written. Notes are written every second.
const LATE: Duration = Duration::from_mins(1);

/// The shortest.
const SHORTEST_PERIOD: Duration = Duration::from_millis(250);

/// When devices age out. Pure.
#[derive(Debug)]
struct Ageing {
    after: Duration,
    /// Nothing ages out before.
    quiet_until: Timestamp,
    /// When it was last looked.
    looked: Timestamp,
}

impl Ageing {
    fn new(after: Duration, now: Timestamp) -> Self {
        let mut ageing = Self { after, quiet_until: now, looked: now };
        ageing.could_not_see(now);
        ageing
    }

    fn period(&self) -> Duration {
        (self.after / 4).clamp(SHORTEST_PERIOD, LONGEST_PERIOD)
    }

    /// Devices could not be seen until `now`.
    fn could_not_see(&mut self, now: Timestamp) {
        self.looked = now;
        self.quiet_until = now.saturating_add(self.after.min(QUIET)).unwrap_or(Timestamp::MAX);
    }

    /// Those last seen before the returned time have aged; `None` when nothing ages out at `now`.
    fn look(&mut self, now: Timestamp) -> Option<Timestamp> {
        let since = now.duration_since(self.looked);
        // A look that comes twice too late, or too early, is one after a suspend or a jump of the clock.
        let jumped = since.is_negative() || since.unsigned_abs() > self.period() * 2 + LONGEST_PERIOD;
        self.looked = now;
        if jumped {
            self.could_not_see(now);
        }
        (now >= self.quiet_until).then(|| now.saturating_sub(self.after).unwrap_or(Timestamp::MIN))
    }
}

/// Removes ephemeral devices that were not seen for `after`, until `stop`.
pub(super) async fn keep_ageing(store: Store, seen: Arc<Seen>, after: Duration, stop: CancellationToken) {
    let mut ageing = Ageing::new(after, wall_now());
    while stop.run_until_cancelled(tokio::time::sleep(ageing.period())).await.is_some() {
        let now = wall_now();
        let aged = ageing.look(now);
        let late = seen.late(now, LATE);
        if late {
            ageing.could_not_see(now);
        }
        // The database is asked in a quiet time too: whether it answers is what the quiet is about.
        let looked = match aged.filter(|_| !late) {
            Some(before) => age_out(&store, before).await,
            None => store.ping().await,
        };
        if let Err(error) = looked {
            debug!(%error, "cannot look for ephemeral devices that were not seen for a time");
            ageing.could_not_see(wall_now());
        }
    }
}

async fn age_out(store: &Store, before: Timestamp) -> Result<(), StoreError> {
    for org in store.aged(before).await? {
        let request_id = Uuid::new_v4().hyphenated().to_string();
        let call = Call { at: wall_now(), request_id, actor: Actor::Server, reason: None };
        let mut removed = 0;
        loop {
            match store.age_out(org, before, &call).await? {
                0 => break,
                some => removed += some,
            }
        }
        if removed > 0 {
            info!(%org, removed, not_seen_since = %before, "removed ephemeral devices that were not seen for a time");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// Looks each minute from `from` to `to`, both in minutes; says when something aged out first.
    fn first(ageing: &mut Ageing, from: i64, to: i64) -> Option<i64> {
        (from..=to).find(|minute| ageing.look(at(minute * 60)).is_some())
    }

    #[test]
    fn nothing_ages_out_until_every_live_device_had_the_time_to_be_seen_again() {
        let mut ageing = Ageing::new(DAY, at(0));
        assert_eq!(first(&mut ageing, 1, 60), Some(15));
        assert_eq!(ageing.look(at(16 * 60)), Some(at(16 * 60 - 86_400)));
        // A suspend of two days, or a clock that was wrong by as much, either way.
        for jump in [2 * 1440, -1440] {
            let mut ageing = Ageing::new(DAY, at(0));
            first(&mut ageing, 1, 20);
            assert_eq!(first(&mut ageing, jump, jump + 60), Some(jump + 15), "{jump}");
        }
        // The database was away.
        ageing.could_not_see(at(100 * 60));
        assert_eq!(first(&mut ageing, 101, 200), Some(115));
    }

    #[test]
    fn a_short_time_is_looked_at_often_and_a_long_one_each_minute() {
        assert_eq!(Ageing::new(Duration::from_secs(2), at(0)).period(), Duration::from_millis(500));
        assert_eq!(Ageing::new(DAY, at(0)).period(), LONGEST_PERIOD);
        assert_eq!(Ageing::new(Duration::from_millis(1), at(0)).period(), SHORTEST_PERIOD);
    }
}
