//! What is more than an organisation may keep, of the tables on which no decision depends.

use super::super::StoreError;
use super::super::columns::Row;
use super::super::found::Kept;
use super::super::transaction::ReadTransaction;
use super::super::values::values;
use crate::org::OrgId;

/// The bytes of an audit entry beside its texts: times, numbers, the organisation, the request id, and the index.
const ENTRY: &str = "200";

pub(in super::super) async fn over_rows<T: ReadTransaction>(
    tx: &mut T,
    table: Kept,
    org: OrgId,
    rows: u64,
) -> Result<Option<i64>, StoreError> {
    let (table, place) = (table.name(), table.place());
    let select = format!("SELECT {place} FROM {table} WHERE org_id = $1 ORDER BY {place} DESC LIMIT 1 OFFSET $2");
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    tx.row(&select, values![org, rows]).await?.map_or(Ok(None), |row| row.maybe(0))
}

pub(in super::super) async fn over_bytes<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    bytes: u64,
) -> Result<Option<i64>, StoreError> {
    let select = format!(
        "SELECT seq FROM
             (SELECT seq, SUM({ENTRY} + length(CAST(details AS TEXT)) + length(actor) + COALESCE(length(device_id), 0)
                  + COALESCE(length(reason), 0)) OVER (ORDER BY seq DESC) AS bytes
              FROM audit WHERE org_id = $1) AS entries
         WHERE bytes > $2 ORDER BY seq DESC LIMIT 1"
    );
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    tx.row(&select, values![org, bytes]).await?.map_or(Ok(None), |row| row.maybe(0))
}

pub(in super::super) async fn written<T: ReadTransaction>(tx: &mut T) -> Result<i64, StoreError> {
    let select = "SELECT (SELECT COALESCE(MAX(seq), 0) FROM audit) + (SELECT COALESCE(MAX(seq), 0) FROM timeline)
         + (SELECT COALESCE(MAX(seq), 0) FROM stops)";
    tx.row(select, values![]).await?.map_or(Ok(0), |row| row.get(0))
}
