//! The methods of [`Store`]: which operation each is, and in what kind of transaction it runs.

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use sqlx::PgConnection;

use super::super::audit::{self, Call, Verb};
use super::super::batch::Named;
use super::super::changes::Change;
use super::super::keys::SecretHash;
use super::super::org::{Org, OrgId};
use super::super::plan::{Account, Removal};
use super::super::reports::{HeardReport, KnownEvent, KnownStop};
use super::super::seen::LastSeen;
use super::operations::{self, checkouts, devices, fleet, list, orgs, removal, reports};
use super::postgres::OPERATION;
use super::transaction::{Transaction, at_once};
use super::{
    Admitted, Aftermath, Backend, Checkout, CheckoutKey, Filter, FleetRows, Kept, NewCheckout, OldKey, OrgChange, Page,
    Presented, Restorations, RestoredAll, Store, StoreError, Suspensions, either, in_time,
};

/// An operation in a transaction that may write, which is committed when the operation succeeds.
macro_rules! change {
    ($self:ident, |$tx:ident| $operation:expr) => {
        match &$self.backend {
            Backend::Sqlite(store) => store.change(move |$tx| at_once($operation)).await,
            Backend::Postgres(store) => {
                let operation = async {
                    let mut writing = store.begin().await?;
                    let $tx = &mut writing;
                    let done = $operation.await?;
                    store.commit(writing).await?;
                    Ok(done)
                };
                store.within(OPERATION, operation).await
            }
        }
    };
}

/// An operation that reads: several statements of one `snapshot`, or one statement, for which a `connection` is enough.
macro_rules! read {
    ($self:ident, $means:ident, |$tx:ident| $operation:expr) => {
        match &$self.backend {
            Backend::Sqlite(store) => store.read(move |$tx| at_once($operation)).await,
            Backend::Postgres(store) => {
                let operation = async {
                    let mut means = store.$means().await?;
                    let $tx: &mut PgConnection = &mut means;
                    $operation.await
                };
                store.within(OPERATION, operation).await
            }
        }
    };
}

impl Store {
    /// The organisation whose key this is or was, and its device `device`, of one moment after this call.
    pub(crate) async fn look_up(
        &self,
        key: SecretHash,
        device: Option<&DeviceId>,
    ) -> Result<Option<Presented>, StoreError> {
        in_time(async { either!(self.look_up(key, device.cloned())) }).await
    }

    /// The organisation and its usage; `None` when it was deleted.
    pub(crate) async fn account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        Ok(self.any_account(id).await?.filter(|account| !account.org.deleted))
    }

    /// The organisation and its usage, a deleted one too.
    pub(crate) async fn any_account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        read!(self, connection, |tx| orgs::any_account(tx, id))
    }

    /// Every organisation that was not deleted, the oldest first.
    pub(crate) async fn orgs(&self) -> Result<Vec<Account>, StoreError> {
        read!(self, connection, |tx| orgs::all(tx))
    }

    /// What ended by itself after `after` and by `now`: entitlements, and old keys, of a deleted organisation too.
    pub(crate) async fn ended(&self, after: Timestamp, now: Timestamp) -> Result<Vec<Change>, StoreError> {
        read!(self, connection, |tx| orgs::ended(tx, after, now))
    }

    /// The organisations whose key was rotated, with the devices that asked last with another key than the current one;
    /// only those whose old key is valid after `after`.
    pub(crate) async fn old_keys(&self, after: Timestamp) -> Result<Vec<OldKey>, StoreError> {
        read!(self, connection, |tx| orgs::old_keys(tx, after))
    }

    /// Adds an organisation.
    pub(crate) async fn create_org(&self, org: &Org, key: SecretHash, call: &Call) -> Result<(), StoreError> {
        let (org, call) = (org.clone(), call.clone());
        change!(self, |tx| orgs::create(tx, &org, key, &call))
    }

    /// Changes an organisation; `None` when there is none or it was deleted, or has another key than a rotation expects.
    pub(crate) async fn change_org(
        &self,
        id: OrgId,
        change: &OrgChange,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        let (change, call) = (change.clone(), call.clone());
        change!(self, |tx| orgs::change(tx, id, &change, &call))
    }

    /// Makes a device known, where there is a place. `ephemeral` says whether it may age out; without it a known device
    /// stays what it is in this, and a new one does not age.
    pub(crate) async fn register(
        &self,
        org: OrgId,
        id: &DeviceId,
        ephemeral: Option<bool>,
        call: &Call,
    ) -> Result<Option<Admitted>, StoreError> {
        let (id, call) = (id.clone(), call.clone());
        self.doubting(change!(self, |tx| devices::register(tx, org, &id, ephemeral, &call)))
    }

    /// Revokes each of them, all or none in case of failure.
    pub(crate) async fn revoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Suspensions, Account)>, StoreError> {
        let (batch, call) = (batch.to_vec(), call.clone());
        self.doubting(change!(self, |tx| devices::revoke(tx, org, &batch, verb, &call)))
    }

    /// Revokes every active device and says how many those were.
    pub(crate) async fn revoke_all(&self, org: OrgId, call: &Call) -> Result<Option<(u64, Account)>, StoreError> {
        let call = call.clone();
        self.doubting(change!(self, |tx| devices::revoke_all(tx, org, &call)))
    }

    /// Takes revokes back in this order, while there are places; all or none in case of failure.
    pub(crate) async fn unrevoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Restorations, Account)>, StoreError> {
        let (batch, call) = (batch.to_vec(), call.clone());
        change!(self, |tx| devices::unrevoke(tx, org, &batch, verb, &call))
    }

    /// Takes revokes back, the newest first, while there are places.
    pub(crate) async fn unrevoke_all(
        &self,
        org: OrgId,
        call: &Call,
    ) -> Result<Option<(RestoredAll, Account)>, StoreError> {
        let call = call.clone();
        change!(self, |tx| devices::unrevoke_all(tx, org, &call))
    }

    /// Forgets a device, with `only_active` not one that is revoked. The stops and the timeline of a device that was ever
    /// revoked stay.
    pub(crate) async fn remove(
        &self,
        org: OrgId,
        id: &DeviceId,
        only_active: bool,
        call: &Call,
    ) -> Result<Option<(Removal, Account)>, StoreError> {
        let (id, call) = (id.clone(), call.clone());
        change!(self, |tx| removal::remove(tx, org, &id, only_active, &call))
    }

    /// The organisations with active ephemeral devices that were not seen since `before`.
    pub(crate) async fn aged(&self, before: Timestamp) -> Result<Vec<OrgId>, StoreError> {
        read!(self, connection, |tx| removal::aged(tx, before))
    }

    /// Removes active ephemeral devices of this organisation that were not seen since `before`, at most
    /// [`super::AGED_AT_ONCE`], and says how many those were.
    pub(crate) async fn age_out(&self, org: OrgId, before: Timestamp, call: &Call) -> Result<u64, StoreError> {
        let call = call.clone();
        change!(self, |tx| removal::age_out(tx, org, before, &call))
    }

    /// The organisation's devices in the bytewise order of their ids, with its usage from the same moment.
    pub(crate) async fn list(&self, org: OrgId, filter: &Filter) -> Result<Option<(Page, Account)>, StoreError> {
        let filter = filter.clone();
        read!(self, snapshot, |tx| list::list(tx, org, &filter))
    }

    /// Records when devices last asked, and with which key. Unknown numbers are those of removed ones.
    pub(crate) async fn touch(&self, seen: &[LastSeen]) -> Result<(), StoreError> {
        let seen = seen.to_vec();
        self.doubting(change!(self, |tx| tx.note(&seen)))
    }

    /// Keeps these reports, all or none: what each sidecar says now takes the place of what it said before. Devices that
    /// the organisation does not have are left out, and so is what comes late.
    pub(crate) async fn save_reports(&self, reports: Vec<HeardReport>) -> Result<(), StoreError> {
        self.doubting(change!(self, |tx| reports::save(tx, &reports)))
    }

    /// Forgets reports, stops and events that are older than `before`, some at a time: no other change waits long.
    pub(crate) async fn forget_reports(&self, before: Timestamp) -> Result<(), StoreError> {
        for table in Kept::ALL {
            while either!(self.forget(table, before))? {}
        }
        Ok(())
    }

    /// A page of devices with what their sidecars said, all of one moment. `None` when the organisation is gone.
    pub(crate) async fn fleet(&self, org: OrgId, filter: &Filter) -> Result<Option<FleetRows>, StoreError> {
        let filter = filter.clone();
        read!(self, snapshot, |tx| fleet::fleet(tx, org, &filter))
    }

    /// The newest stops of a device, the newest first, at most [`super::KEPT_STOPS`].
    pub(crate) async fn stops(&self, org: OrgId, device: &DeviceId) -> Result<Vec<KnownStop>, StoreError> {
        let device = device.clone();
        read!(self, connection, |tx| reports::stops(tx, org, &device))
    }

    /// What happened on a device, the newest first, at most [`super::KEPT_EVENTS`].
    pub(crate) async fn timeline(&self, org: OrgId, device: &DeviceId) -> Result<Vec<KnownEvent>, StoreError> {
        let device = device.clone();
        read!(self, connection, |tx| reports::timeline(tx, org, &device))
    }

    /// What is known of the devices that were revoked at `at` and still are, all of one moment: how far a stop of many has
    /// come. `None` when the organisation is gone.
    pub(crate) async fn aftermath(&self, org: OrgId, at: Timestamp) -> Result<Option<Aftermath>, StoreError> {
        read!(self, snapshot, |tx| fleet::aftermath(tx, org, at))
    }

    /// The audit, the newest first.
    pub(crate) async fn audit(&self, query: &audit::Query) -> Result<audit::Page, StoreError> {
        let query = query.clone();
        read!(self, connection, |tx| operations::audit::read(tx, &query))
    }

    /// Keeps a purchase that waits to be confirmed, and forgets those that can no longer be.
    pub(crate) async fn create_checkout(
        &self,
        id: OrgId,
        new: &NewCheckout,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        let (new, call) = (new.clone(), call.clone());
        change!(self, |tx| checkouts::create(tx, id, &new, &call))
    }

    /// A purchase, open or not.
    pub(crate) async fn checkout(&self, key: &CheckoutKey) -> Result<Option<Checkout>, StoreError> {
        let key = key.clone();
        read!(self, connection, |tx| checkouts::find(tx, &key))
    }

    /// Every purchase that can be confirmed.
    pub(crate) async fn checkouts(&self, now: Timestamp) -> Result<Vec<Checkout>, StoreError> {
        read!(self, connection, |tx| checkouts::open(tx, now))
    }

    /// Gives an open purchase a second secret that may confirm it, instead of an earlier one; `None` when it is not open.
    pub(crate) async fn link_checkout(
        &self,
        number: &str,
        confirm: SecretHash,
        call: &Call,
    ) -> Result<Option<Checkout>, StoreError> {
        let (number, call) = (number.to_owned(), call.clone());
        change!(self, |tx| checkouts::link(tx, &number, confirm, &call))
    }

    /// Confirms a purchase: the plan is the wanted one and the entitlement active. Once; `None` when it is not open.
    pub(crate) async fn confirm_checkout(
        &self,
        key: &CheckoutKey,
        call: &Call,
    ) -> Result<Option<Checkout>, StoreError> {
        let (key, call) = (key.clone(), call.clone());
        change!(self, |tx| checkouts::confirm(tx, &key, &call))
    }
}
