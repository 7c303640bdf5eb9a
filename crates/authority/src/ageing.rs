//! Ageing: removes active ephemeral devices that have not been seen for a while and were never removed (a killed pod, a
//! lost node), so that their places in the plan are free. A revoked device is never removed: its revoke must stay.
//!
//! A device can only be seen while this server serves. So nothing ages out for a while after a start, after a time in
//! which the database did not answer or did not record validations, and after a jump of the clock (a suspend, a
//! correction): live devices validate in that while, and are then seen.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use machineid_clock::wall_now;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::audit::{Actor, Call};
use super::seen::SeenDevices;
use super::store::{Store, StoreError};

/// How long ageing pauses after devices could not be seen. Much longer than a sidecar waits between two validations,
/// even when it was told to wait.
const QUIET: Duration = Duration::from_mins(15);

/// The longest time between two looks for aged devices.
const LONGEST_PERIOD: Duration = Duration::from_mins(1);

/// How long the record of a validation may wait to be written. Records are written every second.
const LATE: Duration = Duration::from_mins(1);

/// The shortest time between two looks.
const SHORTEST_PERIOD: Duration = Duration::from_millis(250);

/// Decides when devices age out. Pure.
#[derive(Debug)]
struct Ageing {
    after: Duration,
    /// Nothing ages out before this time.
    quiet_until: Timestamp,
    /// The time of the last look.
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

    /// Records that devices could not be seen until `now`.
    fn could_not_see(&mut self, now: Timestamp) {
        self.looked = now;
        self.quiet_until = now.saturating_add(self.after.min(QUIET)).unwrap_or(Timestamp::MAX);
    }

    /// Devices last seen before the returned time have aged out; `None` when nothing ages out at `now`.
    fn look(&mut self, now: Timestamp) -> Option<Timestamp> {
        let since = now.duration_since(self.looked);
        // A look that comes much too late, or before the last one, follows a suspend or a jump of the clock.
        let jumped = since.is_negative() || since.unsigned_abs() > self.period() * 2 + LONGEST_PERIOD;
        self.looked = now;
        if jumped {
            self.could_not_see(now);
        }
        (now >= self.quiet_until).then(|| now.saturating_sub(self.after).unwrap_or(Timestamp::MIN))
    }
}

/// Removes ephemeral devices that have not been seen for `after`, until `stop`.
pub(super) async fn keep_ageing(store: Store, seen: Arc<SeenDevices>, after: Duration, stop: CancellationToken) {
    let mut ageing = Ageing::new(after, wall_now());
    while stop.run_until_cancelled(tokio::time::sleep(ageing.period())).await.is_some() {
        let now = wall_now();
        let aged = ageing.look(now);
        let late = seen.late(now, LATE);
        if late {
            ageing.could_not_see(now);
        }
        // The database is queried in a pause too: the pause depends on whether it answers.
        let looked = match aged.filter(|_| !late) {
            Some(before) => age_out(&store, before).await,
            None => store.ping().await,
        };
        if let Err(error) = looked {
            debug!(%error, "cannot query ephemeral devices that have aged out");
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
            info!(%org, removed, not_seen_since = %before, "removed ephemeral devices that have aged out");
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

    /// Looks each minute from `from` to `to`, both in minutes; returns the first time at which a device aged out.
    fn first(ageing: &mut Ageing, from: i64, to: i64) -> Option<i64> {
        (from..=to).find(|minute| ageing.look(at(minute * 60)).is_some())
    }

    #[test]
    fn nothing_ages_out_until_every_live_device_had_the_time_to_be_seen_again() {
        let mut ageing = Ageing::new(DAY, at(0));
        assert_eq!(first(&mut ageing, 1, 60), Some(15));
        assert_eq!(ageing.look(at(16 * 60)), Some(at(16 * 60 - 86_400)));
        // A suspend of two days, or a clock that was wrong by a day or two, in either direction.
        for jump in [2 * 1440, -1440] {
            let mut ageing = Ageing::new(DAY, at(0));
            first(&mut ageing, 1, 20);
            assert_eq!(first(&mut ageing, jump, jump + 60), Some(jump + 15), "{jump}");
        }
        // The database was down.
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
