//! The watchers and the changes that they wait for. Kept in memory: when the process ends, watchers lose their
//! connections, and they validate when they reconnect.
//!
//! A watcher that does not read costs at most one entry for each id that it named: its hint is "these changed", and
//! repeated changes merge.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machineid_protocol::DeviceId;
use tokio::sync::{Notify, broadcast};

use crate::changes::Change;
use crate::org::OrgId;
use crate::plan::WatchPlaces;

/// The maximum number of watchers of all organisations. Each holds a connection.
const MOST: usize = 16_384;

/// The maximum number of ids collected for an observer; with more it is told that everything changed.
const MOST_IDS: usize = 1_000;

/// A change to tell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Changed<'a> {
    /// The decisions about these devices.
    Devices(&'a [DeviceId]),
    /// The decisions about all devices of the organisation.
    Org,
    /// The decisions about these devices, or all when none is named; they are denied now.
    Denied(Option<&'a [DeviceId]>),
    /// The organisation's keys, or its existence; every watcher must present its key again.
    Key,
    /// The sidecars' reports about these devices, or about any when none is named. Affects no decision.
    Reports(&'a [DeviceId]),
}

/// The kind of a watcher.
#[derive(Clone, Debug)]
pub(crate) enum Interest {
    /// A sidecar: the decisions about these devices.
    Devices(Vec<DeviceId>),
    /// A console or a command line: everything in the organisation.
    Everything,
}

/// A hint for a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Something about these devices changed; `denied` says whether they are denied now.
    Devices { ids: Vec<DeviceId>, denied: bool },
    /// Everything may have changed, or may be denied.
    All { denied: bool },
    /// The end of the stream: the key changed, or the server ends.
    End,
}

/// All watchers.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    // A std mutex: held while the watchers of a change are found, never across an await.
    watchers: Mutex<Watchers>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Watchers {
    orgs: HashMap<OrgId, OrgWatchers>,
    count: usize,
    closed: bool,
}

/// The watchers of one organisation.
#[derive(Debug, Default)]
struct OrgWatchers {
    all: HashMap<u64, Arc<Mailbox>>,
    observers: HashMap<u64, Arc<Mailbox>>,
    by_device: HashMap<DeviceId, Vec<u64>>,
    /// How many ids its watchers name, each as often as it is named.
    ids: usize,
}

#[derive(Debug, Default)]
struct Mailbox {
    pending: Mutex<Pending>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// The devices that are denied; each device is in one of the two sets.
    denied: BTreeSet<DeviceId>,
    devices: BTreeSet<DeviceId>,
    all: bool,
    all_denied: bool,
    end: bool,
}

/// The kind of change that a mailbox collects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChangeKind {
    Changed,
    Denied,
}

/// The maximum number of watchers is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A place among the watchers, freed when dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    hints: Arc<Hints>,
    org: OrgId,
    number: u64,
    interest: Interest,
    mailbox: Arc<Mailbox>,
}

impl Hints {
    /// Passes every change of the store on to the watchers, without end. The store tells a change after its commit, so
    /// a validation made because of a hint sees it.
    pub(crate) async fn follow(self: Arc<Self>, mut news: broadcast::Receiver<Change>) {
        loop {
            match news.recv().await {
                Ok(change) => self.tell(&change),
                Err(broadcast::error::RecvError::Lagged(_)) => self.everything(),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Tells every watcher affected by this change.
    pub(super) fn tell(&self, change: &Change) {
        match change {
            Change::Devices(org, devices) => self.changed(*org, Changed::Devices(devices)),
            Change::Org(org) => self.changed(*org, Changed::Org),
            Change::Denied(org, devices) => self.changed(*org, Changed::Denied(devices.as_deref())),
            Change::Reports(org, devices) => self.changed(*org, Changed::Reports(devices)),
            Change::Key(org) => self.changed(*org, Changed::Key),
            Change::Anything => self.everything(),
        }
    }

    /// Tells every watcher affected.
    pub(crate) fn changed(&self, org: OrgId, what: Changed<'_>) {
        let watchers = self.lock();
        let Some(org_watchers) = watchers.orgs.get(&org) else { return };
        match what {
            Changed::Devices(devices) => org_watchers.tell(devices, ChangeKind::Changed),
            Changed::Denied(Some(devices)) => org_watchers.tell(devices, ChangeKind::Denied),
            Changed::Reports([]) => {
                org_watchers.observers.values().for_each(|mailbox| mailbox.tell(|pending| pending.all = true));
            }
            Changed::Reports(devices) => {
                org_watchers.observers.values().for_each(|mailbox| mailbox.put(devices.iter(), ChangeKind::Changed));
            }
            Changed::Org => org_watchers.all.values().for_each(|mailbox| mailbox.tell(|pending| pending.all = true)),
            Changed::Denied(None) => {
                org_watchers.all.values().for_each(|mailbox| mailbox.tell(|pending| pending.all_denied = true));
            }
            Changed::Key => org_watchers.all.values().for_each(|mailbox| {
                mailbox.tell(|pending| {
                    pending.all_denied = true;
                    pending.end = true;
                });
            }),
        }
    }

    /// Changes may have been missed: every watcher validates again.
    fn everything(&self) {
        let watchers = self.lock();
        for org_watchers in watchers.orgs.values() {
            // The missed changes may include a deny.
            org_watchers.all.values().for_each(|mailbox| mailbox.tell(|pending| pending.all_denied = true));
            // And the end of a key. Devices' watchers only get hints to validate, and then find it out; those that are told
            // what changes have to come back with a key that is valid.
            org_watchers.observers.values().for_each(|mailbox| mailbox.tell(|pending| pending.end = true));
        }
    }

    /// Ends every watcher and accepts no new one: the server ends.
    pub(crate) fn close(&self) {
        let mut watchers = self.lock();
        watchers.closed = true;
        for org_watchers in watchers.orgs.values() {
            org_watchers.all.values().for_each(|mailbox| mailbox.tell(|pending| pending.end = true));
        }
    }

    /// Takes a place among those of the organisation. Fails when none is free.
    pub(crate) fn watch(
        self: &Arc<Self>,
        org: OrgId,
        interest: Interest,
        places: WatchPlaces,
    ) -> Result<Watcher, Full> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::<Mailbox>::default();
        let mut watchers = self.lock();
        let full = |org_watchers: &OrgWatchers| !org_watchers.has_room(&interest, places);
        if watchers.closed || watchers.count >= MOST || watchers.orgs.get(&org).is_some_and(full) {
            return Err(Full);
        }
        watchers.count += 1;
        let org_watchers = watchers.orgs.entry(org).or_default();
        org_watchers.all.insert(number, Arc::clone(&mailbox));
        match &interest {
            Interest::Everything => {
                org_watchers.observers.insert(number, Arc::clone(&mailbox));
            }
            Interest::Devices(devices) => {
                org_watchers.ids += devices.len();
                for device in devices {
                    org_watchers.by_device.entry(device.clone()).or_default().push(number);
                }
            }
        }
        drop(watchers);
        Ok(Watcher { hints: Arc::clone(self), org, number, interest, mailbox })
    }

    /// Whether there are no watchers.
    pub(super) fn has_no_watcher(&self) -> bool {
        self.lock().count == 0
    }

    fn leave(&self, org: OrgId, number: u64, interest: &Interest) {
        let mut watchers = self.lock();
        let Some(org_watchers) = watchers.orgs.get_mut(&org) else { return };
        if org_watchers.all.remove(&number).is_none() {
            return;
        }
        org_watchers.observers.remove(&number);
        if let Interest::Devices(devices) = interest {
            org_watchers.ids -= devices.len();
            for device in devices {
                if let Some(numbers) = org_watchers.by_device.get_mut(device) {
                    numbers.retain(|other| *other != number);
                    if numbers.is_empty() {
                        org_watchers.by_device.remove(device);
                    }
                }
            }
        }
        if org_watchers.all.is_empty() {
            watchers.orgs.remove(&org);
        }
        watchers.count -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OrgWatchers {
    /// Whether there is a place for one more. Those that look at everything have places of their own: a key that may only
    /// read cannot keep a sidecar from its hints.
    fn has_room(&self, interest: &Interest, places: WatchPlaces) -> bool {
        match interest {
            Interest::Everything => self.observers.len() < places.observers,
            Interest::Devices(devices) => {
                self.all.len() - self.observers.len() < places.sidecars && self.ids + devices.len() <= places.ids
            }
        }
    }

    /// Tells the watchers of these devices, and the observers.
    fn tell(&self, devices: &[DeviceId], kind: ChangeKind) {
        let mut concerned: HashMap<u64, Vec<&DeviceId>> = HashMap::new();
        for device in devices {
            for number in self.by_device.get(device).into_iter().flatten() {
                concerned.entry(*number).or_default().push(device);
            }
        }
        for (number, devices) in concerned {
            if let Some(mailbox) = self.all.get(&number) {
                mailbox.put(devices.into_iter(), kind);
            }
        }
        // An observer fetches what changed and does not distinguish a deny.
        self.observers.values().for_each(|mailbox| mailbox.put(devices.iter(), ChangeKind::Changed));
    }
}

impl Mailbox {
    fn put<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>, kind: ChangeKind) {
        self.tell(|pending| {
            for device in devices {
                // A device stays denied until that is told, even if it was restored meanwhile: the watcher validates.
                match kind {
                    ChangeKind::Denied => {
                        pending.devices.remove(device);
                        pending.denied.insert(device.clone());
                    }
                    ChangeKind::Changed if pending.denied.contains(device) => {}
                    ChangeKind::Changed => drop(pending.devices.insert(device.clone())),
                }
            }
            if pending.denied.len() > MOST_IDS {
                pending.denied.clear();
                pending.all_denied = true;
            }
            if pending.devices.len() > MOST_IDS {
                pending.devices.clear();
                pending.all = true;
            }
        });
    }

    fn tell(&self, what: impl FnOnce(&mut Pending)) {
        what(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }

    fn take(&self) -> Option<Hint> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut pending.all_denied) {
            pending.forget();
            return Some(Hint::All { denied: true });
        }
        // Denies first.
        if !pending.denied.is_empty() {
            let ids = std::mem::take(&mut pending.denied).into_iter().collect();
            return Some(Hint::Devices { ids, denied: true });
        }
        if pending.all {
            pending.forget();
            return Some(Hint::All { denied: false });
        }
        if !pending.devices.is_empty() {
            let ids = std::mem::take(&mut pending.devices).into_iter().collect();
            return Some(Hint::Devices { ids, denied: false });
        }
        pending.end.then_some(Hint::End)
    }
}

impl Pending {
    /// Clears what is told with the `All` hint.
    fn forget(&mut self) {
        self.denied.clear();
        self.devices.clear();
        self.all = false;
    }
}

impl Watcher {
    /// Waits for the next hint, with everything that changed since the last. Cancel-safe.
    pub(super) async fn next(&mut self) -> Hint {
        loop {
            if let Some(hint) = self.mailbox.take() {
                return hint;
            }
            self.mailbox.bell.notified().await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hints.leave(self.org, self.number, &self.interest);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const PLACES: WatchPlaces = WatchPlaces { sidecars: 5, observers: 2, ids: 12 };

    fn id(text: &str) -> DeviceId {
        text.parse().unwrap()
    }

    fn devices(ids: &[&str]) -> Interest {
        Interest::Devices(ids.iter().map(|text| id(text)).collect())
    }

    fn changed(ids: &[&str]) -> Hint {
        Hint::Devices { ids: ids.iter().map(|text| id(text)).collect(), denied: false }
    }

    fn told(watcher: &mut Watcher) -> Option<Hint> {
        watcher.next().now_or_never()
    }

    #[test]
    fn a_watcher_is_told_of_its_own_devices_once_each_and_of_no_others() {
        let (hints, org, other) = (Arc::<Hints>::default(), OrgId::random(), OrgId::random());
        let mut watcher = hints.watch(org, devices(&["a", "b"]), PLACES).unwrap();
        hints.changed(org, Changed::Devices(&[id("c")]));
        hints.changed(other, Changed::Devices(&[id("a")]));
        hints.changed(other, Changed::Org);
        hints.changed(org, Changed::Reports(&[id("a")]));
        assert_eq!(told(&mut watcher), None);
        hints.changed(org, Changed::Devices(&[id("b"), id("c"), id("a")]));
        hints.changed(org, Changed::Devices(&[id("a")]));
        assert_eq!(told(&mut watcher), Some(changed(&["a", "b"])));
        assert_eq!(told(&mut watcher), None);
        hints.changed(org, Changed::Org);
        assert_eq!(told(&mut watcher), Some(Hint::All { denied: false }));
    }

    #[test]
    fn a_deny_is_told_first_and_as_one_until_it_is_told() {
        let (hints, org) = (Arc::<Hints>::default(), OrgId::random());
        let mut watcher = hints.watch(org, devices(&["a", "b", "c"]), PLACES).unwrap();
        hints.changed(org, Changed::Devices(&[id("a"), id("b")]));
        hints.changed(org, Changed::Denied(Some(&[id("b")])));
        hints.changed(org, Changed::Devices(&[id("b")]));
        assert_eq!(told(&mut watcher), Some(Hint::Devices { ids: vec![id("b")], denied: true }));
        assert_eq!((told(&mut watcher), told(&mut watcher)), (Some(changed(&["a"])), None));
        hints.changed(org, Changed::Org);
        hints.changed(org, Changed::Denied(Some(&[id("c")])));
        assert_eq!(told(&mut watcher), Some(Hint::Devices { ids: vec![id("c")], denied: true }));
        assert_eq!((told(&mut watcher), told(&mut watcher)), (Some(Hint::All { denied: false }), None));
        hints.changed(org, Changed::Devices(&[id("a")]));
        hints.changed(org, Changed::Denied(None));
        assert_eq!((told(&mut watcher), told(&mut watcher)), (Some(Hint::All { denied: true }), None));
    }

    #[test]
    fn an_observer_is_told_of_everything_in_its_organisation() {
        let (hints, org) = (Arc::<Hints>::default(), OrgId::random());
        let mut observer = hints.watch(org, Interest::Everything, PLACES).unwrap();
        hints.changed(org, Changed::Reports(&[id("a")]));
        hints.changed(org, Changed::Devices(&[id("b")]));
        assert_eq!(told(&mut observer), Some(changed(&["a", "b"])));
        let many: Vec<DeviceId> = (0..=MOST_IDS).map(|n| id(&format!("d{n}"))).collect();
        hints.changed(org, Changed::Devices(&many));
        assert_eq!(told(&mut observer), Some(Hint::All { denied: false }));
    }

    #[test]
    fn a_new_key_tells_everybody_to_look_and_then_ends_them() {
        let (hints, org) = (Arc::<Hints>::default(), OrgId::random());
        let mut watcher = hints.watch(org, devices(&["a"]), PLACES).unwrap();
        hints.changed(org, Changed::Key);
        assert_eq!((told(&mut watcher), told(&mut watcher)), (Some(Hint::All { denied: true }), Some(Hint::End)));
    }

    #[test]
    fn who_leaves_leaves_nothing_behind_and_places_are_counted() {
        let (hints, org) = (Arc::<Hints>::default(), OrgId::random());
        let sidecars: Vec<_> =
            (0..PLACES.sidecars).map(|_| hints.watch(org, devices(&["a", "b"]), PLACES).unwrap()).collect();
        assert_eq!(hints.watch(org, devices(&["a"]), PLACES).unwrap_err(), Full);
        let observers: Vec<_> =
            (0..PLACES.observers).map(|_| hints.watch(org, Interest::Everything, PLACES).unwrap()).collect();
        assert_eq!(hints.watch(org, Interest::Everything, PLACES).unwrap_err(), Full);
        drop(sidecars);
        let large = hints.watch(org, devices(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]), PLACES).unwrap();
        assert_eq!(hints.watch(org, devices(&["a", "b", "c"]), PLACES).unwrap_err(), Full, "too many ids");
        let elsewhere = hints.watch(OrgId::random(), Interest::Everything, PLACES).unwrap();
        drop((large, observers, elsewhere));
        let left = hints.lock();
        assert!(left.orgs.is_empty() && left.count == 0, "{left:?}");
    }

    #[test]
    fn a_server_that_ends_accepts_no_watcher() {
        let (hints, org) = (Arc::<Hints>::default(), OrgId::random());
        let mut watcher = hints.watch(org, Interest::Everything, PLACES).unwrap();
        hints.close();
        assert_eq!(told(&mut watcher), Some(Hint::End));
        assert_eq!(hints.watch(org, Interest::Everything, PLACES).unwrap_err(), Full);
    }
}
