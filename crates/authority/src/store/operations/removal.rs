//! Removes devices: on an operator's request, and ephemeral devices that have not been seen for a while.

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::super::approvals::Gated;
use super::super::columns::Row;
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::values;
use super::super::{AGED_AT_ONCE, StoreError};
use super::approvals::{held_back, stopped, waits};
use super::audit::record;
use super::devices::held;
use super::orgs::{locked_account, set_used};
use crate::approvals::Action;
use crate::audit::{Call, Record};
use crate::changes::Change;
use crate::org::OrgId;
use crate::plan::{self, Account, Removal};

/// Active ephemeral devices that were last seen before `$1`, or were registered before it and never seen.
macro_rules! aged {
    ($columns:literal, $conditions:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM devices LEFT JOIN device_seen USING (seq) WHERE ephemeral AND revoked_at IS NULL
              AND created_at < $1 AND COALESCE(device_seen.at, created_at) < $1",
            $conditions
        )
    };
}

pub(in super::super) async fn remove<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    id: &DeviceId,
    only_active: bool,
    call: &Call,
) -> Result<Gated<Option<(Removal, Account)>>, StoreError> {
    let Some(account) = locked_account(tx, org).await? else { return Ok(Gated::Done(None)) };
    // A revoked device that is removed could register again. The removal of an active one stops it.
    if waits(&account, call)
        && !only_active
        && let Some(device) = stopped(tx, org, std::slice::from_ref(id)).await?.pop()
        && let Some(held_back) = held_back(tx, &account, Action::Remove { device }, call).await?
    {
        return Ok(held_back);
    }
    Ok(Gated::Done(Some(take_away(tx, account, id, only_active, call).await?)))
}

/// Removes this device, which waits for nothing any more.
pub(super) async fn take_away<T: Transaction>(
    tx: &mut T,
    mut account: Account,
    id: &DeviceId,
    only_active: bool,
    call: &Call,
) -> Result<(Removal, Account), StoreError> {
    let org = account.org.id;
    let known = held(tx, org, std::slice::from_ref(id)).await?.get(id).copied();
    let removal = plan::remove(known, only_active);
    record(tx, call, Record::remove(org, id.as_str(), removal)).await?;
    if removal != Removal::Removed {
        return Ok((removal, account));
    }
    forget(tx, org, std::slice::from_ref(id)).await?;
    if known == Some(DeviceStatus::Active) {
        account.used = account.used.saturating_sub(1);
        set_used(tx, &account).await?;
    }
    tx.tell(Change::Denied(org, Some(vec![id.clone()])));
    Ok((removal, account))
}

pub(in super::super) async fn aged<T: ReadTransaction>(
    tx: &mut T,
    before: Timestamp,
) -> Result<Vec<OrgId>, StoreError> {
    tx.rows(aged!("DISTINCT org_id", ""), values![before]).await?.iter().map(|row| row.get(0)).collect()
}

pub(in super::super) async fn age_out<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    before: Timestamp,
    call: &Call,
) -> Result<u64, StoreError> {
    let Some(mut account) = locked_account(tx, org).await? else { return Ok(0) };
    let select = aged!("device_id", " AND org_id = $2 ORDER BY seq LIMIT $3");
    let ids = device_ids(&tx.rows(select, values![before, org, AGED_AT_ONCE]).await?)?;
    if ids.is_empty() {
        return Ok(0);
    }
    // Last-seen times are written without the organisation's lock. After locking these rows (in the order in which they
    // are written), devices that were seen since the first look are left out.
    let lock = format!(
        "SELECT seq FROM device_seen WHERE seq IN (SELECT seq FROM devices WHERE org_id = $1 AND device_id {})
         ORDER BY seq{}",
        T::DIALECT.among("$2"),
        T::DIALECT.locked()
    );
    tx.rows(&lock, values![org, &ids[..]]).await?;
    let select = format!("{} {}", aged!("device_id", " AND org_id = $2 AND device_id"), T::DIALECT.among("$3"));
    let ids = device_ids(&tx.rows(&select, values![before, org, &ids[..]]).await?)?;
    if ids.is_empty() {
        return Ok(0);
    }
    forget(tx, org, &ids).await?;
    let gone = ids.len() as u64;
    account.used = account.used.saturating_sub(gone);
    set_used(tx, &account).await?;
    record(tx, call, Record::age_out(org, &ids, before)).await?;
    tx.tell(Change::Denied(org, Some(ids)));
    Ok(gone)
}

fn device_ids(rows: &[impl Row]) -> Result<Vec<DeviceId>, StoreError> {
    rows.iter().map(|row| row.get(0)).collect()
}

/// Deletes these devices. The reported stops and events of a device that was ever revoked are kept, and so are those of
/// an earlier device with the same id.
async fn forget<T: Transaction>(tx: &mut T, org: OrgId, ids: &[DeviceId]) -> Result<(), StoreError> {
    let among = T::DIALECT.among("$2");
    // NULL for a device that was ever revoked, so that nothing is deleted.
    let since = |table: &str| {
        format!(
            "(SELECT created_at FROM devices AS d WHERE d.org_id = {table}.org_id AND d.device_id = {table}.device_id
              AND NOT d.was_revoked AND d.revoked_at IS NULL)"
        )
    };
    let (stops, timeline) = (since("stops"), since("timeline"));
    for delete in [
        format!("DELETE FROM reports WHERE org_id = $1 AND device_id {among}"),
        format!("DELETE FROM validators WHERE org_id = $1 AND device_id {among}"),
        format!("DELETE FROM stops WHERE org_id = $1 AND device_id {among} AND began_at >= {stops}"),
        format!("DELETE FROM timeline WHERE org_id = $1 AND device_id {among} AND at >= {timeline}"),
        format!(
            "DELETE FROM device_seen WHERE seq IN (SELECT seq FROM devices WHERE org_id = $1 AND device_id {among})"
        ),
        format!("DELETE FROM devices WHERE org_id = $1 AND device_id {among}"),
    ] {
        tx.run(&delete, values![org, ids]).await?;
    }
    Ok(())
}
