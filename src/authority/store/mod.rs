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
//! An enum over both and no trait: there are two, both known here, and a call costs no allocation. What each must do is
//! said at the methods of [`Store`] and held by one suite of tests, which runs over both.

mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use self::postgres::Postgres;
use self::sqlite::Sqlite;
use super::audit::{self, Call, Record, Verb};
use super::batch::{Named, Outcome};
use super::changes::{Change, Changes};
use super::database::Database;
use super::keys::SecretHash;
use super::org::{Org, OrgId, PlanTier};
use super::plan::{Account, Admission, Restoration, Suspension};
use super::reports::{HeardDevice, HeardReport, KnownEvent, KnownStop, Unreadable};
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("cannot create {}: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot open the database {}: {source}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("cannot start the threads of the database: {source}")]
    Threads { source: io::Error },
    #[error("cannot bring the database {} to this version: {source}", path.display())]
    Migrate { path: PathBuf, source: rusqlite::Error },
    #[error(
        "another authority already serves the database {}\n\
         Stop that one first. Several servers on one database need PostgreSQL.",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "the database was written by a newer version: it has migration {found}, and this version knows {known}\n\
         Nothing was changed. Run the newer version, or restore a backup from before it."
    )]
    Newer { found: String, known: usize },
    #[error("{} is the database of another program\nNothing was changed. Name another --database.", path.display())]
    Foreign { path: PathBuf },
    #[error("cannot connect to PostgreSQL at {place}: {source}")]
    Connect { place: String, source: sqlx::Error },
    #[error("cannot bring the database at {place} to this version: {source}")]
    MigratePostgres { place: String, source: sqlx::migrate::MigrateError },
    #[error(
        "the database at {place} is a read-only standby\n\
         Name the primary: what a standby says may be old, and a decision must not be."
    )]
    Standby { place: String },
}

/// The store could not do it. Nothing was changed, unless the answer to a commit was lost; asking again is safe, for
/// every operation is idempotent.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database failed, or was busy for too long.
    #[error("the database failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The same of `PostgreSQL`.
    #[error("the database failed: {0}")]
    Postgres(Arc<sqlx::Error>),
    /// Another change in the same transaction failed in a way that undid all of it, as a full disk does.
    #[error("the database undid the transaction; is the disk full?")]
    Undone,
    /// It did not answer in time.
    #[error("the database did not answer in time")]
    Late,
    /// The connection to the database was lost, and is being made again.
    #[error("the connection to the database is lost")]
    Down,
    /// The store was closed, or its thread failed.
    #[error("the store is closed")]
    Closed,
    /// A row makes no sense to this version.
    #[error("the database holds an unusable {0}; was it written by a newer version?")]
    Corrupt(&'static str),
    /// A copy could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: Arc<io::Error> },
    /// Only `SQLite` is backed up from here.
    #[error("a PostgreSQL database is backed up with pg_dump or your provider's means, not from here")]
    NotHere,
}

impl StoreError {
    fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::Unwritable { path, source: Arc::new(source) }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<Unreadable> for StoreError {
    fn from(_: Unreadable) -> Self {
        Self::Corrupt("report")
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(Arc::new(error))
    }
}

/// The store. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Store {
    backend: Backend,
    changes: Changes,
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
    pub(super) async fn open(database: &Database) -> Result<Self, OpenError> {
        let changes = Changes::new();
        let backend = match database {
            Database::Sqlite(path) => Backend::Sqlite(Sqlite::open(path, &changes)?),
            Database::Postgres(url) => Backend::Postgres(Postgres::open(url, &changes).await?),
        };
        Ok(Self { backend, changes })
    }

    /// Where it tells of changes, its own and those of other servers on the same database.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether the database answers.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        either!(self.ping())
    }

    /// Waits for running operations and closes the database.
    pub(super) async fn close(&self) {
        either!(self.close());
    }

    /// Writes a copy of the database, as it is at one moment, to `copy`, which must not exist.
    pub(super) async fn back_up(&self, copy: &Path) -> Result<(), StoreError> {
        either!(self.back_up(copy))
    }

    /// Whose key this is, and that organisation's device `device`, of one moment after this call.
    pub(super) async fn look_up(
        &self,
        key: SecretHash,
        device: Option<&DeviceId>,
    ) -> Result<Option<LookUp>, StoreError> {
        either!(self.look_up(key, device.cloned()))
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

    /// The organisations whose entitlement ended after `after` and by `now`.
    pub(super) async fn ended(&self, after: Timestamp, now: Timestamp) -> Result<Vec<OrgId>, StoreError> {
        either!(self.ended(after, now))
    }

    /// Adds an organisation.
    pub(super) async fn create_org(&self, org: &Org, key: SecretHash, call: &Call) -> Result<(), StoreError> {
        either!(self.create_org(org.clone(), key, call.clone()))
    }

    /// Changes an organisation; `None` when there is none or it was deleted.
    pub(super) async fn change_org(
        &self,
        id: OrgId,
        change: &OrgChange,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        either!(self.change_org(id, change.clone(), call.clone()))
    }

    /// Makes a device known, where there is a place.
    pub(super) async fn register(
        &self,
        org: OrgId,
        id: &DeviceId,
        call: &Call,
    ) -> Result<Option<Admitted>, StoreError> {
        either!(self.register(org, id.clone(), call.clone()))
    }

    /// Revokes each of them, all or none in case of failure.
    pub(super) async fn revoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Suspensions, Account)>, StoreError> {
        either!(self.revoke(org, batch.to_vec(), verb, call.clone()))
    }

    /// Revokes every active device and says how many those were.
    pub(super) async fn revoke_all(&self, org: OrgId, call: &Call) -> Result<Option<(u64, Account)>, StoreError> {
        either!(self.revoke_all(org, call.clone()))
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

    /// Forgets a device; `false` when there was none.
    pub(super) async fn remove(
        &self,
        org: OrgId,
        id: &DeviceId,
        call: &Call,
    ) -> Result<Option<(bool, Account)>, StoreError> {
        either!(self.remove(org, id.clone(), call.clone()))
    }

    /// The organisation's devices in the bytewise order of their ids, with its usage from the same moment.
    pub(super) async fn list(&self, org: OrgId, filter: &Filter) -> Result<Option<(Page, Account)>, StoreError> {
        either!(self.list(org, filter.clone()))
    }

    /// Records when devices, by their numbers, last asked (microseconds since 1970). Unknown numbers are removed ones.
    pub(super) async fn touch(&self, seen: &[(i64, i64)]) -> Result<(), StoreError> {
        either!(self.touch(seen.to_vec()))
    }

    /// Keeps these reports, all or none: what each sidecar says now takes the place of what it said before. Devices that
    /// the organisation does not have are left out, and so is what comes late.
    pub(super) async fn save_reports(&self, reports: Vec<HeardReport>) -> Result<(), StoreError> {
        either!(self.save_reports(reports))
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

/// What one validation needs to know.
#[derive(Clone, Debug)]
pub(super) struct LookUp {
    /// Whose key it is.
    pub(super) org: Org,
    /// The device asked about, if that organisation has it.
    pub(super) device: Option<KnownDevice>,
}

/// A device as a validation sees it.
#[derive(Clone, Debug)]
pub(super) struct KnownDevice {
    /// Its number in the store, never used twice.
    pub(super) seq: i64,
    pub(super) status: DeviceStatus,
    pub(super) revoked_at: Option<Timestamp>,
    /// Why it is revoked, when whoever revoked it said so.
    pub(super) revoke_reason: Option<String>,
}

/// One device of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedDevice {
    pub(super) id: String,
    pub(super) created_at: Timestamp,
    pub(super) last_seen_at: Option<Timestamp>,
    pub(super) revoked_at: Option<Timestamp>,
    pub(super) revoke_reason: Option<String>,
}

/// Which devices to list, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) status: Option<DeviceStatus>,
    /// Only ids that contain this.
    pub(super) containing: Option<String>,
    /// Only ids behind this one.
    pub(super) after: Option<DeviceId>,
    /// Only this one.
    pub(super) only: Option<DeviceId>,
    /// Only those revoked by the call of this time.
    pub(super) revoked_at: Option<Timestamp>,
    /// At most so many; `None` for all.
    pub(super) limit: Option<u32>,
    /// Of a fleet: count the sidecars and agents of the whole organisation too, which takes longer the more there are.
    pub(super) counted: bool,
}

impl Filter {
    /// How many rows to fetch: one more than asked for tells whether there are more.
    fn fetch(&self) -> i64 {
        self.limit.map_or(i64::MAX, |limit| i64::from(limit) + 1)
    }

    /// The page that so many fetched rows make.
    fn page(&self, mut devices: Vec<ListedDevice>) -> Page {
        let wanted = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let more = devices.len() > wanted;
        devices.truncate(wanted);
        Page { devices, more }
    }
}

/// A page of devices.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) devices: Vec<ListedDevice>,
    /// Whether there are more behind the last one.
    pub(super) more: bool,
}

/// Sidecars remembered for one device: a device is one agent's or one host's, so more are a mistake or mischief.
const KEPT_SIDECARS: i64 = 64;

/// Stops remembered for one device.
const KEPT_STOPS: i64 = 20;

/// Events remembered for one device.
const KEPT_EVENTS: i64 = 200;

/// A page of the fleet.
#[derive(Clone, Debug)]
pub(super) struct FleetRows {
    pub(super) devices: Vec<FleetRow>,
    /// Whether there are more behind the last one.
    pub(super) more: bool,
    /// How many sidecars of the whole organisation report; 0 when they were not to be counted.
    pub(super) sidecars: u64,
    /// How many agents those have, each once; as `sidecars`, on the first page.
    pub(super) agents: u64,
}

/// A device with what its sidecars said.
#[derive(Clone, Debug)]
pub(super) struct FleetRow {
    pub(super) device: ListedDevice,
    /// Those heard from last first.
    pub(super) heard: Vec<HeardDevice>,
    pub(super) last_stop: Option<KnownStop>,
}

/// What a stop of many has led to so far.
#[derive(Clone, Debug)]
pub(super) struct Aftermath {
    /// Devices that are revoked by it.
    pub(super) devices: u64,
    pub(super) reason: Option<String>,
    /// What each sidecar says about each of them, by device.
    pub(super) heard: Vec<HeardOf>,
    /// Stops of their agents that began since.
    pub(super) stops: Vec<KnownStop>,
}

/// What a sidecar said about a device.
#[derive(Clone, Debug)]
pub(super) struct HeardOf {
    pub(super) device: String,
    pub(super) last_seen_at: Option<Timestamp>,
    pub(super) heard: HeardDevice,
}

/// A row of what a sidecar said about a device.
struct Heard {
    sidecar: String,
    at: i64,
    body: String,
}

/// What became of `all_revoked`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RestoredAll {
    /// The restored ids, newest revoke first.
    pub(super) restored: Vec<String>,
    /// Revoked devices that found no place.
    pub(super) left: u64,
}

impl RestoredAll {
    /// What the audit says about it.
    fn record(&self, org: OrgId) -> Record {
        let done = Record::ok(org, Verb::UnrevokeBatch).with("scope", "all_revoked");
        done.with("unrevoked", self.restored.len()).with("left", self.left)
    }
}

/// What an operator changes about an organisation.
#[derive(Clone, Debug)]
pub(super) enum OrgChange {
    Disabled(bool),
    Frozen(bool),
    AccessUntil(Option<Timestamp>),
    /// The plan, and a limit to hold instead of its own.
    Plan(PlanTier, Option<u64>),
    Key(SecretHash),
    /// Forgets its devices and keeps its key as that of a deleted organisation.
    Delete,
}

impl OrgChange {
    /// What those who wait are told of it.
    fn news(&self, org: OrgId) -> Change {
        match self {
            Self::Key(_) | Self::Delete => Change::Key(org),
            Self::Disabled(_) | Self::Frozen(_) | Self::AccessUntil(_) | Self::Plan(..) => Change::Org(org),
        }
    }

    /// What the audit says about it.
    fn record(&self, org: OrgId) -> Record {
        match self {
            Self::Disabled(true) => Record::ok(org, Verb::DisableOrg),
            Self::Disabled(false) => Record::ok(org, Verb::EnableOrg),
            Self::Frozen(true) => Record::ok(org, Verb::FreezeOrg),
            Self::Frozen(false) => Record::ok(org, Verb::UnfreezeOrg),
            Self::AccessUntil(end) => {
                Record::ok(org, Verb::ExpireOrg).with("accessUntil", end.map(|end| end.to_string()))
            }
            Self::Plan(tier, None) => Record::ok(org, Verb::SetPlan).with("plan", tier.as_str()),
            Self::Plan(tier, Some(limit)) => {
                Record::ok(org, Verb::SetPlan).with("plan", tier.as_str()).with("limit", *limit)
            }
            Self::Key(hash) => Record::ok(org, Verb::RotateKey).with("key", hash.fingerprint()),
            Self::Delete => Record::ok(org, Verb::DeleteOrg),
        }
    }
}

/// A purchase that waits to be confirmed.
#[derive(Clone, Debug)]
pub(super) struct Checkout {
    /// Its name, no secret.
    pub(super) number: String,
    pub(super) org: Org,
    pub(super) wanted: PlanTier,
    pub(super) expires_at: Timestamp,
    pub(super) used: bool,
}

impl Checkout {
    /// Whether it can still be confirmed.
    pub(super) fn open(&self, now: Timestamp) -> bool {
        !self.used && !self.org.deleted && now < self.expires_at
    }

    /// What the audit says when it was linked or confirmed.
    fn record(&self, verb: Verb) -> Record {
        Record::ok(self.org.id, verb).with("checkout", self.number.as_str()).with("plan", self.wanted.as_str())
    }
}

/// A purchase to be kept.
#[derive(Clone, Debug)]
pub(super) struct NewCheckout {
    pub(super) number: String,
    pub(super) wanted: PlanTier,
    /// Of the secret in its address.
    pub(super) token: SecretHash,
    pub(super) expires_at: Timestamp,
}

impl NewCheckout {
    fn record(&self, org: OrgId) -> Record {
        Record::ok(org, Verb::Checkout).with("checkout", self.number.as_str()).with("plan", self.wanted.as_str())
    }
}

/// By what a purchase is found.
#[derive(Clone, Debug)]
pub(super) enum CheckoutKey {
    /// The secret in the address that whoever holds the org key got: shows it.
    Address(SecretHash),
    /// The secret that an operator got: shows it, and confirms it.
    Link(SecretHash),
    /// Its number, for an operator on the admin socket.
    Number(String),
}

/// The result of a batch revoke, one entry for each distinct id.
pub(super) type Suspensions = Vec<Outcome<Suspension>>;
/// The result of a batch unrevoke, one entry for each distinct id.
pub(super) type Restorations = Vec<Outcome<Restoration>>;
/// A registration with the account behind it.
pub(super) type Admitted = (Admission, Account);

fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt("time"))
}

/// A device with the rows about it. What was said about an earlier device of that name is not said about this one.
fn reports_of(
    device: ListedDevice,
    heard: Vec<Heard>,
    last_stop: Option<(i64, String)>,
) -> Result<FleetRow, StoreError> {
    let mut row = FleetRow { device, heard: Vec::with_capacity(heard.len()), last_stop: None };
    for Heard { sidecar, at, body } in heard {
        let at = time(at)?;
        if at >= row.device.created_at {
            row.heard.push(HeardDevice::read(&sidecar, at, &body)?);
        }
    }
    if let Some((at, body)) = last_stop {
        row.last_stop = Some(KnownStop::read(time(at)?, &body)?);
    }
    Ok(row)
}

impl HeardOf {
    fn read(device: String, seen: Option<i64>, heard: &Heard) -> Result<Self, StoreError> {
        let last_seen_at = seen.map(time).transpose()?;
        Ok(Self { device, last_seen_at, heard: HeardDevice::read(&heard.sidecar, time(heard.at)?, &heard.body)? })
    }
}

fn status(revoked_at: Option<i64>) -> DeviceStatus {
    if revoked_at.is_some() { DeviceStatus::Revoked } else { DeviceStatus::Active }
}

fn count(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt("count"))
}

fn stored_limit(limit: Option<u64>) -> Option<i64> {
    limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// An organisation from the columns of its row; the flags are disabled and frozen.
#[expect(clippy::too_many_arguments, reason = "a row has as many columns as it has")]
fn org_from(
    id: &str,
    name: Option<String>,
    plan: &str,
    limit: Option<i64>,
    (disabled, frozen): (bool, bool),
    access_until: Option<i64>,
    created_at: i64,
    deleted: bool,
) -> Result<Org, StoreError> {
    Ok(Org {
        id: id.parse().map_err(|_| StoreError::Corrupt("organisation id"))?,
        name,
        tier: plan.parse().map_err(|_| StoreError::Corrupt("plan"))?,
        device_limit: limit.map(count).transpose()?,
        disabled,
        frozen,
        access_until: access_until.map(time).transpose()?,
        created_at: time(created_at)?,
        deleted,
    })
}

/// A line of the audit from the columns of its row; the texts are request id, actor and verb.
#[expect(clippy::too_many_arguments, reason = "a row has as many columns as it has")]
fn entry_from(
    id: i64,
    at: i64,
    org: &str,
    [request_id, actor, verb]: [String; 3],
    device_id: Option<String>,
    outcome: String,
    reason: Option<String>,
    details: &str,
) -> Result<audit::Entry, StoreError> {
    Ok(audit::Entry {
        id,
        at: time(at)?,
        org_id: org.parse().map_err(|_| StoreError::Corrupt("organisation id"))?,
        request_id,
        actor,
        verb,
        device_id,
        outcome,
        reason,
        details: serde_json::from_str(details).map_err(|_| StoreError::Corrupt("audit entry"))?,
    })
}
