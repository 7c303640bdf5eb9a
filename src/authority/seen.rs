//! When devices last asked. Kept in memory and written every second: a validation must not wait for a disk.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::repeated::rarely;
use super::reports::Notes;
use super::store::Store;

/// How often the times are written.
const PERIOD: Duration = Duration::from_secs(1);

/// How many go into one transaction: a revoke that comes meanwhile waits for one of these at most.
const CHUNK: usize = 5_000;

/// The times not yet written, by the devices' numbers in the store. At most one for each device.
#[derive(Debug)]
pub(super) struct Seen {
    // A std mutex: held for one insertion, never across an await.
    pending: Mutex<Pending>,
    /// When this server began: what an earlier one did not write before it died is lost.
    began: Timestamp,
}

#[derive(Debug, Default)]
struct Pending {
    times: HashMap<i64, i64>,
    /// The oldest note since everything was last written, in microseconds since 1970.
    oldest: Option<i64>,
    /// The oldest of those that are being written.
    writing: Option<i64>,
}

impl Seen {
    pub(super) fn new(began: Timestamp) -> Self {
        Self { pending: Mutex::default(), began }
    }

    /// Which validations are written down.
    pub(super) fn notes(&self, now: Timestamp) -> Notes {
        let pending = self.lock();
        let oldest = [pending.oldest, pending.writing].into_iter().flatten().min();
        Notes::of(now, self.began, oldest.and_then(|at| Timestamp::from_microsecond(at).ok()))
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device `seq` asked at `at`.
    pub(super) fn note(&self, seq: i64, at: Timestamp) {
        self.merge([(seq, at.as_microsecond())]);
    }

    fn merge(&self, times: impl IntoIterator<Item = (i64, i64)>) {
        let mut pending = self.lock();
        for (seq, at) in times {
            pending.oldest = Some(pending.oldest.map_or(at, |oldest| oldest.min(at)));
            let newest = pending.times.entry(seq).or_insert(at);
            *newest = (*newest).max(at);
        }
    }

    /// Takes what is pending, which then counts as being written.
    fn take(&self) -> Vec<(i64, i64)> {
        let mut pending = self.lock();
        pending.writing = pending.oldest.take();
        mem::take(&mut pending.times).into_iter().collect()
    }

    /// Writes what is pending. What cannot be written is logged and tried again next time; no decision rests on it.
    pub(super) async fn flush(&self, store: &Store) {
        let times = self.take();
        for (done, chunk) in times.chunks(CHUNK).enumerate() {
            if let Err(error) = store.touch(chunk).await {
                rarely!(warn, %error, "could not record when devices were last seen; trying again");
                let oldest = self.lock().writing.take();
                self.merge(times.iter().skip(done * CHUNK).copied());
                // An older note of a device may be older than its newest.
                let mut pending = self.lock();
                pending.oldest = [pending.oldest, oldest].into_iter().flatten().min();
                return;
            }
        }
        self.lock().writing = None;
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
        let seen = Seen::new(Timestamp::UNIX_EPOCH);
        seen.merge([(1, 10), (2, 5), (1, 30), (1, 20)]);
        assert_eq!(seen.lock().times, HashMap::from([(1, 30), (2, 5)]));
        assert_eq!(seen.lock().oldest, Some(5));
        assert_eq!(seen.take().len(), 2);
        assert_eq!(seen.lock().oldest, None);
        assert_eq!(seen.lock().writing, Some(5), "what is being written is not written yet");
    }
}
