//! Organisations and their keys.

use jiff::Timestamp;

use super::super::approvals::Gated;
use super::super::columns::Row;
use super::super::rows::{account, org_columns};
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::values;
use super::super::{OldKey, OrgChange, StoreError};
use super::approvals::{count_stop, held_back, void_all, waits};
use super::audit::record;
use crate::approvals::{Action, ApprovalRefusal};
use crate::audit::{Call, Record, Verb};
use crate::changes::Change;
use crate::keys::SecretHash;
use crate::org::{Org, OrgId, Switch};
use crate::plan::Account;

pub(in super::super) async fn any_account<T: ReadTransaction>(
    tx: &mut T,
    id: OrgId,
) -> Result<Option<Account>, StoreError> {
    let row = tx.row(concat!("SELECT ", org_columns!(), " FROM orgs WHERE id = $1"), values![id]).await?;
    row.as_ref().map(account).transpose()
}

/// Loads the organisation and its usage; `None` when it was deleted.
pub(super) async fn live_account<T: ReadTransaction>(tx: &mut T, id: OrgId) -> Result<Option<Account>, StoreError> {
    Ok(any_account(tx, id).await?.filter(|account| !account.org.deleted))
}

/// Loads the organisation and locks it: no other transaction changes it or its devices until this one ends.
pub(super) async fn locked_account<T: Transaction>(tx: &mut T, id: OrgId) -> Result<Option<Account>, StoreError> {
    let select = format!(concat!("SELECT ", org_columns!(), " FROM orgs WHERE id = $1{}"), T::DIALECT.locked());
    let row = tx.row(&select, values![id]).await?;
    Ok(row.as_ref().map(account).transpose()?.filter(|account| !account.org.deleted))
}

/// Stores the number of active devices.
pub(super) async fn set_used<T: Transaction>(tx: &mut T, account: &Account) -> Result<(), StoreError> {
    let used = i64::try_from(account.used).map_err(|_| StoreError::Corrupt("count"))?;
    tx.run("UPDATE orgs SET active = $2 WHERE id = $1", values![account.org.id, used]).await.map(drop)
}

pub(in super::super) async fn all<T: ReadTransaction>(tx: &mut T) -> Result<Vec<Account>, StoreError> {
    let select = concat!("SELECT ", org_columns!(), " FROM orgs WHERE deleted_at IS NULL ORDER BY created_at, id");
    tx.rows(select, values![]).await?.iter().map(account).collect()
}

pub(in super::super) async fn ended<T: ReadTransaction>(
    tx: &mut T,
    after: Timestamp,
    now: Timestamp,
) -> Result<Vec<Change>, StoreError> {
    let select = "SELECT orgs.id, COALESCE(old_key_ends > $1 AND old_key_ends <= $2, FALSE) OR keys.org_id IS NOT NULL
         FROM orgs
         LEFT JOIN (SELECT DISTINCT org_id FROM org_keys WHERE ends > $1 AND ends <= $2) AS keys ON keys.org_id = orgs.id
         WHERE (access_until > $1 AND access_until <= $2 AND deleted_at IS NULL)
         OR (old_key_ends > $1 AND old_key_ends <= $2) OR keys.org_id IS NOT NULL";
    let mut ended = Vec::new();
    for row in tx.rows(select, values![after, now]).await? {
        let org = row.get(0)?;
        let old_key = row.flag(1)? == Some(true);
        ended.push(if old_key { Change::Key(org) } else { Change::Denied(org, None) });
    }
    Ok(ended)
}

/// The organisations whose key was rotated and whose old key is valid after `after`, each with the number of devices
/// whose last request used another key than the current one.
pub(in super::super) async fn old_keys<T: ReadTransaction>(
    tx: &mut T,
    after: Timestamp,
) -> Result<Vec<OldKey>, StoreError> {
    let select = "SELECT orgs.id, orgs.old_key_ends, COUNT(device_seen.seq) FROM orgs
         LEFT JOIN devices ON devices.org_id = orgs.id
         LEFT JOIN device_seen ON device_seen.seq = devices.seq
             AND device_seen.key_mark <> substr(orgs.key_hash, 1, 6)
             AND NOT EXISTS (SELECT 1 FROM org_keys WHERE org_keys.org_id = orgs.id
                 AND substr(org_keys.key_hash, 1, 6) = device_seen.key_mark)
         WHERE orgs.old_key_ends > $1 AND orgs.deleted_at IS NULL GROUP BY orgs.id ORDER BY orgs.id";
    let rows = tx.rows(select, values![after]).await?;
    rows.iter().map(|row| Ok(OldKey { org: row.get(0)?, ends: row.get(1)?, devices: row.get(2)? })).collect()
}

pub(in super::super) async fn create<T: Transaction>(
    tx: &mut T,
    org: &Org,
    key: SecretHash,
    call: &Call,
) -> Result<(), StoreError> {
    tx.grow()?;
    tx.run(
        "INSERT INTO orgs (id, name, key_hash, plan, device_limit, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        values![org.id, org.name.clone(), &key, org.tier, stored_limit(org.device_limit), org.created_at],
    )
    .await?;
    record(tx, call, Record::ok(org.id, Verb::CreateOrg).with("plan", org.tier.as_str())).await
}

pub(in super::super) async fn change<T: Transaction>(
    tx: &mut T,
    id: OrgId,
    change: &OrgChange,
    call: &Call,
) -> Result<Gated<Option<Account>>, StoreError> {
    let Some(account) = locked_account(tx, id).await? else { return Ok(Gated::Done(None)) };
    if let OrgChange::Key(_, _, Some(expected)) = change
        && tx.row("SELECT id FROM orgs WHERE id = $1 AND key_hash = $2", values![id, expected]).await?.is_none()
    {
        return Ok(Gated::Done(None));
    }
    match change {
        OrgChange::Disabled(Switch::Own, false) if account.org.off.own => {
            if let Some(held_back) = held_back(tx, &account, Action::Enable, call).await? {
                return Ok(held_back);
            }
        }
        // Without an expected key, it is another key's holder that asks.
        OrgChange::Key(_, _, None) if waits(&account, call) => {
            return Ok(Gated::Refused(ApprovalRefusal::OthersKey));
        }
        OrgChange::Disabled(_, true) => count_stop(tx, &account, None).await?,
        OrgChange::RestoreNeeds(..=1) => void_all(tx, id, call).await?,
        OrgChange::Disabled(..)
        | OrgChange::Frozen(_)
        | OrgChange::AccessUntil(_)
        | OrgChange::Plan(..)
        | OrgChange::Key(..)
        | OrgChange::EndOldKey
        | OrgChange::RestoreNeeds(_)
        | OrgChange::Delete => {}
    }
    perform(tx, id, change, call).await?;
    Ok(Gated::Done(any_account(tx, id).await?))
}

/// Makes this change, which waits for nothing any more.
pub(super) async fn perform<T: Transaction>(
    tx: &mut T,
    id: OrgId,
    change: &OrgChange,
    call: &Call,
) -> Result<(), StoreError> {
    let before = any_account(tx, id).await?;
    apply(tx, id, change, call).await?;
    let mut entry = change.record(id);
    if let Some(gives_back) = before.and_then(|account| change.gives_back(&account.org)) {
        entry = entry.with("changed", gives_back);
    }
    record(tx, call, entry).await?;
    tx.tell(change.news(id));
    Ok(())
}

pub(super) async fn apply<T: Transaction>(
    tx: &mut T,
    id: OrgId,
    change: &OrgChange,
    call: &Call,
) -> Result<(), StoreError> {
    let (update, values) = match change {
        OrgChange::Disabled(Switch::Own, off) => {
            // What is off by no switch is the operator's (see the migration).
            let update = "UPDATE orgs SET off_operator = (disabled AND (off_operator OR NOT off_own)), off_own = $2,
                 disabled = ($2 OR (disabled AND (off_operator OR NOT off_own))) WHERE id = $1";
            (update, values![id, *off])
        }
        OrgChange::Disabled(Switch::Operator, off) => {
            let update = "UPDATE orgs SET off_own = (disabled AND off_own), off_operator = $2,
                 disabled = ($2 OR (disabled AND off_own)) WHERE id = $1";
            (update, values![id, *off])
        }
        OrgChange::Frozen(on) => ("UPDATE orgs SET frozen = $2 WHERE id = $1", values![id, *on]),
        OrgChange::AccessUntil(end) => ("UPDATE orgs SET access_until = $2 WHERE id = $1", values![id, *end]),
        // Setting a plan, as after a purchase, makes it valid for good: an end that was set before is removed.
        OrgChange::Plan(tier, limit) => (
            "UPDATE orgs SET plan = $2, device_limit = $3, access_until = NULL WHERE id = $1",
            values![id, *tier, stored_limit(*limit)],
        ),
        OrgChange::Key(hash, until, _) => (
            "UPDATE orgs SET old_key_hash = CASE WHEN CAST($3 AS BIGINT) IS NULL THEN NULL ELSE key_hash END,
             old_key_ends = COALESCE($3, $4), key_hash = $2 WHERE id = $1",
            values![id, hash, *until, call.at],
        ),
        OrgChange::EndOldKey => (
            "UPDATE orgs SET old_key_hash = NULL,
             old_key_ends = CASE WHEN old_key_ends > $2 THEN $2 ELSE old_key_ends END WHERE id = $1",
            values![id, call.at],
        ),
        OrgChange::RestoreNeeds(keys) => {
            ("UPDATE orgs SET restore_needs = $2 WHERE id = $1", values![id, i64::from(*keys)])
        }
        OrgChange::Delete => {
            for delete in [
                "DELETE FROM device_seen WHERE seq IN (SELECT seq FROM devices WHERE org_id = $1)",
                "DELETE FROM devices WHERE org_id = $1",
                "DELETE FROM checkouts WHERE org_id = $1",
                "DELETE FROM approvals WHERE org_id = $1",
                "DELETE FROM reports WHERE org_id = $1",
                "DELETE FROM validators WHERE org_id = $1",
                "DELETE FROM stops WHERE org_id = $1",
                "DELETE FROM timeline WHERE org_id = $1",
            ] {
                tx.run(delete, values![id]).await?;
            }
            ("UPDATE orgs SET deleted_at = $2, active = 0 WHERE id = $1", values![id, call.at])
        }
    };
    tx.run(update, values).await.map(drop)
}

fn stored_limit(limit: Option<u64>) -> Option<i64> {
    limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX))
}
