//! Entitlements and old keys that end by themselves: no change is written then, so nothing else tells the watchers.

use std::sync::Arc;
use std::time::Duration;

use machineid_clock::wall_now;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::hub::Hints;
use crate::store::Store;

/// How often it is looked for some, and how late a hint may so be.
const PERIOD: Duration = Duration::from_secs(1);

/// Tells watchers of entitlements and old keys that have ended, until `stop`. Each server looks by itself, by the clock that its
/// validations go by.
pub(crate) async fn tell_of_ends(hints: Arc<Hints>, store: Store, stop: CancellationToken) {
    let mut told = wall_now();
    while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
        let now = wall_now();
        if hints.nobody_watches() {
            // A new watcher validates when its subscription stands, and sees what ended before.
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
            // Not told yet: the next look is for the same and what comes then.
            Err(error) => debug!(%error, "cannot look for entitlements and old keys that ended"),
        }
    }
}
