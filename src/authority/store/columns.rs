//! What the columns of both databases say.

use jiff::Timestamp;

use super::super::audit;
use super::super::changes::Change;
use super::super::keys::SecretHash;
use super::super::org::{HeldKey, Org};
use super::StoreError;
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt("time"))
}

pub(super) fn status(revoked_at: Option<i64>) -> DeviceStatus {
    if revoked_at.is_some() { DeviceStatus::Revoked } else { DeviceStatus::Active }
}

pub(super) fn count(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt("count"))
}

pub(super) fn stored_limit(limit: Option<u64>) -> Option<i64> {
    limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// Device ids from their column.
pub(super) fn parsed(ids: Vec<String>) -> Result<Vec<DeviceId>, StoreError> {
    ids.into_iter().map(|id| id.parse().map_err(|_| StoreError::Corrupt("device id"))).collect()
}

/// What has ended by itself of an organisation: its old key, or only its entitlement.
pub(super) fn ended(org: &str, old_key: Option<bool>) -> Result<Change, StoreError> {
    let org = org.parse().map_err(|_| StoreError::Corrupt("organisation id"))?;
    Ok(if old_key == Some(true) { Change::Key(org) } else { Change::Denied(org, None) })
}

/// Which of the organisation's keys this is. `None` when it is neither, whatever the database found.
pub(super) fn held_key(
    key: SecretHash,
    current: &[u8],
    old: Option<&[u8]>,
    old_ends: Option<i64>,
) -> Result<Option<HeldKey>, StoreError> {
    if key.matches(current) {
        return Ok(Some(HeldKey::Current));
    }
    match (old, old_ends) {
        (Some(old), Some(ends)) if key.matches(old) => Ok(Some(HeldKey::Old { ends: time(ends)? })),
        (Some(_) | None, Some(_) | None) => Ok(None),
    }
}

/// An organisation from the columns of its row; the flags are disabled and frozen.
#[expect(clippy::too_many_arguments, reason = "a row has as many columns as it has")]
pub(super) fn org_from(
    id: &str,
    name: Option<String>,
    plan: &str,
    limit: Option<i64>,
    (disabled, frozen): (bool, bool),
    access_until: Option<i64>,
    created_at: i64,
    deleted: bool,
    old_key_ends: Option<i64>,
) -> Result<Org, StoreError> {
    Ok(Org {
        id: id.parse().map_err(|_| StoreError::Corrupt("organisation id"))?,
        name,
        tier: plan.parse().map_err(|_| StoreError::Corrupt("plan"))?,
        device_limit: limit.map(count).transpose()?,
        disabled,
        frozen,
        access_until: access_until.map(time).transpose()?,
        created_at: time(created_at)?,
        deleted,
        old_key_ends: old_key_ends.map(time).transpose()?,
    })
}

/// A line of the audit from the columns of its row; the texts are request id, actor and verb.
#[expect(clippy::too_many_arguments, reason = "a row has as many columns as it has")]
pub(super) fn entry_from(
    id: i64,
    at: i64,
    org: &str,
    [request_id, actor, verb]: [String; 3],
    device_id: Option<String>,
    outcome: String,
    reason: Option<String>,
    details: &str,
) -> Result<audit::Entry, StoreError> {
    Ok(audit::Entry {
        id,
        at: time(at)?,
        org_id: org.parse().map_err(|_| StoreError::Corrupt("organisation id"))?,
        request_id,
        actor,
        verb,
        device_id,
        outcome,
        reason,
        details: serde_json::from_str(details).map_err(|_| StoreError::Corrupt("audit entry"))?,
    })
}
