//! Database rows into types.

use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};

use super::super::{StoreError, count, org_from};
use super::{Db, Transaction};
use crate::authority::org::{Org, OrgId};
use crate::authority::plan::Account;

/// The columns of an organisation, for a `SELECT` from `orgs`.
macro_rules! org_columns {
    () => {
        "orgs.id, orgs.name, orgs.key_hash, orgs.plan, orgs.device_limit, orgs.disabled, orgs.frozen, orgs.access_until, orgs.created_at, orgs.deleted_at, orgs.active, orgs.old_key_hash, orgs.old_key_ends"
    };
}
pub(super) use org_columns;

/// How many those are: where the columns behind them begin.
pub(super) const ORG_COLUMNS: usize = 13;

pub(super) fn org(row: &PgRow) -> Result<Org, StoreError> {
    org_from(
        row.try_get(0)?,
        row.try_get(1)?,
        row.try_get(3)?,
        row.try_get(4)?,
        (row.try_get(5)?, row.try_get(6)?),
        row.try_get(7)?,
        row.try_get(8)?,
        row.try_get::<Option<i64>, _>(9)?.is_some(),
        row.try_get(12)?,
    )
}

pub(super) fn account(row: &PgRow) -> Result<Account, StoreError> {
    Ok(Account { org: org(row)?, used: count(row.try_get(10)?)? })
}

/// The organisation and its usage, a deleted one too.
pub(super) async fn any_account<'a>(
    db: impl Executor<'a, Database = Db>,
    id: OrgId,
) -> Result<Option<Account>, StoreError> {
    let row = sqlx::query(concat!("SELECT ", org_columns!(), " FROM orgs WHERE id = $1"))
        .bind(id.to_string())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(account).transpose()
}

/// The organisation and its usage, with no other change of it or its devices until the transaction ends; `None` when it
/// is gone. Taken first by everything that changes something, so that nobody waits for each other.
pub(super) async fn locked_account(
    tx: &mut Transaction<'static, Db>,
    id: OrgId,
) -> Result<Option<Account>, StoreError> {
    let row = sqlx::query(concat!("SELECT ", org_columns!(), " FROM orgs WHERE id = $1 FOR UPDATE"))
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.as_ref().map(account).transpose()?.filter(|account| !account.org.deleted))
}

/// Writes how many devices are active.
pub(super) async fn set_used(tx: &mut Transaction<'static, Db>, account: &Account) -> Result<(), StoreError> {
    sqlx::query("UPDATE orgs SET active = $2 WHERE id = $1")
        .bind(account.org.id.to_string())
        .bind(i64::try_from(account.used).map_err(|_| StoreError::Corrupt("count"))?)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Text to look for. `PostgreSQL` fails at a NUL, where it should find nothing: nothing that is looked through has this
/// character either.
pub(super) fn sought(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
