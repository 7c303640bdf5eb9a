//! Finds entitlements and old keys that have ended: no change is written at their end, so nothing else tells the
//! watchers.

use std::sync::Arc;
use std::time::Duration;

use machineid_clock::wall_now;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::hub::Hints;
use crate::store::Store;

/// The interval between looks, and so the longest delay of a hint.
const PERIOD: Duration = Duration::from_secs(1);

/// Tells watchers about entitlements and old keys that have ended, until `stop`. Each server does this itself, by the
/// clock of its own validations.
pub(crate) async fn tell_of_ends(hints: Arc<Hints>, store: Store, stop: CancellationToken) {
    let mut told = wall_now();
    while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
        let now = wall_now();
        if hints.has_no_watcher() {
            // A new watcher validates when its subscription is ready, and so sees what ended before.
            told = now;
            continue;
        }
        match store.ended(told, now).await {
            Ok(ended) => {
                for change in &ended {
                    hints.tell(change);
                }
                told = now;
            }
            // Not told yet: the next look covers the same time again.
            Err(error) => debug!(%error, "cannot query entitlements and old keys that have ended"),
        }
    }
}
