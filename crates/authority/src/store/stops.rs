//! Stops, which are in force whether or not the database takes them; and what waits for them to be written.
//!
//! A stop is written first. When that fails in any way, or takes too long, it is in force at this server at once: in
//! memory, in the reserve file, and by a hint to all watchers. Which kind of failure it is does not matter: of none is it
//! known that no validation says ALLOW meanwhile. While the database cannot be *read* either, nothing is allowed anyway.

use std::collections::HashMap;
use std::time::Duration;

use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;
use tracing::warn;

use super::super::audit::{Call, Verb};
use super::super::batch::Named;
use super::super::changes::Change;
use super::super::health::Finding;
use super::super::keys::KeyMark;
use super::super::org::OrgId;
use super::super::plan::{self, Account};
use super::super::unwritten::{InForce, NotWritten, Stop, UnwrittenStop};
use super::{Backend, Filter, KeyChange, KeyRefusal, OrgChange, Store, StoreError, Suspensions, WhichKey};

/// How long a stop may take to be written before it is in force without the database: longer than a statement waits for a
/// lock, and than a commit for a standby, whose end has to be known.
const WRITTEN: Duration = Duration::from_secs(3);
const WRITTEN_POSTGRES: Duration = Duration::from_secs(8);

/// How long a read may take that says what a stop is about.
const READ: Duration = Duration::from_secs(2);

impl Store {
    /// Revokes each device of a batch. `None` when the organisation was deleted.
    pub(crate) async fn stop_devices(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<InForce<(Suspensions, Account)>>, StoreError> {
        match self.write_in_time(self.revoke(org, batch, verb, call)).await {
            Ok(done) => {
                Ok(done
                    .map(|(outcomes, account)| InForce::written((outcomes, self.unwritten.overlay().account(account)))))
            }
            Err(error) => self.stop_devices_unwritten(org, batch, verb, call, &error).await,
        }
    }

    async fn stop_devices_unwritten(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
        error: &StoreError,
    ) -> Result<Option<InForce<(Suspensions, Account)>>, StoreError> {
        let ids: Vec<DeviceId> = batch.iter().filter_map(|named| named.id.clone()).collect();
        let filter = Filter { among: Some(ids.clone()), ..Filter::default() };
        let (known, readable) = match self.readable(self.list(org, &filter)).await {
            Ok(None) => return Ok(None),
            Ok(Some((page, _))) => {
                let status = |revoked: bool| if revoked { DeviceStatus::Revoked } else { DeviceStatus::Active };
                let one =
                    |device: super::ListedDevice| Some((device.id.parse().ok()?, status(device.revoked_at.is_some())));
                (page.devices.into_iter().filter_map(one).collect::<HashMap<_, _>>(), true)
            }
            // What cannot be looked up may exist.
            Err(_) => (ids.iter().map(|id| (id.clone(), DeviceStatus::Active)).collect(), false),
        };
        let (outcomes, changed) = plan::suspend_batch(batch, &known);
        // Those that were revoked before are told again, as ever.
        let stopped = plan::suspended(batch, &outcomes);
        // A repeated stop changes no device, but makes a restore void that waits for a second key.
        let account = self.readable(self.account(org)).await;
        let counts = account
            .as_ref()
            .map_or(true, |account| account.as_ref().is_none_or(|account| account.org.restore_needs > 1));
        let ids_to_stop = if counts { stopped.clone() } else { changed };
        let news = Change::Denied(org, Some(stopped));
        let stop = Stop::Devices { ids: ids_to_stop, batch: verb != Verb::Revoke };
        let unwritten = self.put(org, stop, news, call, error).await;
        let only = || StoreError::OnlyStopped(unwritten.clone());
        if !readable {
            return Err(only());
        }
        let account = account.map_err(|_| only())?;
        // Nothing waits of devices that are unknown, or revoked in the database already.
        let overlay = self.unwritten.overlay();
        let waits = |id: &DeviceId| known.contains_key(id) && overlay.of(org).is_some_and(|stops| stops.revokes(id));
        let unwritten = ids.iter().any(waits).then_some(unwritten);
        Ok(account.map(|account| InForce { done: (outcomes, account), unwritten }))
    }

    /// Revokes all active devices and returns how many there were.
    pub(crate) async fn stop_all(
        &self,
        org: OrgId,
        call: &Call,
    ) -> Result<Option<InForce<(u64, Account)>>, StoreError> {
        let error = match self.write_in_time(self.revoke_all(org, call)).await {
            Ok(done) => return Ok(done.map(InForce::written)),
            Err(error) => error,
        };
        let before = self.readable(self.account(org)).await;
        if matches!(before, Ok(None)) {
            return Ok(None);
        }
        let unwritten = self.put(org, Stop::AllActive, Stop::AllActive.news(org), call, &error).await;
        match before {
            Ok(Some(before)) => {
                let done = (before.used, Account { used: 0, ..before });
                Ok(Some(InForce { done, unwritten: Some(unwritten) }))
            }
            Ok(None) | Err(_) => Err(StoreError::OnlyStopped(unwritten)),
        }
    }

    /// Changes an organisation, by a change that may be a stop. `None` as of [`Self::change_org`].
    pub(crate) async fn order(
        &self,
        org: OrgId,
        change: &OrgChange,
        call: &Call,
    ) -> Result<Option<InForce<Account>>, StoreError> {
        let seen =
            |done: Option<Account>| done.map(|account| InForce::written(self.unwritten.overlay().account(account)));
        let Some(stop) = Stop::of(change, call.at) else {
            self.caught_up(Some(org)).await?;
            return self.change_org(org, change, call).await.map(seen);
        };
        let written = async {
            if let OrgChange::Key(..) = change {
                // A rotation that waits comes first: this one's key is the one that stays.
                self.caught_up(Some(org)).await?;
            }
            self.change_org(org, change, call).await
        };
        let error = match self.write_in_time(written).await {
            Ok(done) => return Ok(seen(done)),
            Err(refusal) if refusal.is_refusal() => return Err(refusal),
            Err(error) => error,
        };
        let before = self.readable(self.account(org)).await;
        if matches!(before, Ok(None)) {
            return Ok(None);
        }
        let news = stop.news(org);
        let unwritten = self.put(org, stop, news, call, &error).await;
        match before {
            Ok(Some(before)) => {
                Ok(Some(InForce { done: self.unwritten.overlay().org_of(before), unwritten: Some(unwritten) }))
            }
            Ok(None) | Err(_) => Err(StoreError::OnlyStopped(unwritten)),
        }
    }

    /// Ends a key with a role, now.
    pub(crate) async fn stop_key(
        &self,
        org: OrgId,
        which: &WhichKey,
        call: &Call,
    ) -> Result<KeyChange<InForce<Vec<KeyMark>>>, StoreError> {
        let error = match self.write_in_time(self.revoke_key(org, which, call)).await {
            Ok(done) => return Ok(done.map(InForce::written)),
            Err(error) => error,
        };
        let Ok(rows) = self.readable(self.keys(org)).await else {
            let stop = Stop::Keys(vec![which.clone()]);
            return Err(StoreError::OnlyStopped(self.put(org, stop, Change::Key(org), call, &error).await));
        };
        let Some(rows) = rows else { return Ok(Err(KeyRefusal::NoOrg)) };
        let meant: Vec<_> = rows
            .into_iter()
            .filter(|row| match which {
                WhichKey::Mark(mark) => row.mark == *mark,
                WhichKey::Name(name) => row.held.name.as_ref() == Some(name),
            })
            .collect();
        if meant.iter().any(|row| row.held.own) {
            return Ok(Err(KeyRefusal::Own));
        }
        if meant.is_empty() {
            return Ok(Err(KeyRefusal::Unknown));
        }
        // A name means the keys that have it now, not one that is made later.
        let marks: Vec<KeyMark> = meant.iter().map(|row| row.mark).collect();
        let stop = Stop::Keys(marks.iter().copied().map(WhichKey::Mark).collect());
        let unwritten = self.put(org, stop, Change::Key(org), call, &error).await;
        Ok(Ok(InForce { done: marks, unwritten: Some(unwritten) }))
    }

    /// Ends the key of a rotation without an overlap. The new key needs the database.
    pub(super) async fn end_key_without(
        &self,
        org: OrgId,
        which: &WhichKey,
        call: &Call,
        error: StoreError,
    ) -> StoreError {
        match self.stop_key(org, which, call).await {
            Ok(Ok(InForce { unwritten: Some(unwritten), done: _ })) => StoreError::OnlyStopped(unwritten),
            Ok(Ok(InForce { unwritten: None, done: _ }) | Err(_)) => error,
            Err(stopped) => stopped,
        }
    }

    /// Puts a stop into force without the database, tells the watchers, and writes it to the reserve file.
    async fn put(&self, org: OrgId, stop: Stop, news: Change, call: &Call, error: &StoreError) -> NotWritten {
        self.doubt.notify_one();
        let why = error.in_words().into_owned();
        let nothing = matches!(&stop, Stop::Devices { ids, .. } if ids.is_empty());
        // Of several servers, another one may have given back what this one stopped before: then the repeated stop counts.
        let alone = match &self.backend {
            Backend::Sqlite(_) => true,
            Backend::Postgres(_) => false,
        };
        let covered = nothing || (alone && self.unwritten.overlay().of(org).is_some_and(|stops| stops.covers(&stop)));
        if covered {
            self.changes.tell(news);
            // It is as safe as those that it repeats.
            return NotWritten { kept: self.unwritten.counts().1 == 0, why };
        }
        warn!(%org, %error, "a stop could not be written");
        let number = self.unwritten.put(UnwrittenStop { org, stop, call: call.clone() });
        self.changes.tell(news);
        NotWritten { kept: self.unwritten.keep(number).await, why }
    }

    /// A write of a stop, with a time limit.
    async fn write_in_time<T>(&self, write: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let time = match &self.backend {
            Backend::Sqlite(_) => WRITTEN,
            Backend::Postgres(_) => WRITTEN_POSTGRES,
        };
        tokio::time::timeout(time, write).await.unwrap_or(Err(StoreError::Late))
    }

    async fn readable<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(READ, read).await.unwrap_or(Err(StoreError::Late))
    }

    /// Writes the stops that wait, in their order; those of an organisation after one that fails are left for later.
    /// Returns the last failure.
    pub(crate) async fn write_stops(&self, org: Option<OrgId>) -> Result<(), StoreError> {
        if self.unwritten.waiting(org).is_empty() {
            return Ok(());
        }
        let _turn = self.late_writer.lock().await;
        self.write_waiting(org).await
    }

    /// The same for a request that need not wait for it: not while another task does it.
    pub(super) async fn try_to_write_stops(&self, org: OrgId) {
        if !self.unwritten.waiting(Some(org)).is_empty()
            && let Ok(_turn) = self.late_writer.try_lock()
        {
            let _ = self.write_waiting(Some(org)).await;
        }
    }

    async fn write_waiting(&self, org: Option<OrgId>) -> Result<(), StoreError> {
        let (mut failed, mut last) = (Vec::new(), Ok(()));
        for (number, stop) in self.unwritten.waiting(org) {
            if failed.contains(&stop.org) {
                continue;
            }
            match self.write_in_time(self.write_late(&stop)).await {
                Ok(()) => self.unwritten.written(number).await,
                Err(error) => {
                    failed.push(stop.org);
                    last = Err(error);
                }
            }
        }
        last
    }

    /// Fails while stops of this organisation, or of any, cannot be written: what could give something back is done after
    /// them or not at all.
    pub(super) async fn caught_up(&self, org: Option<OrgId>) -> Result<(), StoreError> {
        self.write_stops(org).await.map_err(|error| StoreError::StopsWait(error.in_words().into_owned()))
    }

    /// Whether stops wait to be written.
    pub(crate) fn stops_wait(&self) -> bool {
        self.unwritten.counts() != (0, 0)
    }

    /// How many stops wait to be written: those that a restart keeps, and those in memory alone.
    pub(crate) fn unwritten_stops(&self) -> (usize, usize) {
        self.unwritten.counts()
    }

    /// How many stops of this organisation wait to be written.
    pub(crate) fn unwritten_stops_of(&self, org: OrgId) -> usize {
        self.unwritten.overlay().of(org).map_or(0, |stops| stops.stops)
    }

    /// Writes what waits, keeps the reserve file usable, and says what is wrong.
    pub(crate) async fn examine_stops(&self) -> Finding {
        // Its failure is that of the next test write.
        let _ = self.write_stops(None).await;
        self.unwritten.mend_reserve().await;
        self.unwritten.examine()
    }
}
