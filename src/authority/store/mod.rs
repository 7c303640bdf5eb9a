//! Where organisations and devices are kept.
//!
//! Every operation is one transaction, and what it decides it asks the pure rules of [`super::plan`]. A change is
//! durable and visible to every later read before the operation returns. `None` means that the organisation is gone.
//! Every failure is a [`StoreError`], and whoever gets one must say no.
//!
//! There is one store now. A second one becomes an enum over both here, held to the same `tests`: they ask for nothing
//! that is particular to `SQLite`.

mod audit;
mod devices;
mod orgs;
mod reports;
mod rows;
mod sqlite;
#[cfg(test)]
mod tests;

pub(super) use sqlite::{OpenError, Store};

use jiff::Timestamp;

use super::audit::{Record, Verb};
use super::org::{Org, OrgId, PlanTier};
use super::plan::{Admission, Restoration, Suspension};
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

/// The store could not do it. Nothing was changed, unless the answer to a commit was lost; asking again is safe, for
/// every operation is idempotent.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database failed, or was busy for too long.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A row makes no sense to this version.
    #[error("the database holds an unusable {0}; was it written by a newer version?")]
    Corrupt(&'static str),
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
    /// At most so many; `None` for all.
    pub(super) limit: Option<u32>,
}

/// A page of devices.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) devices: Vec<ListedDevice>,
    /// Whether there are more behind the last one.
    pub(super) more: bool,
}

/// What became of one entry of a batch; `Invalid` when it was no device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    Invalid,
    Did(T),
}

/// What became of `all_revoked`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RestoredAll {
    /// The restored ids, newest revoke first.
    pub(super) restored: Vec<String>,
    /// Revoked devices that found no place.
    pub(super) left: u64,
}

/// What an operator changes about an organisation.
#[derive(Clone, Debug)]
pub(super) enum OrgChange {
    Disabled(bool),
    Frozen(bool),
    AccessUntil(Option<Timestamp>),
    Plan(PlanTier),
    Key(super::keys::SecretHash),
    /// Forgets its devices and keeps its key as that of a deleted organisation.
    Delete,
}

impl OrgChange {
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
            Self::Plan(tier) => Record::ok(org, Verb::SetPlan).with("plan", tier.as_str()),
            Self::Key(hash) => Record::ok(org, Verb::RotateKey).with("key", hash.fingerprint()),
            Self::Delete => Record::ok(org, Verb::DeleteOrg),
        }
    }
}

/// A purchase that waits to be confirmed.
#[derive(Clone, Debug)]
pub(super) struct Checkout {
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
}

/// The result of a batch revoke, one entry for each distinct id.
pub(super) type Suspensions = Vec<Outcome<Suspension>>;
/// The result of a batch unrevoke, one entry for each distinct id.
pub(super) type Restorations = Vec<Outcome<Restoration>>;
/// A registration with the account behind it.
pub(super) type Admitted = (Admission, super::plan::Account);
