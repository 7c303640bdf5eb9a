//! The times of the devices' last validations, and the keys used. Kept in memory and written every second, since a
//! validation must not wait for a disk.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::keys::KeyMark;
use super::repeated::rarely;
use super::reports::Notes;
use super::store::{LastSeen, Store};

/// The interval between writes.
const PERIOD: Duration = Duration::from_secs(1);

/// How many times go into one transaction: a revoke that arrives meanwhile waits for at most one of these.
const CHUNK: usize = 5_000;

/// The times that are not written yet, by the devices' numbers in the store. At most one for each device.
/// The shortest time between two writes of one key's use, in microseconds.
const KEY_PERIOD: i64 = 60_000_000;

/// The maximum number of keys whose last write is remembered. Beyond it some are written sooner.
const KEYS_REMEMBERED: usize = 100_000;

#[derive(Debug)]
pub(super) struct SeenDevices {
    // A std mutex: held for one insertion, never across an await.
    pending: Mutex<Pending>,
    /// The start of this server: what an earlier one had not written before it died is lost.
    began: Timestamp,
}

#[derive(Debug, Default)]
struct Pending {
    /// When each key was used last, but for validations that are in `all`.
    keys: BTreeMap<KeyMark, i64>,
    /// The last written use of each key.
    keys_written: HashMap<KeyMark, i64>,
    all: HashMap<i64, LastSeen>,
    /// The oldest time added since everything was last written, in microseconds since 1970.
    oldest: Option<i64>,
    /// The oldest of the times that are being written.
    writing: Option<i64>,
}

impl Pending {
    /// The uses of keys that are to be written, these validations' included: of each key one a minute, in the order of the
    /// marks. With one order on every server, two servers cannot deadlock.
    fn take_keys(&mut self, validations: &[LastSeen]) -> Vec<(KeyMark, i64)> {
        for seen in validations {
            self.use_key(seen.key, seen.at);
        }
        let mut used: Vec<_> = mem::take(&mut self.keys).into_iter().collect();
        used.retain(|(key, at)| self.keys_written.get(key).is_none_or(|written| *at >= written + KEY_PERIOD));
        if self.keys_written.len() > KEYS_REMEMBERED {
            self.keys_written.clear();
        }
        self.keys_written.extend(used.iter().copied());
        used
    }

    fn use_key(&mut self, key: KeyMark, at: i64) {
        let newest = self.keys.entry(key).or_insert(at);
        *newest = at.max(*newest);
    }
}

impl SeenDevices {
    pub(super) fn new(began: Timestamp) -> Self {
        Self { pending: Mutex::default(), began }
    }

    /// How complete the written record of validations is.
    pub(super) fn notes(&self, now: Timestamp) -> Notes {
        let pending = self.lock();
        let oldest = [pending.oldest, pending.writing].into_iter().flatten().min();
        Notes::of(now, self.began, oldest.and_then(|at| Timestamp::from_microsecond(at).ok()))
    }

    /// Whether some times could not be written for longer than `bound`: then the store's record of when devices were
    /// seen is incomplete.
    pub(super) fn late(&self, now: Timestamp, bound: Duration) -> bool {
        let pending = self.lock();
        let oldest = [pending.oldest, pending.writing].into_iter().flatten().min();
        let bound = now.saturating_sub(bound).unwrap_or(Timestamp::MIN);
        oldest.is_some_and(|oldest| oldest < bound.as_microsecond())
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the device `seq` asked at `at` with this key.
    pub(super) fn note(&self, seq: i64, at: Timestamp, key: KeyMark) {
        self.merge([LastSeen { seq, at: at.as_microsecond(), key }]);
    }

    /// A request that is no validation of a known device came with this key at `at`.
    pub(super) fn used(&self, key: KeyMark, at: Timestamp) {
        self.lock().use_key(key, at.as_microsecond());
    }

    fn merge(&self, all: impl IntoIterator<Item = LastSeen>) {
        let mut pending = self.lock();
        for seen in all {
            pending.oldest = Some(pending.oldest.map_or(seen.at, |oldest| oldest.min(seen.at)));
            let newest = pending.all.entry(seen.seq).or_insert(seen);
            if seen.at >= newest.at {
                *newest = seen;
            }
        }
    }

    /// Takes the pending times, which then count as being written.
    fn take(&self) -> Vec<LastSeen> {
        let mut pending = self.lock();
        pending.writing = pending.oldest.take();
        mem::take(&mut pending.all).into_values().collect()
    }

    /// Writes the pending times. A failure is logged and retried next time; no decision depends on it.
    pub(super) async fn flush(&self, store: &Store) {
        let times = self.take();
        for (done, chunk) in times.chunks(CHUNK).enumerate() {
            if let Err(error) = store.touch(chunk).await {
                rarely!(warn, %error, "cannot record when devices were last seen; retrying");
                let oldest = self.lock().writing.take();
                self.merge(times.iter().skip(done * CHUNK).copied());
                // The time being written may be older than one added meanwhile.
                let mut pending = self.lock();
                pending.oldest = [pending.oldest, oldest].into_iter().flatten().min();
                return;
            }
        }
        self.lock().writing = None;
        self.flush_keys(store, &times).await;
    }

    /// Writes when keys were last used, after the times, which are promised sooner.
    async fn flush_keys(&self, store: &Store, validations: &[LastSeen]) {
        let used = self.lock().take_keys(validations);
        if used.is_empty() {
            return;
        }
        if let Err(error) = store.note_keys(&used).await {
            rarely!(warn, %error, "cannot record when keys were last used; retrying at their next use");
            let mut pending = self.lock();
            for (key, _) in &used {
                pending.keys_written.remove(key);
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
    fn the_use_of_a_key_is_written_once_a_minute_whatever_it_was_used_for() {
        let seen = SeenDevices::new(Timestamp::UNIX_EPOCH);
        let minute = KEY_PERIOD;
        let validation = |at, key| LastSeen { seq: 1, at, key: [key; 6] };
        let take = |validations: &[LastSeen]| seen.lock().take_keys(validations);
        seen.used([2; 6], Timestamp::from_microsecond(5).unwrap());
        assert_eq!(take(&[validation(9, 1), validation(7, 1)]), [([1; 6], 9), ([2; 6], 5)]);
        assert_eq!(take(&[validation(9 + minute - 1, 1)]), []);
        assert_eq!(take(&[validation(9 + minute, 1)]), [([1; 6], 9 + minute)]);
        assert_eq!(take(&[]), []);
    }

    #[test]
    fn the_newest_time_of_each_device_is_kept_with_its_key() {
        let seen = SeenDevices::new(Timestamp::UNIX_EPOCH);
        let last = |seq, at, key| LastSeen { seq, at, key: [key; 6] };
        seen.merge([last(1, 10, 1), last(2, 5, 1), last(1, 30, 2), last(1, 20, 1)]);
        assert_eq!(seen.lock().all, HashMap::from([(1, last(1, 30, 2)), (2, last(2, 5, 1))]));
        assert_eq!(seen.lock().oldest, Some(5));
        assert_eq!(seen.take().len(), 2);
        assert_eq!(seen.lock().oldest, None);
        assert_eq!(seen.lock().writing, Some(5), "what is being written is not written yet");
    }

    #[test]
    fn notes_that_were_not_written_for_a_time_are_late_while_they_are_written_too() {
        let seen = SeenDevices::new(Timestamp::UNIX_EPOCH);
        let at = |second| Timestamp::from_second(second).unwrap();
        let late = |second| seen.late(at(second), Duration::from_mins(1));
        assert!(!late(1000));
        seen.note(1, at(100), [0; 6]);
        assert!(!late(160) && late(161));
        seen.take();
        seen.note(1, at(155), [0; 6]);
        assert!(late(161));
        seen.lock().writing = None;
        assert!(!late(161) && late(216));
    }
}
