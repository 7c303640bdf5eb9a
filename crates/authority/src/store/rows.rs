//! The row of an organisation.

use super::super::org::{Org, Switches};
use super::super::plan::Account;
use super::StoreError;
use super::columns::Row;

/// The columns that [`org`] and [`account`] read, for a `SELECT` from `orgs`.
macro_rules! org_columns {
    () => {
        "orgs.id, orgs.name, orgs.key_hash, orgs.plan, orgs.device_limit, orgs.disabled, orgs.frozen, orgs.access_until, orgs.created_at, orgs.deleted_at, orgs.active, orgs.old_key_hash, orgs.old_key_ends, orgs.off_own, orgs.off_operator, orgs.restore_needs"
    };
}
pub(super) use org_columns;

/// The number of these columns: the first column after them has this index.
pub(super) const ORG_COLUMNS: usize = 16;

pub(super) fn org(row: &impl Row) -> Result<Org, StoreError> {
    Ok(Org {
        id: row.get(0)?,
        name: row.maybe(1)?,
        tier: row.get(3)?,
        device_limit: row.maybe(4)?,
        disabled: row.get(5)?,
        off: Switches::read(row.get(5)?, row.get(13)?, row.get(14)?),
        frozen: row.get(6)?,
        access_until: row.maybe(7)?,
        created_at: row.get(8)?,
        deleted: row.integer(9)?.is_some(),
        old_key_ends: row.maybe(12)?,
        restore_needs: u8::try_from(row.get::<i64>(15)?).map_err(|_| StoreError::Corrupt("number of keys"))?,
    })
}

pub(super) fn account(row: &impl Row) -> Result<Account, StoreError> {
    Ok(Account { org: org(row)?, used: row.get(10)? })
}
