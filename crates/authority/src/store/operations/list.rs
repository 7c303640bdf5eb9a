//! Lists devices by pages.

use std::collections::HashSet;

use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::super::columns::Row;
use super::super::transaction::ReadTransaction;
use super::super::values::{Statement, sought, values};
use super::super::{Filter, ListedDevice, Page, StoreError};
use super::orgs::live_account;
use crate::org::OrgId;
use crate::plan::Account;

/// Whether a device's last request used another key than the current one of organisation `$1`; NULL when it never
/// asked.
const OLD_KEY: &str = "(device_seen.key_mark <> (SELECT substr(key_hash, 1, 6) FROM orgs WHERE orgs.id = $1)
     AND NOT EXISTS (SELECT 1 FROM org_keys WHERE org_keys.org_id = $1 AND NOT org_keys.replaced
         AND substr(org_keys.key_hash, 1, 6) = device_seen.key_mark))";

pub(in super::super) async fn list<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    filter: &Filter,
) -> Result<Option<(Page, Account)>, StoreError> {
    let Some(account) = live_account(tx, org).await? else { return Ok(None) };
    Ok(Some((page(tx, org, filter).await?, account)))
}

/// A page of devices.
pub(super) async fn page<T: ReadTransaction>(tx: &mut T, org: OrgId, filter: &Filter) -> Result<Page, StoreError> {
    let status = match filter.status {
        Some(DeviceStatus::Active) => " AND revoked_at IS NULL",
        Some(DeviceStatus::Revoked) => " AND revoked_at IS NOT NULL",
        None => "",
    };
    let old_key = if filter.old_key { format!(" AND {OLD_KEY}") } else { String::new() };
    let mut select = Statement::new(
        format!(
            "SELECT device_id, created_at, device_seen.at, revoked_at, revoke_reason, ephemeral, {OLD_KEY}, seq FROM devices
             LEFT JOIN device_seen USING (seq) WHERE org_id = $1{status}{old_key}"
        ),
        values![org],
    );
    if let Some(part) = &filter.containing {
        select.add(sought(part), |part| format!("AND {}", T::DIALECT.contains("device_id", part)));
    }
    if let Some(after) = &filter.after {
        select.add(after, |after| format!("AND device_id > {after}"));
    }
    if let Some(among) = &filter.among {
        select.add(&among[..], |among| format!("AND device_id {}", T::DIALECT.among(among)));
    }
    if let Some(only) = &filter.only {
        select.add(only, |only| format!("AND device_id = {only}"));
    }
    if let Some(at) = filter.revoked_at {
        select.add(at, |at| format!("AND revoked_at = {at}"));
    }
    select.add(filter.fetch(), |limit| format!("ORDER BY device_id LIMIT {limit}"));
    let rows = tx.rows(&select.sql, select.values).await?;
    Ok(filter.page(rows.iter().map(device).collect::<Result<_, _>>()?))
}

/// Which of these devices are registered.
pub(in super::super) async fn registered<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    ids: &[DeviceId],
) -> Result<HashSet<DeviceId>, StoreError> {
    let among = T::DIALECT.among("$2");
    let select = format!("SELECT device_id FROM devices WHERE org_id = $1 AND device_id {among}");
    tx.rows(&select, values![org, ids]).await?.iter().map(|row| row.get(0)).collect()
}

fn device(row: &impl Row) -> Result<ListedDevice, StoreError> {
    Ok(ListedDevice {
        id: row.get(0)?,
        seq: row.get(7)?,
        created_at: row.get(1)?,
        last_seen_at: row.maybe(2)?,
        revoked_at: row.maybe(3)?,
        revoke_reason: row.maybe(4)?,
        ephemeral: row.get(5)?,
        old_key: row.flag(6)?.unwrap_or(false),
        unwritten: false,
    })
}
