//! Stops, which are in force whether or not the database takes them; and what waits for them to be written.
//!
//! A stop is written first. When that fails in any way, or takes too long, it is in force at this server at once: in
//! memory, by a hint to all watchers, and then in the reserve file. What it is about is read only after that. Which kind of failure it is does not matter: of none is it
//! known that no validation says ALLOW meanwhile. While the database cannot be *read* either, nothing is allowed anyway.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;
use tracing::warn;

use super::super::audit::{Call, Verb};
use super::super::batch::Named;
use super::super::health::Finding;
use super::super::keys::KeyMark;
use super::super::org::OrgId;
use super::super::plan::{self, Account};
use super::super::unwritten::{InForce, NotWritten, Overlay, StopScope, UnwrittenStop};
use super::{Backend, Filter, KeyChange, KeyRefusal, KeyRow, OrgChange, Store, StoreError, Suspensions, WhichKey};

/// How long a stop may take to be written before it is in force without the database: longer than a statement waits for a
/// lock, and than a commit for a standby, whose end has to be known.
const WRITTEN: Duration = Duration::from_secs(3);
const WRITTEN_POSTGRES: Duration = Duration::from_secs(8);

/// How long a read may delay a stop.
const MENTIONED: Duration = Duration::from_millis(500);

/// How long a read may take that says what a stop is about, which is in force meanwhile.
const READ: Duration = Duration::from_secs(2);

/// A stop that is in force in memory.
#[derive(Debug)]
struct Placed {
    org: OrgId,
    number: u64,
    stop: StopScope,
    /// What was in force before it.
    before: Arc<Overlay>,
    /// Why the database did not take it.
    why: String,
}

/// The marks of the keys with roles that are meant.
fn marks(rows: Option<Vec<KeyRow>>, which: &WhichKey) -> Result<Vec<KeyMark>, KeyRefusal> {
    let mut rows = rows.ok_or(KeyRefusal::NoOrg)?;
    rows.retain(|row| match which {
        WhichKey::Mark(mark) => row.mark == *mark,
        WhichKey::Name(name) => row.held.name.as_ref() == Some(name),
    });
    if rows.iter().any(|row| row.held.own) {
        return Err(KeyRefusal::Own);
    }
    if rows.is_empty() { Err(KeyRefusal::Unknown) } else { Ok(rows.iter().map(|row| row.mark).collect()) }
}

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
        let of = |ids| StopScope::Devices { ids, batch: verb != Verb::Revoke };
        // What cannot be looked up may exist.
        let placed = self.put(org, of(ids.clone()), call, error);
        let filter = Filter { among: Some(ids), ..Filter::default() };
        let found = self.readable(self.list_under(Arc::clone(&placed.before), org, &filter)).await;
        let (page, account) = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.unwritten.forget(placed.number);
                return Ok(None);
            }
            Err(_) => return Err(StoreError::OnlyStopped(self.settle(placed, None).await)),
        };
        let listed = page.devices.into_iter();
        let listed: Vec<(DeviceId, i64, _)> =
            listed.filter_map(|one| Some((one.id.parse().ok()?, one.seq, one.revoked_at))).collect();
        let status = |revoked: bool| if revoked { DeviceStatus::Revoked } else { DeviceStatus::Active };
        let known: HashMap<DeviceId, _> = listed.iter().map(|(id, _, at)| (id.clone(), status(at.is_some()))).collect();
        let (outcomes, changed) = plan::suspend_batch(batch, &known);
        let counted = changed.len() as u64;
        // A repeated stop changes no device, but makes a restore void that waits for a second key.
        let repeated = account.org.restore_needs > 1;
        let ids = if repeated { plan::suspended(batch, &outcomes) } else { changed };
        let unwritten = self.settle(placed, Some((of(ids), counted))).await;
        // Nothing waits of devices that are unknown, or revoked in the database already.
        let overlay = self.unwritten.overlay();
        let waits = |(id, seq, _): &(DeviceId, i64, _)| {
            overlay.of(org).is_some_and(|stops| stops.revoke_of(id, *seq).is_some())
        };
        let unwritten = listed.iter().any(waits).then_some(unwritten);
        let account = Account { used: account.used.saturating_sub(counted), ..account };
        Ok(Some(InForce { done: (outcomes, overlay.org_of(account)), unwritten }))
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
        let placed = self.put(org, StopScope::AllActive { newest: None }, call, &error);
        match self.readable(self.newest(org)).await {
            Ok(Some((account, newest))) => {
                let account = placed.before.account(account);
                let stop = StopScope::AllActive { newest: Some(newest) };
                let unwritten = Some(self.settle(placed, Some((stop, account.used))).await);
                Ok(Some(InForce { done: (account.used, Account { used: 0, ..account }), unwritten }))
            }
            Ok(None) => {
                self.unwritten.forget(placed.number);
                Ok(None)
            }
            Err(_) => Err(StoreError::OnlyStopped(self.settle(placed, None).await)),
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
        let Some(stop) = StopScope::of(change, call.at) else {
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
        let placed = self.put(org, stop, call, &error);
        match self.readable(self.account(org)).await {
            Ok(Some(done)) => Ok(Some(InForce { done, unwritten: Some(self.settle(placed, None).await) })),
            Ok(None) => {
                self.unwritten.forget(placed.number);
                Ok(None)
            }
            Err(_) => Err(StoreError::OnlyStopped(self.settle(placed, None).await)),
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
        let placed = self.put(org, StopScope::Keys(vec![which.clone()]), call, &error);
        let meant = match self.readable(self.keys(org)).await {
            Ok(rows) => marks(rows, which),
            Err(_) => return Err(StoreError::OnlyStopped(self.settle(placed, None).await)),
        };
        let marks = match meant {
            Ok(marks) => marks,
            Err(refusal) => {
                self.unwritten.forget(placed.number);
                return Ok(Err(refusal));
            }
        };
        // A name means the keys that have it now, not one that is made later.
        let stop = StopScope::Keys(marks.iter().copied().map(WhichKey::Mark).collect());
        let unwritten = self.settle(placed, Some((stop, 0))).await;
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

    /// Puts a stop into force without the database, at once, and tells the watchers. What it is about may be read afterwards:
    /// it then becomes what was read, by [`Self::settle`].
    fn put(&self, org: OrgId, stop: StopScope, call: &Call, error: &StoreError) -> Placed {
        self.doubt.notify_one();
        warn!(%org, %error, "a stop could not be written");
        let (before, news) = (self.unwritten.overlay(), stop.news(org));
        let number = self.unwritten.put(UnwrittenStop { org, stop: stop.clone(), counted: 0, call: call.clone() });
        self.changes.tell(news);
        Placed { org, number, stop, before, why: error.in_words().into_owned() }
    }

    /// Makes a stop that is in force what it was found to be, with how many active devices it revokes, and writes it to the
    /// reserve file. `None` leaves it as it is.
    async fn settle(&self, placed: Placed, found: Option<(StopScope, u64)>) -> NotWritten {
        let Placed { org, number, stop, before, why } = placed;
        let (stop, counted) = found.unwrap_or((stop, 0));
        let nothing = matches!(&stop, StopScope::Devices { ids, .. } if ids.is_empty());
        // Of several servers, another one may have given back what this one stopped before: then the repeated stop counts.
        let alone = match &self.backend {
            Backend::Sqlite(_) => true,
            Backend::Postgres(_) => false,
        };
        if nothing || (alone && before.of(org).is_some_and(|stops| stops.covers(&stop))) {
            self.unwritten.forget(number);
            // It is as safe as those that it repeats.
            return NotWritten { kept: self.unwritten.counts().1 == 0, why };
        }
        self.unwritten.amend(number, stop, counted);
        let kept = self.unwritten.keep(number).await;
        self.unwritten.forget_repeats(number);
        NotWritten { kept, why }
    }

    /// A write of a stop, with a time limit.
    pub(super) async fn write_in_time<T>(
        &self,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let time = match &self.backend {
            Backend::Sqlite(_) => WRITTEN,
            Backend::Postgres(_) => WRITTEN_POSTGRES,
        };
        tokio::time::timeout(time, write).await.unwrap_or(Err(StoreError::Late))
    }

    async fn readable<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(READ, read).await.unwrap_or(Err(StoreError::Late))
    }

    /// The account, for what is only mentioned beside a stop: a read that fails or is slow neither prevents nor delays it.
    pub(crate) async fn account_in_passing(&self, org: OrgId) -> Option<Account> {
        tokio::time::timeout(MENTIONED, self.account(org)).await.ok()?.ok()?
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
