//! Database rows into types, and back.

use jiff::Timestamp;
use sqlx::FromRow;

use super::StoreError;
use crate::authority::org::Org;
use crate::protocol::api::DeviceStatus;

/// The columns of [`OrgRow`], for a `SELECT` from `orgs`.
macro_rules! org_columns {
    () => {
        "orgs.id, orgs.name, orgs.key_hash, orgs.plan, orgs.disabled, orgs.frozen, orgs.access_until, orgs.created_at AS org_created_at, orgs.deleted_at"
    };
}
pub(super) use org_columns;

#[derive(Debug, FromRow)]
pub(super) struct OrgRow {
    id: String,
    name: Option<String>,
    pub(super) key_hash: Vec<u8>,
    plan: String,
    disabled: bool,
    frozen: bool,
    access_until: Option<i64>,
    org_created_at: i64,
    deleted_at: Option<i64>,
}

impl OrgRow {
    pub(super) fn into_org(self) -> Result<Org, StoreError> {
        Ok(Org {
            id: self.id.parse().map_err(|_| StoreError::Corrupt("organisation id"))?,
            name: self.name,
            tier: self.plan.parse().map_err(|_| StoreError::Corrupt("plan"))?,
            disabled: self.disabled,
            frozen: self.frozen,
            access_until: self.access_until.map(time).transpose()?,
            created_at: time(self.org_created_at)?,
            deleted: self.deleted_at.is_some(),
        })
    }
}

pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt("time"))
}

pub(super) fn status(revoked_at: Option<i64>) -> DeviceStatus {
    if revoked_at.is_some() { DeviceStatus::Revoked } else { DeviceStatus::Active }
}

pub(super) fn count(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt("count"))
}
