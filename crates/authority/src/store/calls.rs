//! The methods of [`Store`]: each names its operation and the kind of transaction that runs it.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use sqlx::PgConnection;

use super::super::approvals::Approval;
use super::super::audit::{self, Call, Verb};
use super::super::batch::Named;
use super::super::changes::Change;
use super::super::keys::{KeyMark, SecretHash};
use super::super::org::{Org, OrgId, SwitchedOff};
use super::super::plan::{Account, Admission, Removal};
use super::super::proofs::Proof;
use super::super::reports::{HeardReport, KnownEvent, KnownStop};
use super::super::unwritten::{Overlay, UnwrittenStop};
use super::approvals::Gated;
use super::operations::devices::Existing;
use super::operations::{
    self, approvals, checkouts, devices, fleet, keys, late, list, orgs, removal, reports, retention,
};
use super::overlaid::{self, OverlaidListing};
use super::postgres::OPERATION;
use super::sqlite::Turn;
use super::stop_keys::Way;
use super::transaction::{Transaction, at_once};
use super::{
    Admitted, Aftermath, Backend, Checkout, CheckoutKey, Filter, FleetRows, Kept, KeyChange, KeyRow, LastSeen,
    LatelyRevoked, NewCheckout, NewRoleKey, OldKey, OrgChange, Page, Presented, Restorations, RestoredAll, RotatedKey,
    Store, StoreError, Surplus, Suspensions, WhichKey, either, in_time,
};

/// Runs an operation in a transaction that may write; the transaction is committed when the operation succeeds.
macro_rules! change {
    ($self:ident, |$tx:ident| $operation:expr) => {
        change!($self, Turn::Usual, |$tx| $operation)
    };
    // Before other changes that wait, where one thread does them all.
    ($self:ident, $turn:expr, |$tx:ident| $operation:expr) => {
        match &$self.backend {
            Backend::Sqlite(store) => store.change($turn, move |$tx| at_once($operation)).await,
            Backend::Postgres(store) => {
                let operation = Box::pin(async {
                    let mut writing = store.begin().await?;
                    let $tx = &mut writing;
                    let done = $operation.await?;
                    store.commit(writing).await?;
                    Ok(done)
                });
                store.within(OPERATION, operation).await
            }
        }
    };
}

/// Runs an operation that only reads: in a `snapshot` when it takes several statements, on a `connection` when it takes
/// one.
macro_rules! read {
    ($self:ident, $means:ident, |$tx:ident| $operation:expr) => {
        match &$self.backend {
            Backend::Sqlite(store) => store.read(move |$tx| at_once($operation)).await,
            Backend::Postgres(store) => {
                let operation = Box::pin(async {
                    let mut means = store.$means().await?;
                    let $tx: &mut PgConnection = &mut means;
                    $operation.await
                });
                store.within(OPERATION, operation).await
            }
        }
    };
}

/// The same for what reads a few rows, and waits for no list.
macro_rules! read_short {
    ($self:ident, |$tx:ident| $operation:expr) => {
        match &$self.backend {
            Backend::Sqlite(store) => store.read_short(move |$tx| at_once($operation)).await,
            Backend::Postgres(store) => {
                let operation = Box::pin(async {
                    let mut means = store.connection().await?;
                    let $tx: &mut PgConnection = &mut means;
                    $operation.await
                });
                store.within(OPERATION, operation).await
            }
        }
    };
}

impl Store {
    /// The organisation that `key` belongs or belonged to, and its device `device`, from one snapshot that begins after
    /// this call.
    pub(crate) async fn look_up(
        &self,
        key: SecretHash,
        device: Option<&DeviceId>,
    ) -> Result<Option<Presented>, StoreError> {
        let overlay = self.unwritten.overlay();
        let found = in_time(async { either!(self.look_up(key, device.cloned())) }).await?;
        Ok(found.map(|found| overlaid::presented(&overlay, found, key, device)))
    }

    /// The organisation that `key`, which is to stop agents, belongs or belonged to. That of a known key waits for no other
    /// look-up.
    pub(crate) async fn look_up_to_stop(&self, key: SecretHash) -> Result<Option<Presented>, StoreError> {
        let overlay = self.unwritten.overlay();
        let found = in_time(async {
            match (&self.backend, self.stop_keys.way(key)) {
                (Backend::Sqlite(store), Way::Known) => store.look_up_first(key).await,
                (Backend::Sqlite(store), Way::AsOneOfFew(_few)) => store.look_up_first(key).await,
                (Backend::Sqlite(store), Way::Usual) => store.look_up(key, None).await,
                (Backend::Postgres(store), Way::Known) => store.look_up_first(key).await,
                // All questions that wait are asked in one statement.
                (Backend::Postgres(store), Way::AsOneOfFew(_) | Way::Usual) => store.look_up(key, None).await,
            }
        });
        let found = found.await?;
        if found.is_none() {
            self.stop_keys.forget(key);
        }
        Ok(found.map(|found| overlaid::presented(&overlay, found, key, None)))
    }

    /// The key is valid and may stop agents.
    pub(crate) fn may_stop(&self, key: SecretHash) {
        self.stop_keys.know(key);
    }

    /// The organisation and its usage; `None` when the organisation was deleted.
    pub(crate) async fn account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        Ok(self.any_account(id).await?.filter(|account| !account.org.deleted))
    }

    /// The organisation and its usage, also of a deleted organisation. It is one row, and every stop in the console needs it: it
    /// waits for no list.
    pub(crate) async fn any_account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        let overlay = self.unwritten.overlay();
        let found: Result<Option<Account>, StoreError> = read_short!(self, |tx| orgs::any_account(tx, id));
        Ok(found?.map(|account| overlay.account(account)))
    }

    /// The organisation and its usage as the database says, and the number of the newest device. Waits for no list.
    pub(super) async fn newest(&self, id: OrgId) -> Result<Option<(Account, i64)>, StoreError> {
        read_short!(self, |tx| devices::newest(tx, id))
    }

    /// All organisations that were not deleted, the oldest first.
    pub(crate) async fn orgs(&self) -> Result<Vec<Account>, StoreError> {
        let overlay = self.unwritten.overlay();
        let found: Result<Vec<Account>, StoreError> = read!(self, connection, |tx| orgs::all(tx));
        Ok(found?.into_iter().map(|account| overlay.account(account)).collect())
    }

    /// Entitlements and old keys that ended after `after` and by `now`, also those of deleted organisations.
    pub(crate) async fn ended(&self, after: Timestamp, now: Timestamp) -> Result<Vec<Change>, StoreError> {
        read!(self, connection, |tx| orgs::ended(tx, after, now))
    }

    /// Who switched off each switch of the organisation that is off, when and why.
    pub(crate) async fn switched_off(&self, org: &Org) -> Result<Vec<SwitchedOff>, StoreError> {
        let (id, off) = (org.id, org.off);
        read!(self, connection, |tx| operations::audit::switched_off(tx, id, off))
    }

    /// The organisations whose key was rotated and whose old key is valid after `after`, each with the devices whose
    /// last request used another key than the current one.
    pub(crate) async fn old_keys(&self, after: Timestamp) -> Result<Vec<OldKey>, StoreError> {
        read!(self, connection, |tx| orgs::old_keys(tx, after))
    }

    /// Adds an organisation.
    pub(crate) async fn create_org(&self, org: &Org, key: SecretHash, call: &Call) -> Result<(), StoreError> {
        let (org, call) = (org.clone(), call.clone());
        change!(self, |tx| orgs::create(tx, &org, key, &call))
    }

    /// Changes an organisation, in the database alone ([`Self::order`] is for everything else). `None` when it does not
    /// exist, was deleted, or has another key than a rotation expects.
    pub(super) async fn change_org(
        &self,
        id: OrgId,
        change: &OrgChange,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        let (change, call) = (change.clone(), call.clone());
        // An operator's, or the organisation's own switch: rare.
        self.doubting(change!(self, Turn::First, |tx| orgs::change(tx, id, &change, &call)))?.settled()
    }

    /// The organisation's keys, its own first and then the newest; `None` when it is gone.
    pub(crate) async fn keys(&self, org: OrgId) -> Result<Option<Vec<KeyRow>>, StoreError> {
        let overlay = self.unwritten.overlay();
        let found: Result<Option<Vec<KeyRow>>, StoreError> = read!(self, snapshot, |tx| keys::list(tx, org));
        Ok(found?.map(|rows| overlaid::keys(&overlay, org, rows)))
    }

    /// Adds a key with a role.
    pub(crate) async fn create_key(
        &self,
        org: OrgId,
        new: &NewRoleKey,
        call: &Call,
    ) -> Result<KeyChange<()>, StoreError> {
        self.caught_up(Some(org)).await?;
        let (new, call) = (new.clone(), call.clone());
        change!(self, |tx| keys::create(tx, org, &new, &call))?.settled()
    }

    /// Ends a key with a role, now, in the database alone ([`Self::stop_key`] is for everything else).
    pub(super) async fn revoke_key(
        &self,
        org: OrgId,
        which: &WhichKey,
        call: &Call,
    ) -> Result<KeyChange<Vec<KeyMark>>, StoreError> {
        let (which, call) = (which.clone(), call.clone());
        self.doubting(change!(self, Turn::First, |tx| keys::revoke(tx, org, &which, &call)))
    }

    /// Puts a new key in the place of one with a role, which stays valid until `until`. The
    /// new one ends when the old one would have, and not later than `not_after`.
    pub(crate) async fn rotate_role_key(
        &self,
        org: OrgId,
        which: &WhichKey,
        hash: SecretHash,
        (until, not_after): (Timestamp, Option<Timestamp>),
        call: &Call,
    ) -> Result<KeyChange<RotatedKey>, StoreError> {
        let written = async {
            self.caught_up(Some(org)).await?;
            let (which, call) = (which.clone(), call.clone());
            change!(self, |tx| keys::rotate(tx, org, &which, hash, (until, not_after), &call))
        };
        // Without an overlap it is a stop.
        let written = async { if until <= call.at { self.write_in_time(written).await } else { written.await } };
        match written.await {
            Err(error) if until <= call.at && !error.is_refusal() => {
                Err(self.end_key_without(org, which, call, error).await)
            }
            done => done,
        }
    }

    /// The restores that wait for a second key, and those that did, the newest first; `None` when the organisation is gone.
    pub(crate) async fn approvals(&self, org: OrgId, now: Timestamp) -> Result<Option<Vec<Approval>>, StoreError> {
        read!(self, snapshot, |tx| approvals::list(tx, org, now))
    }

    /// How many restores of all organisations wait for a second key.
    pub(crate) async fn approvals_waiting(&self, now: Timestamp) -> Result<u64, StoreError> {
        read!(self, connection, |tx| approvals::count_waiting(tx, now))
    }

    /// The devices of all organisations that were revoked in this time and still are, with what their sidecars report.
    pub(crate) async fn lately_revoked(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<LatelyRevoked>, StoreError> {
        read!(self, connection, |tx| fleet::lately_revoked(tx, since, until))
    }

    /// Confirms a restore, which is then done. `None` when the organisation is gone.
    pub(crate) async fn approve(&self, org: OrgId, id: &str, call: &Call) -> Result<Option<Approval>, StoreError> {
        self.caught_up(Some(org)).await?;
        let (id, call) = (id.to_owned(), call.clone());
        change!(self, |tx| approvals::approve(tx, org, &id, &call))?.map(Gated::settled).transpose()
    }

    /// Ends a request for a restore. `None` when the organisation is gone.
    pub(crate) async fn reject(&self, org: OrgId, id: &str, call: &Call) -> Result<Option<Approval>, StoreError> {
        let (id, call) = (id.to_owned(), call.clone());
        change!(self, |tx| approvals::reject(tx, org, &id, &call))?.map(Gated::settled).transpose()
    }

    /// Records when keys were last used, in microseconds since 1970.
    pub(crate) async fn note_keys(&self, used: &[(KeyMark, i64)]) -> Result<(), StoreError> {
        let used = used.to_vec();
        change!(self, |tx| keys::note_used(tx, &used))
    }

    /// Registers a device if the plan has a free place. `ephemeral` says whether the device may age out. With `None` a
    /// known device keeps its setting, and a new one does not age out.
    pub(crate) async fn register(
        &self,
        org: OrgId,
        id: &DeviceId,
        ephemeral: Option<bool>,
        call: &Call,
    ) -> Result<Option<Admitted>, StoreError> {
        let before = self.unwritten.overlay();
        // What waits is about devices that existed when it was ordered.
        self.try_to_write_stops(org).await;
        let (one, call) = (id.clone(), call.clone());
        let done = self.doubting(change!(self, |tx| devices::register(tx, org, &one, ephemeral, &call)));
        let Some((admission, account)) = done? else { return Ok(None) };
        let account = self.unwritten.overlay().account(account);
        if admission != Admission::Exists || before.of(org).is_none() {
            return Ok(Some((admission, account)));
        }
        let only = Filter { only: Some(id.clone()), ..Filter::default() };
        let Some((page, _)) = self.list_under(before, org, &only).await? else { return Ok(None) };
        let revoked = page.devices.iter().any(|device| device.revoked_at.is_some());
        Ok(Some((if revoked { Admission::Revoked } else { admission }, account)))
    }

    /// Revokes each device of a batch in the database alone ([`Self::stop_devices`] is for everything else); on a
    /// failure, none of them.
    pub(super) async fn revoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Suspensions, Account)>, StoreError> {
        let (batch, call) = (batch.to_vec(), call.clone());
        self.doubting(change!(self, Turn::First, |tx| devices::revoke(tx, org, &batch, verb, &call)))
    }

    /// Revokes all active devices in the database alone, and returns how many there were.
    pub(super) async fn revoke_all(&self, org: OrgId, call: &Call) -> Result<Option<(u64, Account)>, StoreError> {
        let call = call.clone();
        self.doubting(change!(self, Turn::First, |tx| devices::revoke_all(tx, org, Existing::ALL, &call)))
    }

    /// Restores the devices of a batch in this order, as long as there are free places; on a failure, none of them.
    pub(crate) async fn unrevoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Restorations, Account)>, StoreError> {
        self.caught_up(Some(org)).await?;
        let (batch, call) = (batch.to_vec(), call.clone());
        change!(self, |tx| devices::unrevoke(tx, org, &batch, verb, &call))?.settled()
    }

    /// Restores revoked devices, the newest revoke first, as long as there are free places.
    pub(crate) async fn unrevoke_all(
        &self,
        org: OrgId,
        call: &Call,
    ) -> Result<Option<(RestoredAll, Account)>, StoreError> {
        self.caught_up(Some(org)).await?;
        let call = call.clone();
        change!(self, |tx| devices::unrevoke_all(tx, org, &call))?.settled()
    }

    /// Removes a device. With `only_active` a revoked device is not removed. The stops and events of a device that was
    /// ever revoked are kept.
    pub(crate) async fn remove(
        &self,
        org: OrgId,
        id: &DeviceId,
        only_active: bool,
        call: &Call,
    ) -> Result<Option<(Removal, Account)>, StoreError> {
        // A device that is to be revoked could otherwise be removed as an active one, and register again.
        self.caught_up(Some(org)).await?;
        let (id, call) = (id.clone(), call.clone());
        change!(self, |tx| removal::remove(tx, org, &id, only_active, &call))?.settled()
    }

    /// The organisations with active ephemeral devices that were last seen before `before`.
    pub(crate) async fn aged(&self, before: Timestamp) -> Result<Vec<OrgId>, StoreError> {
        read!(self, connection, |tx| removal::aged(tx, before))
    }

    /// Removes active ephemeral devices of this organisation that were last seen before `before`, at most
    /// [`super::AGED_AT_ONCE`], and returns how many it removed.
    pub(crate) async fn age_out(&self, org: OrgId, before: Timestamp, call: &Call) -> Result<u64, StoreError> {
        self.caught_up(Some(org)).await?;
        let call = call.clone();
        change!(self, |tx| removal::age_out(tx, org, before, &call))
    }

    /// Lists the organisation's devices in bytewise order of their ids, with the usage from the same snapshot.
    pub(crate) async fn list(&self, org: OrgId, filter: &Filter) -> Result<Option<(Page, Account)>, StoreError> {
        self.list_under(self.unwritten.overlay(), org, filter).await
    }

    /// The same with the stops of an earlier moment.
    pub(super) async fn list_under(
        &self,
        overlay: Arc<Overlay>,
        org: OrgId,
        filter: &Filter,
    ) -> Result<Option<(Page, Account)>, StoreError> {
        let Some(stops) = OverlaidListing::of(overlay, org) else {
            return self.stored_list(org, filter.clone()).await;
        };
        let found = self.stored_list(org, OverlaidListing::widened(filter)).await?;
        Ok(found.map(|(page, account)| (stops.page(page, filter), stops.account(account))))
    }

    async fn stored_list(&self, org: OrgId, filter: Filter) -> Result<Option<(Page, Account)>, StoreError> {
        read!(self, snapshot, |tx| list::list(tx, org, &filter))
    }

    /// Which of these devices are registered.
    pub(crate) async fn registered(&self, org: OrgId, ids: &[DeviceId]) -> Result<HashSet<DeviceId>, StoreError> {
        let ids = ids.to_vec();
        read!(self, connection, |tx| list::registered(tx, org, &ids))
    }

    /// Records when devices last asked, and with which key. A number without a device belongs to a removed device and
    /// is skipped.
    pub(crate) async fn touch(&self, seen: &[LastSeen]) -> Result<(), StoreError> {
        let seen = seen.to_vec();
        self.doubting(change!(self, |tx| tx.note(&seen)))
    }

    /// Stores these reports, all or none. What a sidecar reports replaces what it reported before. Devices unknown to
    /// the organisation are left out, and so are reports that arrive late.
    pub(crate) async fn save_reports(&self, reports: Vec<HeardReport>) -> Result<(), StoreError> {
        self.doubting(change!(self, |tx| reports::save(tx, &reports)))
    }

    /// Records which sidecars validated which devices, in the order of `proofs`.
    pub(crate) async fn save_proofs(&self, proofs: &[Proof]) -> Result<(), StoreError> {
        let proofs = proofs.to_vec();
        self.doubting(change!(self, |tx| reports::save_proofs(tx, &proofs)))
    }

    /// Deletes these rows, in small batches, so that no other change waits long.
    pub(crate) async fn forget(&self, table: Kept, surplus: Surplus) -> Result<(), StoreError> {
        while either!(self.forget(table, surplus))? {}
        Ok(())
    }

    /// The place in the table's order up to which an organisation has more than so many rows; `None` when it has not.
    pub(crate) async fn over_rows(&self, table: Kept, org: OrgId, rows: u64) -> Result<Option<i64>, StoreError> {
        read!(self, connection, |tx| retention::over_rows(tx, table, org, rows))
    }

    /// The place in the audit up to which an organisation has more than about so many bytes; `None` when it has not.
    pub(crate) async fn over_bytes(&self, org: OrgId, bytes: u64) -> Result<Option<i64>, StoreError> {
        read!(self, connection, |tx| retention::over_bytes(tx, org, bytes))
    }

    /// A number that grows by one with each row of the audit and of what sidecars tell.
    pub(crate) async fn written(&self) -> Result<i64, StoreError> {
        read!(self, connection, |tx| retention::written(tx))
    }

    /// A page of devices with what their sidecars reported, from one snapshot. `None` when the organisation was
    /// deleted.
    pub(crate) async fn fleet(&self, org: OrgId, filter: &Filter) -> Result<Option<FleetRows>, StoreError> {
        let Some(stops) = OverlaidListing::of(self.unwritten.overlay(), org) else {
            return self.stored_fleet(org, filter.clone()).await;
        };
        // A page of the store may hold nothing of what is asked for, and more may follow.
        let mut wider = OverlaidListing::widened(filter);
        loop {
            let Some(rows) = self.stored_fleet(org, wider.clone()).await? else { return Ok(None) };
            let next = rows.devices.last().filter(|_| rows.more).and_then(|row| row.device.id.parse().ok());
            let rows = stops.fleet(rows, filter);
            match next {
                Some(next) if rows.devices.is_empty() => wider.after = Some(next),
                Some(_) | None => return Ok(Some(rows)),
            }
        }
    }

    async fn stored_fleet(&self, org: OrgId, filter: Filter) -> Result<Option<FleetRows>, StoreError> {
        read!(self, snapshot, |tx| fleet::fleet(tx, org, &filter))
    }

    /// The last stops of a device, the newest first, at most [`super::KEPT_STOPS`] of each sidecar.
    pub(crate) async fn stops(&self, org: OrgId, device: &DeviceId) -> Result<Vec<KnownStop>, StoreError> {
        let device = device.clone();
        read!(self, connection, |tx| reports::stops(tx, org, &device))
    }

    /// The events of a device, the newest first, at most [`super::KEPT_EVENTS`].
    pub(crate) async fn timeline(&self, org: OrgId, device: &DeviceId) -> Result<Vec<KnownEvent>, StoreError> {
        let device = device.clone();
        read!(self, connection, |tx| reports::timeline(tx, org, &device))
    }

    /// The state of the devices that were revoked at `at` and still are, from one snapshot: it shows how far the stop
    /// of many devices has come. `None` when the organisation was deleted.
    pub(crate) async fn aftermath(&self, org: OrgId, at: Timestamp) -> Result<Option<Aftermath>, StoreError> {
        if OverlaidListing::of(self.unwritten.overlay(), org).is_some() {
            let mut filter = Filter { revoked_at: Some(at), ..Filter::default() };
            let mut after = Aftermath::default();
            loop {
                let Some(rows) = self.fleet(org, &filter).await? else { return Ok(None) };
                filter.after = rows.devices.last().filter(|_| rows.more).and_then(|row| row.device.id.parse().ok());
                OverlaidListing::aftermath(rows, at, &mut after);
                if filter.after.is_none() {
                    return Ok(Some(after));
                }
            }
        }
        read!(self, snapshot, |tx| fleet::aftermath(tx, org, at))
    }

    /// Writes a stop that could not be written when it was ordered.
    pub(super) async fn write_late(&self, stop: &UnwrittenStop) -> Result<(), StoreError> {
        let stop = stop.clone();
        change!(self, Turn::First, |tx| late::write(tx, &stop))
    }

    /// A page of the audit, the newest entry first.
    pub(crate) async fn audit(&self, query: &audit::Query) -> Result<audit::Page, StoreError> {
        let query = query.clone();
        read!(self, connection, |tx| operations::audit::read(tx, &query))
    }

    /// Stores a checkout that waits for confirmation, and deletes expired ones.
    pub(crate) async fn create_checkout(
        &self,
        id: OrgId,
        new: &NewCheckout,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        let (new, call) = (new.clone(), call.clone());
        change!(self, |tx| checkouts::create(tx, id, &new, &call))
    }

    /// Finds a checkout, open or not.
    pub(crate) async fn checkout(&self, key: &CheckoutKey) -> Result<Option<Checkout>, StoreError> {
        let key = key.clone();
        read!(self, connection, |tx| checkouts::find(tx, &key))
    }

    /// All open checkouts.
    pub(crate) async fn checkouts(&self, now: Timestamp) -> Result<Vec<Checkout>, StoreError> {
        read!(self, connection, |tx| checkouts::open(tx, now))
    }

    /// Replaces the second secret that may confirm an open checkout; `None` when the checkout is not open.
    pub(crate) async fn link_checkout(
        &self,
        number: &str,
        confirm: SecretHash,
        call: &Call,
    ) -> Result<Option<Checkout>, StoreError> {
        let (number, call) = (number.to_owned(), call.clone());
        change!(self, |tx| checkouts::link(tx, &number, confirm, &call))
    }

    /// Confirms a checkout once: sets the wanted plan and makes the entitlement active. `None` when the checkout is not
    /// open.
    pub(crate) async fn confirm_checkout(
        &self,
        key: &CheckoutKey,
        call: &Call,
    ) -> Result<Option<Checkout>, StoreError> {
        // Stops of other organisations have no part in it. A checkout's organisation never changes.
        let Some(found) = self.checkout(key).await? else { return Ok(None) };
        self.caught_up(Some(found.org.id)).await?;
        let (key, call) = (key.clone(), call.clone());
        change!(self, |tx| checkouts::confirm(tx, &key, &call))
    }
}
