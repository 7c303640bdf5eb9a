//! Which sidecars validated which devices, of what the store does not have yet. Kept in memory and written every second, since
//! a validation must not wait for a disk; a report takes along what is known of its sidecar, so that a confirmation counts at
//! once.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::report::SidecarId;
use tokio_util::sync::CancellationToken;

use super::org::OrgId;
use super::repeated::rarely;
use super::store::Store;

/// The interval between writes.
const INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two writes about one sidecar and device, in microseconds. The first deny of a revoke is written
/// at once.
const PERIOD: i64 = 60_000_000;

/// The maximum number of pairs that wait to be written, and of those whose last write is remembered: a key's holder can make
/// up any number of sidecars. Beyond the first, a validation proves nothing; beyond the second, some are written sooner.
const MOST_WAITING: usize = 64 * 1024;
const MOST_REMEMBERED: usize = 256 * 1024;

/// The maximum number of pairs of one organisation that wait: its keys' holders take no other one's.
const MOST_OF_ORG: usize = MOST_WAITING / 8;

/// How many go into one transaction: a revoke that arrives meanwhile waits for at most one of these.
const CHUNK: usize = 1_000;

/// A sidecar that validated a device of an organisation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pair {
    // In the order in which reports are written: with one order on every server, two servers cannot deadlock.
    pub(crate) org: OrgId,
    pub(crate) sidecar: SidecarId,
    pub(crate) device: DeviceId,
}

/// A validation by a sidecar that proved itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Proof {
    pub(crate) pair: Pair,
    /// The time, in microseconds since 1970. After a deny, at least the time of the revoke, by whichever server's clock.
    pub(crate) at: i64,
}

/// The proofs that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    // A std mutex: held for one insertion or one sidecar's proofs, never across an await.
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    waiting: HashMap<(OrgId, SidecarId), BTreeMap<DeviceId, i64>>,
    count: usize,
    of_orgs: HashMap<OrgId, usize>,
    written: HashMap<Pair, i64>,
}

impl Pending {
    fn note(&mut self, pair: Pair, at: i64, revoked_at: Option<i64>) {
        let at = revoked_at.map_or(at, |revoked_at| at.max(revoked_at));
        let known = self.written.get(&pair).copied();
        let known_enough =
            known.is_some_and(|known| at < known + PERIOD && revoked_at.is_none_or(|stamp| stamp <= known));
        if !known_enough {
            self.add(pair, at);
        }
    }

    fn add(&mut self, Pair { org, sidecar, device }: Pair, at: i64) {
        let of_org = self.of_orgs.get(&org).copied().unwrap_or(0);
        let full = self.count >= MOST_WAITING || of_org >= MOST_OF_ORG;
        if full && !self.waiting.get(&(org, sidecar)).is_some_and(|devices| devices.contains_key(&device)) {
            return;
        }
        let devices = self.waiting.entry((org, sidecar)).or_default();
        let before = devices.len();
        let newest = devices.entry(device).or_insert(at);
        *newest = at.max(*newest);
        let added = devices.len() - before;
        self.count += added;
        *self.of_orgs.entry(org).or_default() += added;
    }

    fn take(&mut self) -> Vec<Proof> {
        self.count = 0;
        self.of_orgs.clear();
        let all = mem::take(&mut self.waiting).into_iter();
        let all = all.flat_map(|((org, sidecar), devices)| {
            devices.into_iter().map(move |(device, at)| Proof { pair: Pair { org, sidecar, device }, at })
        });
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    }

    fn has_written(&mut self, proofs: &[Proof]) {
        if self.written.len() + proofs.len() > MOST_REMEMBERED {
            self.written.clear();
        }
        self.written.extend(proofs.iter().map(|proof| (proof.pair.clone(), proof.at)));
    }
}

impl Proofs {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sidecar that proved itself validated the device at `at`; `revoked_at` is the revoke's time when the answer was a deny
    /// because of one.
    pub(super) fn note(&self, pair: Pair, at: Timestamp, revoked_at: Option<Timestamp>) {
        self.lock().note(pair, at.as_microsecond(), revoked_at.map(Timestamp::as_microsecond));
    }

    /// What is not written yet of this sidecar's validations.
    pub(super) fn of(&self, org: OrgId, sidecar: SidecarId) -> Vec<Proof> {
        let pending = self.lock();
        let devices = pending.waiting.get(&(org, sidecar)).into_iter().flatten();
        devices.map(|(device, at)| Proof { pair: Pair { org, device: device.clone(), sidecar }, at: *at }).collect()
    }

    /// Writes what waits. A failure is logged and retried next time; no decision depends on it.
    pub(super) async fn flush(&self, store: &Store) {
        let proofs = self.lock().take();
        for (done, chunk) in proofs.chunks(CHUNK).enumerate() {
            if let Err(error) = store.save_proofs(chunk).await {
                rarely!(warn, %error, "cannot record which sidecars validated devices; retrying");
                let mut pending = self.lock();
                for Proof { pair, at } in proofs.into_iter().skip(done * CHUNK) {
                    pending.add(pair, at);
                }
                return;
            }
            self.lock().has_written(chunk);
        }
    }

    /// Writes every second until `stop`.
    pub(super) async fn keep_writing(&self, store: &Store, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.flush(store).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(sidecar: u128) -> Pair {
        Pair {
            org: "1b4e28ba-2fa1-41d2-883f-0016d3cca427".parse().unwrap(),
            device: "a".parse().unwrap(),
            sidecar: SidecarId::random(sidecar),
        }
    }

    #[test]
    fn a_pair_is_written_once_a_minute_and_at_once_when_a_revoke_is_new_to_it() {
        let mut pending = Pending::default();
        let mut written = |at, revoked_at| {
            pending.note(pair(1), at, revoked_at);
            let taken = pending.take();
            pending.has_written(&taken);
            taken.first().map(|proof| proof.at)
        };
        assert_eq!(written(5, None), Some(5));
        assert_eq!(written(PERIOD + 4, None), None);
        assert_eq!(written(PERIOD + 4, Some(7)), Some(PERIOD + 4));
        assert_eq!(written(PERIOD + 5, Some(7)), None);
        assert_eq!(written(2 * PERIOD + 4, None), Some(2 * PERIOD + 4));
        let by_a_clock_that_is_ahead = 2 * PERIOD + 90;
        assert_eq!(written(2 * PERIOD + 8, Some(by_a_clock_that_is_ahead)), Some(by_a_clock_that_is_ahead));
        assert_eq!(written(2 * PERIOD + 9, Some(by_a_clock_that_is_ahead)), None);
    }

    #[test]
    fn sidecars_that_a_keys_holder_makes_up_fill_no_memory_and_stop_no_known_pair() {
        let mut pending = Pending::default();
        for sidecar in 0..=MOST_OF_ORG as u128 {
            pending.note(pair(sidecar), 1, None);
        }
        assert_eq!(pending.count, MOST_OF_ORG);
        let of_another = Pair { org: OrgId::random(), ..pair(0) };
        pending.note(of_another.clone(), 1, None);
        assert_eq!(pending.count, MOST_OF_ORG + 1, "another organisation's place is its own");
        pending.waiting.remove(&(of_another.org, of_another.sidecar));
        pending.note(pair(0), 2, None);
        let taken = pending.take();
        assert_eq!((taken.len(), taken[0].at, pending.count), (MOST_OF_ORG, 2, 0));
        for round in 0..6 {
            let many: Vec<_> =
                (0..MOST_WAITING as u128).map(|low| Proof { pair: pair(low + (round << 64)), at: 1 }).collect();
            pending.has_written(&many);
        }
        assert!(pending.written.len() <= MOST_REMEMBERED);
    }
}
