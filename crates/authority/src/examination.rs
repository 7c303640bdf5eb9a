//! Examines the store: before the server serves, then every few seconds, and as soon as a change fails to be written.

use std::sync::Arc;
use std::time::Duration;

use machineid_clock::{BootTime, wall_now};
use tokio_util::sync::CancellationToken;

use super::health::{Concern, Health};
use super::store::{Demand, Store};

/// The interval between cheap checks: files and settings.
const LOOK: Duration = Duration::from_secs(5);

/// The same while stops wait to be written.
const LOOK_AT_STOPS: Duration = Duration::from_secs(1);

/// The interval between test writes.
const WRITE: Duration = Duration::from_mins(1);

/// Checks everything once.
pub(super) async fn first_look(health: &Health, store: &Store, demand: Demand) {
    for finding in store.examine(demand).await {
        health.take(finding, wall_now());
    }
    health.take(store.try_to_write().await, wall_now());
    health.take(store.examine_stops().await, wall_now());
}

/// Checks periodically until `stop`.
pub(super) async fn keep_looking(health: Arc<Health>, store: Store, demand: Demand, stop: CancellationToken) {
    let mut written = BootTime::now();
    loop {
        let doubted = tokio::select! {
            () = stop.cancelled() => return,
            () = store.doubted() => true,
            () = tokio::time::sleep(if store.stops_wait() { LOOK_AT_STOPS } else { LOOK }) => false,
        };
        health.take(store.examine_stops().await, wall_now());
        for finding in store.examine(demand).await {
            health.take(finding, wall_now());
        }
        let due = BootTime::now().saturating_since(written) >= WRITE;
        if doubted || due || health.is_wrong(Concern::Writes) {
            written = BootTime::now();
            health.take(store.try_to_write().await, wall_now());
        }
        // Thousands of failed changes cause one check.
        if doubted && stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_none() {
            return;
        }
    }
}
