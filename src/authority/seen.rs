//! When devices last asked. Kept in memory and written every second: a validation must not wait for a disk.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::store::Store;

/// How often the times are written.
const PERIOD: Duration = Duration::from_secs(1);

/// How many go into one transaction: a revoke that comes meanwhile waits for one of these at most.
const CHUNK: usize = 5_000;

/// The times not yet written, by the devices' numbers in the store. At most one for each device.
#[derive(Debug, Default)]
pub(super) struct Seen {
    // A std mutex: held for one insertion, never across an await.
    pending: Mutex<HashMap<i64, i64>>,
}

impl Seen {
    /// The device `seq` asked at `at`.
    pub(super) fn note(&self, seq: i64, at: Timestamp) {
        self.merge([(seq, at.as_microsecond())]);
    }

    fn merge(&self, times: impl IntoIterator<Item = (i64, i64)>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for (seq, at) in times {
            let newest = pending.entry(seq).or_insert(at);
            *newest = (*newest).max(at);
        }
    }

    /// Writes what is pending. What cannot be written is logged and tried again next time; no decision rests on it.
    pub(super) async fn flush(&self, store: &Store) {
        let pending = mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let times: Vec<(i64, i64)> = pending.into_iter().collect();
        for (done, chunk) in times.chunks(CHUNK).enumerate() {
            if let Err(error) = store.touch(chunk).await {
                warn!(%error, "could not record when devices were last seen; trying again");
                self.merge(times.iter().skip(done * CHUNK).copied());
                return;
            }
        }
    }

    /// Writes every second until `stop`.
    pub(super) async fn keep_writing(&self, store: &Store, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            self.flush(store).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_time_of_each_device_is_kept() {
        let seen = Seen::default();
        seen.merge([(1, 10), (2, 5), (1, 30), (1, 20)]);
        let pending = seen.pending.into_inner().unwrap();
        assert_eq!(pending, HashMap::from([(1, 30), (2, 5)]));
    }
}
