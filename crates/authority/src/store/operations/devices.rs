//! Registers, revokes and restores devices.

use std::collections::HashMap;

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::super::approvals::Gated;
use super::super::columns::{Row, status};
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::{Value, values};
use super::super::{Admitted, Restorations, RestoredAll, StoreError, Suspensions};
use super::approvals::{count_stop, held_back, stopped, waits};
use super::audit::{reason, record};
use super::orgs::{live_account, locked_account, set_used};
use crate::approvals::Action;
use crate::audit::{Call, Record, Verb};
use crate::batch::Named;
use crate::changes::Change;
use crate::org::OrgId;
use crate::plan::{self, Account, Admission};

pub(in super::super) async fn register<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    id: &DeviceId,
    ephemeral: Option<bool>,
    call: &Call,
) -> Result<Option<Admitted>, StoreError> {
    let Some(mut account) = locked_account(tx, org).await? else { return Ok(None) };
    let known = held(tx, org, std::slice::from_ref(id)).await?.get(id).copied();
    let limit = account.org.limit();
    // Counted only for a new device, and only as far as it matters.
    let revoked = if known.is_none() { revoked(tx, org, plan::most_revoked(limit)).await? } else { 0 };
    let admission = plan::admit(known, account.used, limit, revoked);
    if admission != Admission::New {
        if let Some(ephemeral) = ephemeral {
            let update = "UPDATE devices SET ephemeral = $3 WHERE org_id = $1 AND device_id = $2 AND ephemeral <> $3";
            tx.run(update, values![org, id, ephemeral]).await?;
        }
        // A device that returns after a long time must not age out before it validates.
        let seen = "INSERT INTO device_seen (seq, at) SELECT seq, $3 FROM devices
             WHERE org_id = $1 AND device_id = $2 AND ephemeral AND revoked_at IS NULL
             ON CONFLICT (seq) DO UPDATE SET at = excluded.at WHERE excluded.at > device_seen.at";
        tx.run(seen, values![org, id, call.at]).await?;
        return Ok(Some((admission, account)));
    }
    tx.grow()?;
    let insert = "INSERT INTO devices (org_id, device_id, created_at, ephemeral) VALUES ($1, $2, $3, $4)";
    tx.run(insert, values![org, id, call.at, ephemeral.unwrap_or(false)]).await?;
    account.used += 1;
    set_used(tx, &account).await?;
    record(tx, call, Record::ok(org, Verb::Register).about(id.as_str())).await?;
    tx.tell(Change::Devices(org, vec![id.clone()]));
    Ok(Some((admission, account)))
}

pub(in super::super) async fn revoke<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    batch: &[Named],
    verb: Verb,
    call: &Call,
) -> Result<Option<(Suspensions, Account)>, StoreError> {
    let Some(mut account) = locked_account(tx, org).await? else { return Ok(None) };
    let (outcomes, changed) = plan::suspend_batch(batch, &held(tx, org, &ids(batch)).await?);
    set_revoked(tx, org, &changed, Some(call)).await?;
    // One that is revoked already is stopped again.
    let stopped = plan::suspended(batch, &outcomes);
    count_stop(tx, &account, Some(&stopped)).await?;
    account.used = account.used.saturating_sub(changed.len() as u64);
    set_used(tx, &account).await?;
    record(tx, call, Record::revoke(org, verb, batch, &outcomes)).await?;
    tx.tell(Change::Denied(org, Some(stopped)));
    Ok(Some((outcomes, account)))
}

/// The newest devices that a stop of all is about.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Existing {
    /// The highest number.
    pub(super) seq: i64,
    /// The latest time of registration.
    pub(super) created_at: Timestamp,
}

impl Existing {
    /// Every device there is.
    pub(in super::super) const ALL: Self = Self { seq: i64::MAX, created_at: Timestamp::MAX };
}

/// Revokes the active devices among `existing`.
pub(in super::super) async fn revoke_all<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    existing: Existing,
    call: &Call,
) -> Result<Option<(u64, Account)>, StoreError> {
    let Some(mut account) = locked_account(tx, org).await? else { return Ok(None) };
    let update = "UPDATE devices SET revoked_at = $2, revoke_reason = $3, was_revoked = TRUE
         WHERE org_id = $1 AND revoked_at IS NULL AND seq <= $4 AND created_at <= $5";
    let done = tx.run(update, values![org, call.at, reason(call), existing.seq, existing.created_at]).await?;
    count_stop(tx, &account, None).await?;
    account.used = account.used.saturating_sub(done);
    set_used(tx, &account).await?;
    let all = Record::ok(org, Verb::RevokeBatch).with("scope", "all_active").with("revoked", done);
    record(tx, call, all).await?;
    tx.tell(Change::Denied(org, None));
    Ok(Some((done, account)))
}

pub(in super::super) async fn unrevoke<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    batch: &[Named],
    verb: Verb,
    call: &Call,
) -> Result<Gated<Option<(Restorations, Account)>>, StoreError> {
    let Some(account) = locked_account(tx, org).await? else { return Ok(Gated::Done(None)) };
    if waits(&account, call) {
        let devices = stopped(tx, org, &ids(batch)).await?;
        if !devices.is_empty()
            && let Some(held_back) = held_back(tx, &account, Action::Unrevoke { devices }, call).await?
        {
            return Ok(held_back);
        }
    }
    Ok(Gated::Done(Some(restore(tx, account, batch, verb, call).await?)))
}

/// Restores these devices, which waits for nothing any more.
pub(super) async fn restore<T: Transaction>(
    tx: &mut T,
    mut account: Account,
    batch: &[Named],
    verb: Verb,
    call: &Call,
) -> Result<(Restorations, Account), StoreError> {
    let org = account.org.id;
    let known = held(tx, org, &ids(batch)).await?;
    let (outcomes, changed) = plan::restore_batch(batch, &known, account.used, account.org.limit());
    set_revoked(tx, org, &changed, None).await?;
    account.used += changed.len() as u64;
    set_used(tx, &account).await?;
    record(tx, call, Record::unrevoke(org, verb, batch, &outcomes)).await?;
    tx.tell(Change::Devices(org, changed));
    Ok((outcomes, account))
}

pub(in super::super) async fn unrevoke_all<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    call: &Call,
) -> Result<Gated<Option<(RestoredAll, Account)>>, StoreError> {
    let Some(account) = locked_account(tx, org).await? else { return Ok(Gated::Done(None)) };
    if waits(&account, call)
        && revoked_count(tx, org).await? > 0
        && let Some(held_back) = held_back(tx, &account, Action::UnrevokeAll, call).await?
    {
        return Ok(held_back);
    }
    Ok(Gated::Done(Some(restore_all(tx, account, call).await?)))
}

async fn revoked_count<T: Transaction>(tx: &mut T, org: OrgId) -> Result<u64, StoreError> {
    let count = "SELECT COUNT(*) FROM devices WHERE org_id = $1 AND revoked_at IS NOT NULL";
    tx.row(count, values![org]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Restores all devices that the plan has places for, which waits for nothing any more.
pub(super) async fn restore_all<T: Transaction>(
    tx: &mut T,
    mut account: Account,
    call: &Call,
) -> Result<(RestoredAll, Account), StoreError> {
    let org = account.org.id;
    let revoked = revoked_count(tx, org).await?;
    let newest = "SELECT device_id FROM devices WHERE org_id = $1 AND revoked_at IS NOT NULL
         ORDER BY revoked_at DESC, seq DESC LIMIT $2";
    let places = i64::try_from(account.places()).unwrap_or(i64::MAX);
    let restored = tx.rows(newest, values![org, places]).await?;
    let restored: Vec<DeviceId> = restored.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
    set_revoked(tx, org, &restored, None).await?;
    account.used += restored.len() as u64;
    set_used(tx, &account).await?;
    let left = revoked.saturating_sub(restored.len() as u64);
    let all = RestoredAll { restored: restored.iter().map(ToString::to_string).collect(), left };
    record(tx, call, all.record(org)).await?;
    tx.tell(Change::Org(org));
    Ok((all, account))
}

/// The organisation with its usage, and the number of the newest device of all. `None` when it was deleted.
pub(in super::super) async fn newest<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
) -> Result<Option<(Account, i64)>, StoreError> {
    let Some(account) = live_account(tx, org).await? else { return Ok(None) };
    // Of all organisations: numbers grow together, and this is one look at an index.
    let row = tx.row("SELECT COALESCE(MAX(seq), 0) FROM devices", values![]).await?;
    Ok(Some((account, row.map_or(Ok(0), |row| row.get(0))?)))
}

/// The number of revoked devices, at most `most`.
async fn revoked<T: Transaction>(tx: &mut T, org: OrgId, most: u64) -> Result<u64, StoreError> {
    // By the index of revoked devices.
    let count = "SELECT COUNT(*) FROM
         (SELECT 1 FROM devices WHERE org_id = $1 AND revoked_at IS NOT NULL LIMIT $2) AS revoked";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    tx.row(count, values![org, most]).await?.map_or(Ok(0), |row| row.get(0))
}

fn ids(batch: &[Named]) -> Vec<DeviceId> {
    batch.iter().filter_map(|named| named.id.clone()).collect()
}

/// The stored status of each of these devices.
pub(super) async fn held<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    ids: &[DeviceId],
) -> Result<HashMap<DeviceId, DeviceStatus>, StoreError> {
    let among = T::DIALECT.among("$2");
    let select = format!("SELECT device_id, revoked_at FROM devices WHERE org_id = $1 AND device_id {among}");
    let rows = tx.rows(&select, values![org, ids]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, status(row.integer(1)?)))).collect()
}

/// Sets or clears the revoke of these devices, in the name of this call.
async fn set_revoked<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    ids: &[DeviceId],
    call: Option<&Call>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let update = format!(
        "UPDATE devices SET revoked_at = $3, revoke_reason = $4, was_revoked = was_revoked OR $3 IS NOT NULL
         WHERE org_id = $1 AND device_id {}",
        T::DIALECT.among("$2")
    );
    let why = call.map_or(Value::Text(None), reason);
    tx.run(&update, values![org, ids, call.map(|call| call.at), why]).await.map(drop)
}
