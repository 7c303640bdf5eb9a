//! Database rows into types.

use rusqlite::{Connection, OptionalExtension, Row};

use super::super::{StoreError, count, org_from, time};
use crate::authority::org::{Org, OrgId};
use crate::authority::plan::Account;

/// The columns that [`org`] reads, for a `SELECT` from `orgs`.
macro_rules! org_columns {
    () => {
        "orgs.id, orgs.name, orgs.key_hash, orgs.plan, orgs.device_limit, orgs.disabled, orgs.frozen, orgs.access_until, orgs.created_at, orgs.deleted_at, orgs.active, orgs.old_key_hash, orgs.old_key_ends"
    };
}
pub(super) use org_columns;

/// How many those are: where the columns behind them begin.
pub(super) const ORG_COLUMNS: usize = 13;

pub(super) fn org(row: &Row<'_>) -> Result<Org, StoreError> {
    org_from(
        &row.get::<_, String>(0)?,
        row.get(1)?,
        &row.get::<_, String>(3)?,
        row.get(4)?,
        (row.get(5)?, row.get(6)?),
        row.get(7)?,
        row.get(8)?,
        row.get::<_, Option<i64>>(9)?.is_some(),
        row.get(12)?,
    )
}

pub(super) fn account(row: &Row<'_>) -> Result<Account, StoreError> {
    Ok(Account { org: org(row)?, used: count(row.get(10)?)? })
}

/// The organisation and its usage, a deleted one too.
pub(super) fn any_account(db: &Connection, id: OrgId) -> Result<Option<Account>, StoreError> {
    let mut statement = db.prepare_cached(concat!("SELECT ", org_columns!(), " FROM orgs WHERE id = ?1"))?;
    let mut rows = statement.query([id.to_string()])?;
    rows.next()?.map(account).transpose()
}

/// The organisation and its usage; `None` when it is gone.
pub(super) fn live_account(db: &Connection, id: OrgId) -> Result<Option<Account>, StoreError> {
    Ok(any_account(db, id)?.filter(|account| !account.org.deleted))
}

/// Writes how many devices are active.
pub(super) fn set_used(db: &Connection, account: &Account) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE orgs SET active = ?2 WHERE id = ?1")?.execute((
        account.org.id.to_string(),
        i64::try_from(account.used).map_err(|_| StoreError::Corrupt("count"))?,
    ))?;
    Ok(())
}

/// What is held of one device.
pub(super) fn held(
    db: &Connection,
    org: OrgId,
    device: &str,
) -> Result<Option<crate::protocol::api::DeviceStatus>, StoreError> {
    let revoked_at: Option<Option<i64>> = db
        .prepare_cached("SELECT revoked_at FROM devices WHERE org_id = ?1 AND device_id = ?2")?
        .query_row((org.to_string(), device), |row| row.get(0))
        .optional()?;
    Ok(revoked_at.map(super::super::status))
}

pub(super) fn optional_time(micros: Option<i64>) -> Result<Option<jiff::Timestamp>, StoreError> {
    micros.map(time).transpose()
}
