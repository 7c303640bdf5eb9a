//! Where organisations and devices are kept.
//!
//! Every operation is one transaction, and what it decides it asks the pure rules of [`super::plan`]. A change is
//! durable and visible to every later read before the operation returns. `None` means that the organisation is gone.
//! Every failure is a [`StoreError`], and whoever gets one must say no.
//!
//! ```text
//!   Store ─┬▶ sqlite     one file, one server: a thread that writes, threads that read
//!          └▶ postgres   one database, any number of servers, which tell each other of changes
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `found` | what is found about devices, and by which filter |
//! | `change` | what an operator changes about an organisation |
//! | `checkouts` | purchases that wait to be confirmed |
//! | `failure` | how a store fails |
//! | `columns` | what the columns of both databases say |
//!
//! An enum over both and no trait: there are two, both known here, and a call costs no allocation. What each must do is
//! said at the methods of [`Store`] and held by one suite of tests, which runs over both.

mod change;
mod checkouts;
mod columns;
mod failure;
mod found;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Notify;

pub(super) use self::change::OrgChange;
pub(super) use self::checkouts::{Checkout, CheckoutKey, NewCheckout};
use self::columns::{count, ended, entry_from, held_key, org_from, parsed, status, stored_limit, time};
pub(super) use self::failure::{OpenError, StoreError};
pub(super) use self::found::{
    Aftermath, Filter, FleetRow, FleetRows, HeardOf, KnownDevice, ListedDevice, OldKey, Page, Presented, RestoredAll,
};
use self::found::{Heard, KEPT_EVENTS, KEPT_SIDECARS, KEPT_STOPS, reports_of};
use self::postgres::Postgres;
use self::sqlite::Sqlite;
use super::audit::{self, Call, Verb};
use super::batch::{Named, Outcome};
use super::changes::{Change, Changes};
use super::database::Database;
use super::health::Finding;
use super::keys::SecretHash;
use super::org::{Org, OrgId};
use super::plan::{Account, Admission, Removal, Restoration, Suspension};
use super::reports::{HeardReport, KnownEvent, KnownStop};
use super::seen::LastSeen;
use crate::protocol::DeviceId;

/// How long a decision may take, whichever the store: less than clients wait, so that they are told that there is none
/// and need not guess, and longer than one statement waits for a lock or a lost connection.
const DECISION: Duration = Duration::from_millis(2_500);

/// The fewest connections to `PostgreSQL` that a server can work with.
pub(super) const FEWEST_CONNECTIONS: usize = postgres::FEWEST;

/// How a server uses `PostgreSQL`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How many connections it makes at most.
    pub(super) connections: usize,
    /// Whether it decides only while commits are confirmed.
    pub(super) fence: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { connections: 16, fence: false }
    }
}
/// How many devices age out in one transaction: a revoke that comes meanwhile waits for one of these at most.
const AGED_AT_ONCE: i64 = 500;

/// The store. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Store {
    backend: Backend,
    changes: Changes,
    /// A change could not be written.
    doubt: Arc<Notify>,
}

/// What an operator demands of the database, beyond that it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Nothing,
    /// A change is answered when a standby has it too.
    Synchronous,
}

#[derive(Clone, Debug)]
enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// The same method of either.
macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &$self.backend {
            Backend::Sqlite(store) => store.$method($($argument),*).await,
            Backend::Postgres(store) => store.$method($($argument),*).await,
        }
    };
}

impl Store {
    /// Opens the database, creates its tables where there are none, and brings it to this version.
    pub(super) async fn open(database: &Database, terms: Terms) -> Result<Self, OpenError> {
        let changes = Changes::new();
        let backend = match database {
            Database::Sqlite(path) => Backend::Sqlite(Sqlite::open(path, &changes)?),
            Database::Postgres(url) => Backend::Postgres(Postgres::open(url, terms, &changes).await?),
        };
        Ok(Self { backend, changes, doubt: Arc::default() })
    }

    /// Where it tells of changes, its own and those of other servers on the same database.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether the database answers in the time of a decision.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        in_time(async { either!(self.ping()) }).await
    }

    /// Looks for what is wrong with the database though it answers. Concerns that could not be looked at are left out.
    pub(super) async fn examine(&self, demand: Demand) -> Vec<Finding> {
        match &self.backend {
            // Looks at files, and a disk may take its time.
            Backend::Sqlite(store) => {
                let store = store.clone();
                tokio::task::spawn_blocking(move || store.examine()).await.unwrap_or_default()
            }
            Backend::Postgres(store) => store.examine(demand).await,
        }
    }

    /// Writes something that changes nothing, as durably as a change.
    pub(super) async fn try_to_write(&self) -> Finding {
        either!(self.try_to_write())
    }

    /// Waits until a change could not be written since the last call.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// The result of a change, which is a reason to look when it failed.
    fn doubting<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.doubt.notify_one();
        }
        result
    }

    /// Waits for running operations and closes the database.
    pub(super) async fn close(&self) {
        either!(self.close());
    }

    /// Writes a copy of the database, as it is at one moment, to `copy`, which must not exist.
    pub(super) async fn back_up(&self, copy: &Path) -> Result<(), StoreError> {
        either!(self.back_up(copy))
    }

    /// Whose key this is or was, and that organisation's device `device`, of one moment after this call.
    pub(super) async fn look_up(
        &self,
        key: SecretHash,
        device: Option<&DeviceId>,
    ) -> Result<Option<Presented>, StoreError> {
        in_time(async { either!(self.look_up(key, device.cloned())) }).await
    }

    /// The organisation and its usage; `None` when it was deleted.
    pub(super) async fn account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        Ok(self.any_account(id).await?.filter(|account| !account.org.deleted))
    }

    /// The organisation and its usage, a deleted one too.
    pub(super) async fn any_account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        either!(self.any_account(id))
    }

    /// Every organisation that was not deleted, the oldest first.
    pub(super) async fn orgs(&self) -> Result<Vec<Account>, StoreError> {
        either!(self.orgs())
    }

    /// What ended by itself after `after` and by `now`: entitlements, and old keys, of a deleted organisation too.
    pub(super) async fn ended(&self, after: Timestamp, now: Timestamp) -> Result<Vec<Change>, StoreError> {
        either!(self.ended(after, now))
    }

    /// The organisations whose key was rotated, with the devices that asked last with another key than the current one;
    /// only those whose old key is valid after `after`.
    pub(super) async fn old_keys(&self, after: Timestamp) -> Result<Vec<OldKey>, StoreError> {
        either!(self.old_keys(after))
    }

    /// Adds an organisation.
    pub(super) async fn create_org(&self, org: &Org, key: SecretHash, call: &Call) -> Result<(), StoreError> {
        either!(self.create_org(org.clone(), key, call.clone()))
    }

    /// Changes an organisation; `None` when there is none or it was deleted, or has another key than a rotation expects.
    pub(super) async fn change_org(
        &self,
        id: OrgId,
        change: &OrgChange,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        either!(self.change_org(id, change.clone(), call.clone()))
    }

    /// Makes a device known, where there is a place. `ephemeral` says whether it may age out; without it a known device
    /// stays what it is in this, and a new one does not age.
    pub(super) async fn register(
        &self,
        org: OrgId,
        id: &DeviceId,
        ephemeral: Option<bool>,
        call: &Call,
    ) -> Result<Option<Admitted>, StoreError> {
        self.doubting(either!(self.register(org, id.clone(), ephemeral, call.clone())))
    }

    /// Revokes each of them, all or none in case of failure.
    pub(super) async fn revoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Suspensions, Account)>, StoreError> {
        self.doubting(either!(self.revoke(org, batch.to_vec(), verb, call.clone())))
    }

    /// Revokes every active device and says how many those were.
    pub(super) async fn revoke_all(&self, org: OrgId, call: &Call) -> Result<Option<(u64, Account)>, StoreError> {
        self.doubting(either!(self.revoke_all(org, call.clone())))
    }

    /// Takes revokes back in this order, while there are places; all or none in case of failure.
    pub(super) async fn unrevoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Restorations, Account)>, StoreError> {
        either!(self.unrevoke(org, batch.to_vec(), verb, call.clone()))
    }

    /// Takes revokes back, the newest first, while there are places.
    pub(super) async fn unrevoke_all(
        &self,
        org: OrgId,
        call: &Call,
    ) -> Result<Option<(RestoredAll, Account)>, StoreError> {
        either!(self.unrevoke_all(org, call.clone()))
    }

    /// Forgets a device, with `only_active` not one that is revoked. The stops and the timeline of a device that was ever
    /// revoked stay.
    pub(super) async fn remove(
        &self,
        org: OrgId,
        id: &DeviceId,
        only_active: bool,
        call: &Call,
    ) -> Result<Option<(Removal, Account)>, StoreError> {
        either!(self.remove(org, id.clone(), only_active, call.clone()))
    }

    /// The organisations with active ephemeral devices that were not seen since `before`.
    pub(super) async fn aged(&self, before: Timestamp) -> Result<Vec<OrgId>, StoreError> {
        either!(self.aged(before))
    }

    /// Removes active ephemeral devices of this organisation that were not seen since `before`, at most [`AGED_AT_ONCE`],
    /// and says how many those were.
    pub(super) async fn age_out(&self, org: OrgId, before: Timestamp, call: &Call) -> Result<u64, StoreError> {
        either!(self.age_out(org, before, call.clone()))
    }

    /// The organisation's devices in the bytewise order of their ids, with its usage from the same moment.
    pub(super) async fn list(&self, org: OrgId, filter: &Filter) -> Result<Option<(Page, Account)>, StoreError> {
        either!(self.list(org, filter.clone()))
    }

    /// Records when devices last asked, and with which key. Unknown numbers are those of removed ones.
    pub(super) async fn touch(&self, seen: &[LastSeen]) -> Result<(), StoreError> {
        self.doubting(either!(self.touch(seen.to_vec())))
    }

    /// Keeps these reports, all or none: what each sidecar says now takes the place of what it said before. Devices that
    /// the organisation does not have are left out, and so is what comes late.
    pub(super) async fn save_reports(&self, reports: Vec<HeardReport>) -> Result<(), StoreError> {
        self.doubting(either!(self.save_reports(reports)))
    }

    /// Forgets what was last heard before `before`, and stops and events of before it.
    pub(super) async fn forget_reports(&self, before: Timestamp) -> Result<(), StoreError> {
        either!(self.forget_reports(before))
    }

    /// A page of devices with what their sidecars said, all of one moment. `None` when the organisation is gone.
    pub(super) async fn fleet(&self, org: OrgId, filter: &Filter) -> Result<Option<FleetRows>, StoreError> {
        either!(self.fleet(org, filter.clone()))
    }

    /// The newest stops of a device, the newest first, at most [`KEPT_STOPS`].
    pub(super) async fn stops(&self, org: OrgId, device: &DeviceId) -> Result<Vec<KnownStop>, StoreError> {
        either!(self.stops(org, device.to_string()))
    }

    /// What happened on a device, the newest first, at most [`KEPT_EVENTS`].
    pub(super) async fn timeline(&self, org: OrgId, device: &DeviceId) -> Result<Vec<KnownEvent>, StoreError> {
        either!(self.timeline(org, device.to_string()))
    }

    /// What is known of the devices that were revoked at `at` and still are, all of one moment: how far a stop of many has
    /// come. `None` when the organisation is gone.
    pub(super) async fn aftermath(&self, org: OrgId, at: Timestamp) -> Result<Option<Aftermath>, StoreError> {
        either!(self.aftermath(org, at))
    }

    /// The audit, the newest first.
    pub(super) async fn audit(&self, query: &audit::Query) -> Result<audit::Page, StoreError> {
        either!(self.audit(query.clone()))
    }

    /// Keeps a purchase that waits to be confirmed, and forgets those that can no longer be.
    pub(super) async fn create_checkout(
        &self,
        id: OrgId,
        new: &NewCheckout,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        either!(self.create_checkout(id, new.clone(), call.clone()))
    }

    /// A purchase, open or not.
    pub(super) async fn checkout(&self, key: &CheckoutKey) -> Result<Option<Checkout>, StoreError> {
        either!(self.checkout(key.clone()))
    }

    /// Every purchase that can be confirmed.
    pub(super) async fn checkouts(&self, now: Timestamp) -> Result<Vec<Checkout>, StoreError> {
        either!(self.checkouts(now))
    }

    /// Gives an open purchase a second secret that may confirm it, instead of an earlier one; `None` when it is not open.
    pub(super) async fn link_checkout(
        &self,
        number: &str,
        confirm: SecretHash,
        call: &Call,
    ) -> Result<Option<Checkout>, StoreError> {
        either!(self.link_checkout(number.to_owned(), confirm, call.clone()))
    }

    /// Confirms a purchase: the plan is the wanted one and the entitlement active. Once; `None` when it is not open.
    pub(super) async fn confirm_checkout(
        &self,
        key: &CheckoutKey,
        call: &Call,
    ) -> Result<Option<Checkout>, StoreError> {
        either!(self.confirm_checkout(key.clone(), call.clone()))
    }
}

/// A decision that comes later than clients wait is none.
async fn in_time<T>(decision: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(DECISION, decision).await.unwrap_or(Err(StoreError::Late))
}

/// The result of a batch revoke, one entry for each distinct id.
pub(super) type Suspensions = Vec<Outcome<Suspension>>;
/// The result of a batch unrevoke, one entry for each distinct id.
pub(super) type Restorations = Vec<Outcome<Restoration>>;
/// A registration with the account behind it.
pub(super) type Admitted = (Admission, Account);
