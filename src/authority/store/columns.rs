//! What the columns of both databases say.

use jiff::Timestamp;

use super::super::audit;
use super::super::org::Org;
use super::StoreError;
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
