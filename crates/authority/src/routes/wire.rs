//! The wire types of the API: bodies, queries and answers. The description in `openapi` is made from them. Every answer
//! gets a `request_id` when it is written (see [`super::answer`]).

mod approvals;
mod keys;

use std::borrow::Cow;

use jiff::Timestamp;
use machineid_protocol::api::DeviceStatus;
use machineid_protocol::{Code, DeviceId};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

pub(super) use self::approvals::{
    ApprovalDone, ApprovalEntry, ApprovalList, ApprovalNamed, ExecutionSwitched, OnlyReason, RestoreWaits,
};
pub(super) use self::keys::{KeyEnded, KeyList, KeyMade, KeyNamed, KeyRotation, KeyWanted};
use crate::audit::{AuditEntry, LONGEST_REASON};
use crate::plan::PlanFields;
use crate::unwritten::NotWritten;

/// A device id as sent by a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct DeviceText(pub(super) String);

impl PartialSchema for DeviceText {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("1 to 128 characters, the first a letter or a digit. White space around it is cut off."))
            .pattern(Some(r"^[ \t\r\n]*[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}[ \t\r\n]*$"))
            .examples(["agent:1"])
            .into()
    }
}

impl ToSchema for DeviceText {}

/// An operator's reason as sent by a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ReasonText(pub(super) String);

impl PartialSchema for ReasonText {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Why, in one line: in the audit, and in the denials of a device that is revoked."))
            .max_length(Some(LONGEST_REASON))
            .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x1f\x7f-\x9f\s][^\x00-\x1f\x7f-\x9f]*$"))
            .into()
    }
}

impl ToSchema for ReasonText {}

/// A body about one device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceNamed {
    pub(super) device_id: DeviceText,
}

/// A registration.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceRegistered {
    pub(super) device_id: DeviceText,
    /// Whether the device is removed when it has not been seen for a while, unless it is revoked; an extension. Without
    /// it a known device keeps its setting.
    pub(super) ephemeral: Option<bool>,
}

/// A removal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceRemoved {
    pub(super) device_id: DeviceText,
    pub(super) reason: Option<ReasonText>,
    /// Remove the device only if it is not revoked; otherwise answer 403 `device_revoked`; an extension.
    pub(super) if_active: Option<bool>,
}

/// A body about one device, by an operator.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceManaged {
    pub(super) device_id: DeviceText,
    pub(super) reason: Option<ReasonText>,
}

/// The body of a batch in either form, as parsed: a body with both forms must be recognised. [`RevokeBatch`] and
/// [`UnrevokeBatch`] describe it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchBody {
    pub(super) device_ids: Option<Vec<String>>,
    pub(super) scope: Option<String>,
    pub(super) reason: Option<ReasonText>,
}

/// The devices to revoke: these, or all active ones.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum RevokeBatch {
    These(BatchOfIds),
    All(AllActive),
}

/// The devices to unrevoke: these, or all revoked ones.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum UnrevokeBatch {
    These(BatchOfIds),
    All(AllRevoked),
}

/// These devices, at most 500 distinct valid ids; an entry that is not an id gets the result `invalid`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchOfIds {
    #[schema(min_items = 1)]
    pub(super) device_ids: Vec<String>,
    pub(super) reason: Option<ReasonText>,
}

/// Every active device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct AllActive {
    #[schema(pattern = "^all_active$")]
    pub(super) scope: String,
    pub(super) reason: Option<ReasonText>,
}

/// Every revoked device, the newest revoke first, as long as there are places.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct AllRevoked {
    #[schema(pattern = "^all_revoked$")]
    pub(super) scope: String,
    pub(super) reason: Option<ReasonText>,
}

/// The query parameters of a list.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    pub(super) status: Option<DeviceStatus>,
    pub(super) q: Option<String>,
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<DeviceId>,
}

/// The query parameters of the audit.
#[derive(Debug, Deserialize)]
pub(super) struct AuditQuery {
    pub(super) device: Option<String>,
    pub(super) limit: Option<u32>,
    /// The `nextCursor` of the previous page.
    pub(super) cursor: Option<i64>,
}

/// The devices to watch, at most 4,096.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DevicesNamed {
    #[schema(min_items = 1)]
    pub(super) device_ids: Vec<DeviceText>,
}

/// An empty object; its fields are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Nothing {}

/// The plan to change to.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct PlanWanted {
    #[schema(pattern = "^(pro|scale|max)$")]
    pub(super) plan: String,
}

/// The answer to a validation, also to a failed one. Use only `allowed` for the decision.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Decision)]
#[serde(rename_all = "camelCase")]
pub(super) struct DecisionBody {
    pub(super) allowed: bool,
    pub(super) code: Code,
    /// `ok`, `denied` or `error`.
    pub(super) status: &'static str,
    /// A sentence for users, with the operator's reason for a revoke.
    pub(super) reason: Cow<'static, str>,
    pub(super) handler: &'static str,
    /// The device asked about, if the request names one.
    pub(super) device_id: Option<DeviceId>,
    /// The time of the revoke, while the device is revoked; an extension. A sidecar repeats it in its reports, which
    /// shows which revoke the sidecar knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub(super) revoked_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) error: Option<&'static str>,
}

/// The result for one device.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceDone {
    pub(super) status: Word,
    pub(super) handler: &'static str,
    pub(super) device_id: DeviceId,
    /// The reason for a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) error: Option<&'static str>,
    #[serde(flatten)]
    pub(super) unwritten: UnwrittenFields,
    #[serde(flatten)]
    pub(super) plan: PlanFields,
}

/// What an answer says about a stop that is in force and not in the database. Empty when it is.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UnwrittenFields {
    /// False when the stop is in force at this server, and not in the database yet; the status is then 202. An extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) written: Option<bool>,
    /// With `written`: whether the stop survives a restart of this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) survives_restart: Option<bool>,
    /// With `written`: what that means, in a sentence for users.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) notice: Option<String>,
}

impl UnwrittenFields {
    pub(super) fn of(unwritten: Option<&NotWritten>) -> Self {
        unwritten.map_or_else(Self::default, |unwritten| Self {
            written: Some(false),
            survives_restart: Some(unwritten.kept),
            notice: Some(unwritten.notice()),
        })
    }
}

/// The result of a request, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    /// Done, or nothing was left to do.
    Ok,
    /// The device was already registered.
    Exists,
    /// The plan has no free place.
    Blocked,
    /// The device was already registered, and is revoked.
    Revoked,
    /// The request was refused; `error` says why.
    Error,
}

/// Devices in the bytewise order of their ids.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceList {
    pub(super) status: Word,
    pub(super) handler: &'static str,
    pub(super) devices: Vec<DeviceListed>,
    /// With a `limit`: the `cursor` of the next page, null on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(super) next_cursor: Option<NextCursor>,
    /// When the org key from before the last rotation ends or ended; an extension, absent if there was no rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub(super) old_key_ends: Option<Timestamp>,
    #[serde(flatten)]
    pub(super) plan: PlanFields,
}

/// The start of the next page.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum NextCursor {
    Behind(String),
    /// There is no next page.
    Null,
}

/// One device of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceListed {
    pub(super) device_id: String,
    pub(super) status: DeviceStatus,
    #[schema(value_type = String, format = DateTime)]
    pub(super) created_at: Timestamp,
    /// The time of its last validation.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) last_seen_at: Option<Timestamp>,
    /// The time of the revoke, while it is revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) revoked_at: Option<Timestamp>,
    /// The reason given for the revoke.
    pub(super) revoke_reason: Option<String>,
    /// The device is removed when it has not been seen for a while, unless it is revoked; an extension, absent if
    /// false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) ephemeral: bool,
    /// Its last validation used an org key from before the last rotation; an extension, absent if false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) old_key: bool,
    /// The revoke is in force at this server, and not in the database yet; an extension, absent if false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) unwritten: bool,
}

/// The plan and its usage.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Usage {
    pub(super) status: Word,
    pub(super) handler: &'static str,
    #[serde(flatten)]
    pub(super) plan: PlanFields,
}

/// The result of a batch revoke: `results` for ids, `revokedCount` for `all_active`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchRevoked {
    pub(super) status: Word,
    pub(super) handler: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) results: Option<Vec<RevokedOne>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) revoked_count: Option<u64>,
    #[serde(flatten)]
    pub(super) unwritten: UnwrittenFields,
    #[serde(flatten)]
    pub(super) plan: PlanFields,
}

/// One distinct entry of a batch revoke.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevokedOne {
    /// The entry as sent by the client.
    pub(super) device_id: String,
    pub(super) status: RevokedWord,
}

/// The result for one entry.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RevokedWord {
    Revoked,
    AlreadyRevoked,
    NotFound,
    Invalid,
}

/// The result of a batch unrevoke: `results` for ids, the other fields for `all_revoked`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchUnrevoked {
    pub(super) status: Word,
    pub(super) handler: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) results: Option<Vec<UnrevokedOne>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) unrevoked_count: Option<usize>,
    /// Up to 25 of the restored ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 25)]
    pub(super) unrevoked_sample: Option<Vec<String>>,
    /// Why nothing was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) reason: Option<NoneRestored>,
    #[serde(flatten)]
    pub(super) plan: PlanFields,
}

/// The reason why nothing was restored.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum NoneRestored {
    /// The plan has no free place.
    AtCap,
    NoneRevoked,
}

/// One distinct entry of a batch unrevoke.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UnrevokedOne {
    /// The entry as sent by the client.
    pub(super) device_id: String,
    pub(super) status: UnrevokedWord,
    /// `device_limit_reached`, if the status is `blocked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) error: Option<&'static str>,
}

/// The result for one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum UnrevokedWord {
    Ok,
    NotFound,
    Invalid,
    Blocked,
}

/// The audit, the newest entry first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditPage {
    pub(super) status: Word,
    pub(super) handler: &'static str,
    pub(super) entries: Vec<AuditEntry>,
    /// The `cursor` of the next page, null on the last.
    pub(super) next_cursor: Option<i64>,
}

/// A new organisation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrgCreated<'a> {
    pub(super) status: Word,
    pub(super) handler: &'static str,
    /// The organisation's key, shown here and never again.
    pub(super) org_api_key: &'a str,
}

/// Where a plan is confirmed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checkout {
    pub(super) status: Word,
    pub(super) handler: &'static str,
    pub(super) url: String,
    #[serde(flatten)]
    pub(super) plan: PlanFields,
}

/// The state of the server.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, or `degraded` when there is a problem that an operator should look at.
    pub(super) status: String,
    pub(super) handler: String,
    /// The known problems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<HealthProblem>,
}

/// A problem of the server or its database.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct HealthProblem {
    /// `writes`, `stops`, `space`, `integrity`, `file` or `durability`
    pub(super) concern: String,
    /// The problem, and what to do.
    pub(super) problem: String,
    /// RFC 3339 time when the problem was found.
    pub(super) since: String,
}

/// A refusal. Nothing was changed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Refusal)]
pub(super) struct RefusalBody {
    /// Usually `error`.
    pub(super) status: String,
    /// The error in a word: `missing_params`, `invalid_org_key`, `not_found`, `system_unavailable`, …
    pub(super) error: String,
    /// The decision code with the same meaning, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) code: Option<Code>,
    /// A sentence for users, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) reason: Option<String>,
}

/// The field that every answer has, in its body and in the header `x-request-id`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Numbered {
    /// The request's id in the log and the audit.
    #[schema(format = "uuid")]
    pub(super) request_id: String,
}
