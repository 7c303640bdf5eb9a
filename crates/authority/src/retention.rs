//! What is kept of the audit and of what sidecars tell, and for how long: no holder of a key may fill the disk. No decision
//! depends on any of it. Devices are not cleaned up: a revoke that was forgotten would be lifted. Their number has a bound
//! instead ([`super::plan::most_revoked`]).

use std::time::Duration;

use jiff::Timestamp;
use machineid_clock::wall_now;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::plan::Account;
use super::store::{Kept, Store, StoreError, Surplus};

/// The interval between two looks at how much was written.
const LOOK: Duration = Duration::from_mins(1);

/// The longest time between two clean-ups, in looks.
const LOOKS: u32 = 60;

/// A clean-up comes sooner after this many rows: they are at most a few megabytes, except for an attacker.
const GROWTH: i64 = 20_000;

/// What an organisation may have whatever its plan.
const ANY_PLAN: u64 = 10_000;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// How old an audit entry becomes; `None` for any age.
    pub(super) audit_age: Option<Duration>,
    /// About how many bytes the audit of one organisation has; `None` for any number.
    pub(super) audit_bytes: Option<u64>,
    /// How old a report, a stop or an event of a sidecar becomes.
    pub(super) report_age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            audit_age: Some(Duration::from_hours(24 * 365)),
            audit_bytes: Some(64 * 1024 * 1024),
            report_age: Duration::from_hours(24 * 30),
        }
    }
}

impl Retention {
    /// The rows that are too old at `now`.
    fn old(&self, now: Timestamp) -> Vec<(Kept, Surplus)> {
        let before = |age: Duration| Surplus::Before(now.saturating_sub(age).unwrap_or(Timestamp::MIN));
        let told = [Kept::Reports, Kept::Stops, Kept::Timeline, Kept::Validators]
            .map(|table| (table, before(self.report_age)));
        told.into_iter().chain(self.audit_age.map(|age| (Kept::Audit, before(age)))).collect()
    }
}

/// How many rows an organisation with so many places keeps of each table. Several times what its devices can have that exist
/// at once: those of removed devices are kept as well.
fn most_rows(table: Kept, places: u64) -> Option<u64> {
    let of_one = match table {
        Kept::Reports | Kept::Validators => 16,
        Kept::Stops => 40,
        Kept::Timeline => 400,
        // Bounded by bytes.
        Kept::Audit => return None,
    };
    Some(places.saturating_mul(of_one).saturating_add(ANY_PLAN))
}

/// When the next clean-up is due. Pure.
#[derive(Debug, Default)]
struct Tidying {
    /// Looks since the last clean-up; `None` before the first.
    looks: Option<u32>,
    /// How much had been written at the last clean-up.
    written: i64,
}

impl Tidying {
    /// Whether to clean up now, with this much written since the database was made.
    fn look(&mut self, written: i64) -> bool {
        let due = match self.looks {
            None => true,
            Some(looks) => looks + 1 >= LOOKS || written.saturating_sub(self.written).saturating_abs() >= GROWTH,
        };
        if due {
            self.written = written;
        }
        self.looks = Some(if due { 0 } else { self.looks.unwrap_or(0) + 1 });
        due
    }
}

/// Cleans up now, every hour, and sooner after much was written, until `stop`. A separate task: searching the tables of a
/// large fleet takes long, and reports must not wait for it.
pub(super) async fn keep_tidy(store: Store, retention: Retention, stop: CancellationToken) {
    let mut tidying = Tidying::default();
    let mut looking = tokio::time::interval(LOOK);
    while stop.run_until_cancelled(looking.tick()).await.is_some() {
        let due = match store.written().await {
            Ok(written) => tidying.look(written),
            Err(error) => {
                debug!(%error, "cannot find out how much was written");
                continue;
            }
        };
        if due && let Some(Err(error)) = stop.run_until_cancelled(tidy(&store, &retention)).await {
            warn!(%error, "could not delete what is old or too much; retrying later");
        }
    }
}

async fn tidy(store: &Store, retention: &Retention) -> Result<(), StoreError> {
    for (table, surplus) in retention.old(wall_now()) {
        store.forget(table, surplus).await?;
    }
    for account in store.orgs().await? {
        shorten(store, retention, &account).await?;
    }
    Ok(())
}

/// Deletes what one organisation has too much of, the oldest first.
async fn shorten(store: &Store, retention: &Retention, account: &Account) -> Result<(), StoreError> {
    let org = account.org.id;
    for table in [Kept::Reports, Kept::Stops, Kept::Timeline, Kept::Validators] {
        let Some(rows) = most_rows(table, account.org.limit()) else { continue };
        if let Some(place) = store.over_rows(table, org, rows).await? {
            store.forget(table, Surplus::UpTo(org, place)).await?;
        }
    }
    if let Some(bytes) = retention.audit_bytes
        && let Some(place) = store.over_bytes(org, bytes).await?
    {
        store.forget(Kept::Audit, Surplus::UpTo(org, place)).await?;
        // Audit entries are gone: the operator should know whose.
        info!(%org, up_to = place, "the audit of an organisation was larger than --audit-mib; deleted its oldest entries");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_up_comes_at_the_start_every_hour_and_after_much_was_written() {
        let mut tidying = Tidying::default();
        assert!(tidying.look(5));
        assert_eq!((1..200).filter(|_| tidying.look(5)).count(), 3);
        let mut tidying = Tidying::default();
        tidying.look(5);
        assert!(!tidying.look(4 + GROWTH) && tidying.look(5 + GROWTH) && !tidying.look(5 + GROWTH));
    }

    #[test]
    fn an_organisation_keeps_more_than_its_devices_can_have_at_once() {
        for places in [0, 3, 1_000, u64::MAX] {
            let (stops, timeline) = (most_rows(Kept::Stops, places), most_rows(Kept::Timeline, places));
            assert!(stops.unwrap() >= places.saturating_mul(20) && timeline.unwrap() >= places.saturating_mul(200));
        }
        assert_eq!(most_rows(Kept::Audit, 3), None);
    }
}
