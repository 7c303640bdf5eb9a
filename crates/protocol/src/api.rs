//! Requests and responses of the authority's HTTP API, without the validation (see [`super::decision`]).
//!
//! The client reads these leniently: what is not documented is optional. The authority writes them in full.

use serde::{Deserialize, Serialize};

use super::{Code, DeviceId, DevicePattern, KeyRole, RequestId};

/// The paths of the API, relative to the authority's base URL.
pub mod path {
    /// `POST`: creates a free organisation.
    pub const ORG_CREATE: &str = "/api/v1/org/create";
    /// `POST`: registers a device.
    pub const REGISTER: &str = "/api/v1/devices/register";
    /// `POST`: asks whether a device may execute.
    pub const VALIDATE: &str = "/api/v1/devices/validate";
    /// `GET`: lists all devices.
    pub const LIST: &str = "/api/v1/devices/list";
    /// `POST`: denies a device from the next validation on.
    pub const REVOKE: &str = "/api/v1/devices/revoke";
    /// `POST`: takes a revoke back.
    pub const UNREVOKE: &str = "/api/v1/devices/unrevoke";
    /// `POST`: revokes up to 500 devices, or all active ones.
    pub const REVOKE_BATCH: &str = "/api/v1/devices/revoke_batch";
    /// `POST`: unrevokes up to 500 devices, or all revoked ones.
    pub const UNREVOKE_BATCH: &str = "/api/v1/devices/unrevoke_batch";
    /// `POST`: removes a device.
    pub const REMOVE: &str = "/api/v1/devices/remove";
    /// `GET`: the plan and its usage.
    pub const USAGE: &str = "/api/v1/usage";
    /// `GET`, an extension: the changes of the organisation, each with its time, its author and the reason.
    pub const AUDIT: &str = "/api/v1/org/audit";
    /// `GET`, an extension: the organisation's keys.
    pub const KEYS: &str = "/api/v1/org/keys";
    /// `POST`, an extension: makes a key with a role.
    pub const KEY_CREATE: &str = "/api/v1/org/keys/create";
    /// `POST`, an extension: makes a key invalid from now on.
    pub const KEY_REVOKE: &str = "/api/v1/org/keys/revoke";
    /// `POST`, an extension: replaces a key by a new one.
    pub const KEY_ROTATE: &str = "/api/v1/org/keys/rotate";
    /// `GET`, an extension: the restores that wait for a second key.
    pub const APPROVALS: &str = "/api/v1/org/approvals";
    /// `POST`, an extension: confirms a restore that another key asked for.
    pub const APPROVE: &str = "/api/v1/org/approvals/approve";
    /// `POST`, an extension: ends a request for a restore.
    pub const REJECT: &str = "/api/v1/org/approvals/reject";
    /// `POST`, an extension: switches execution of the organisation off.
    pub const DISABLE: &str = "/api/v1/org/disable";
    /// `POST`, an extension: switches it on again.
    pub const ENABLE: &str = "/api/v1/org/enable";
    /// `POST`: the URL at which to pay for a larger plan.
    pub const CHECKOUT: &str = "/api/v1/billing/checkout";
    /// `GET` and `POST`, an extension: server-sent events that say when to validate.
    pub const WATCH: &str = "/api/v1/devices/watch";
    /// `POST`, an extension: a sidecar's report about its devices.
    pub const REPORT: &str = "/api/v1/devices/report";
    /// `GET`, an extension: the devices with what sidecars have reported.
    pub const FLEET: &str = "/api/v1/org/fleet";
    /// `GET`, an extension: the newest stops of a device.
    pub const STOPS: &str = "/api/v1/org/stops";
    /// `GET`, an extension: the events of a device.
    pub const TIMELINE: &str = "/api/v1/org/timeline";
    /// `GET`, an extension: server-sent events about every change of the organisation.
    pub const EVENTS: &str = "/api/v1/org/events";
    /// `GET`, an extension: the description of the API.
    pub const OPENAPI: &str = "/api/v1/openapi.json";

    /// The paths that the self-hosted authority serves. Each has a counter of its own, and is described in
    /// `docs/openapi/authority.json`.
    pub const SERVED: [&str; 28] = [
        ORG_CREATE,
        REGISTER,
        VALIDATE,
        LIST,
        REVOKE,
        UNREVOKE,
        REVOKE_BATCH,
        UNREVOKE_BATCH,
        REMOVE,
        USAGE,
        AUDIT,
        KEYS,
        KEY_CREATE,
        KEY_REVOKE,
        KEY_ROTATE,
        APPROVALS,
        APPROVE,
        REJECT,
        DISABLE,
        ENABLE,
        WATCH,
        EVENTS,
        REPORT,
        FLEET,
        STOPS,
        TIMELINE,
        CHECKOUT,
        OPENAPI,
    ];
}

/// The header that carries the org key.
pub const KEY_HEADER: &str = "x-org-key";

/// The header of a validation's answer to an old org key: when that key ends, in RFC 3339. An extension.
pub const KEY_ENDS_HEADER: &str = "x-machineid-key-ends";

/// The header of a validation's answer that names the role of the key it was asked with (see [`super::KeyRole`]). An
/// extension.
pub const KEY_ROLE_HEADER: &str = "x-machineid-key-role";

/// The header of a validation and of a report that carries the secret of the sidecar that sends it. Sent only to an
/// authority that accepts reports.
pub const SIDECAR_HEADER: &str = "x-machineid-sidecar";

/// The header in which an authority announces its extensions of the service's API, separated by commas.
pub const EXTENSIONS_HEADER: &str = "x-machineid-extensions";

/// The header that marks an answer to a validation as no decision, because the authority could not complete one. Its
/// value is `1`. The body still says `"allowed": false` and `SYSTEM_UNAVAILABLE`, as other clients expect. An extension
/// of the self-hosted authority.
pub const UNDECIDED_HEADER: &str = "x-machineid-undecided";

/// The extensions that the self-hosted authority announces: the watch stream and reports.
pub const EXTENSIONS: &str = "watch, report";

/// A restore that waits for a second key, or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalListed {
    /// The number by which it is confirmed.
    pub id: String,
    /// `waiting`, `approved`, `rejected`, `void` or `expired`.
    pub state: String,
    /// What it asks for, in words.
    pub asks: String,
    /// The devices that it names.
    #[serde(default)]
    pub device_ids: Vec<String>,
    /// The key that asked, as the audit names it.
    pub asked_by: String,
    /// RFC 3339 time of the request.
    pub asked_at: String,
    /// RFC 3339 time at which it expires.
    pub expires_at: String,
    /// The reason that was given.
    #[serde(default)]
    pub reason: Option<String>,
    /// The key that decided.
    #[serde(default)]
    pub decided_by: Option<String>,
    /// RFC 3339 time of the decision.
    #[serde(default)]
    pub decided_at: Option<String>,
}

/// The answer to [`path::DISABLE`] and [`path::ENABLE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionState {
    /// Whether every device is denied.
    pub disabled: bool,
    /// Which switches are off: `own`, `operator`.
    #[serde(default)]
    pub off_by: Vec<String>,
    /// Who switched each of these off, when and why, as far as the authority's audit says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switched_off: Vec<OffSwitch>,
    /// When the switch is in force and not in the authority's database yet: what that means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// A switch of execution that is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffSwitch {
    /// `own` or `operator`.
    pub switch: String,
    /// RFC 3339 time.
    #[serde(default)]
    pub at: Option<String>,
    /// Who switched it off, as the audit names them.
    #[serde(default)]
    pub by: Option<String>,
    /// The reason that was given.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The body of [`path::KEY_CREATE`]: the key to make.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyOrder {
    /// The key's role.
    pub role: KeyRole,
    /// The devices that a host key may act for; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<DevicePattern>,
    /// A display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long the key is valid, in seconds; `None` until it is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// A key of an organisation, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyEntry {
    /// The key's fingerprint, which the audit shows too.
    pub fingerprint: String,
    /// The display name, if there is one.
    #[serde(default)]
    pub name: Option<String>,
    /// The key's role.
    pub role: KeyRole,
    /// The devices that the key may act for; `None` for all.
    #[serde(default)]
    pub devices: Option<String>,
    /// `valid`, `old` or `ended`.
    pub state: String,
    /// Whether it is the organisation's own key, or the one before that.
    #[serde(default)]
    pub own: bool,
    /// RFC 3339 time at which the key ends; `None` for never.
    #[serde(default)]
    pub ends: Option<String>,
    /// RFC 3339 time of the key's last use, to about a minute.
    #[serde(default)]
    pub last_used_at: Option<String>,
    /// How many devices last asked with the key.
    #[serde(default)]
    pub used_by_devices: u64,
}

/// The most device ids in one watch.
pub const LARGEST_WATCH: usize = 4_096;

/// The longest time between two messages on a watch stream.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(5);

/// The most device ids in one batch.
pub const LARGEST_BATCH: usize = 500;

/// `{"deviceId": …}`: the body of every request about one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRequest {
    /// The device.
    pub device_id: DeviceId,
}

/// The plan's fields, which come with many answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanUsage {
    /// `free`, `pro`, `scale` or `max`.
    pub plan_tier: Option<String>,
    /// `active`, `frozen`, …
    pub plan_state: Option<String>,
    /// RFC 3339 time at which the entitlement ends; `None` when it does not.
    pub access_until: Option<String>,
    /// The most active devices that the plan allows.
    pub limit: Option<u64>,
    /// The number of active devices.
    pub devices_used: Option<u64>,
    /// The number of devices that may still become active.
    pub remaining: Option<u64>,
    /// Whether more devices are active than the plan allows.
    pub over_limit: Option<bool>,
}

/// The result of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The device was new, and is registered now.
    New,
    /// The device was registered before.
    Exists,
    /// The device is registered and revoked: registering does not restore it.
    Revoked,
    /// The plan is full.
    LimitReached,
    /// The authority answered, but refused to register the device.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The answer's `error`, or its `code`.
        error: Option<String>,
    },
}

/// One device of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The device id, as the authority writes it.
    pub device_id: String,
    /// Whether the device is active or revoked.
    pub status: DeviceStatus,
    /// RFC 3339 time of the first registration.
    #[serde(default)]
    pub created_at: Option<String>,
    /// RFC 3339 time of the last validation.
    #[serde(default)]
    pub last_seen_at: Option<String>,
    /// RFC 3339 time of the revoke, while revoked.
    #[serde(default)]
    pub revoked_at: Option<String>,
    /// Whether the device is removed when it has not been seen for a time. An extension of the self-hosted authority.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
    /// Whether the device last asked with an org key from before the last rotation. An extension of the self-hosted
    /// authority.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub old_key: bool,
    /// Whether the revoke is in force and not in the authority's database yet. An extension of the self-hosted authority.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwritten: bool,
}

/// Whether a device counts against the plan and may execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// The device may execute, as far as it alone is concerned.
    Active,
    /// The device may not execute.
    Revoked,
}

/// The answer to `GET /devices/list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePage {
    /// The devices.
    pub devices: Vec<Device>,
    /// RFC 3339 time at which the org key from before the last rotation ends or ended. An extension of the self-hosted
    /// authority.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "oldKeyEnds")]
    pub old_key_ends: Option<String>,
    /// The plan.
    #[serde(flatten)]
    pub plan: PlanUsage,
}

/// The devices to revoke or unrevoke at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchRequest {
    /// The devices with these ids, at most [`LARGEST_BATCH`].
    Ids(Vec<String>),
    /// All active devices (revoke), or all revoked ones (unrevoke).
    All,
}

/// The result for one id of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchItem {
    /// The id as it was sent.
    pub device_id: String,
    /// `revoked`, `already_revoked`, `ok`, `not_found`, `invalid`, `blocked`.
    pub status: String,
    /// With `blocked`: `device_limit_reached`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer to a batch, in either form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchResponse {
    /// One result for each distinct id.
    pub results: Vec<BatchItem>,
    /// With `all_active`: how many devices were revoked.
    pub revoked_count: Option<u64>,
    /// With `all_revoked`: how many devices were restored.
    pub unrevoked_count: Option<u64>,
    /// With `all_revoked`: up to 25 of the restored ids.
    pub unrevoked_sample: Vec<String>,
    /// When nothing was restored: `at_cap` or `none_revoked`.
    pub reason: Option<String>,
    /// Of a stop that is in force and not in the authority's database yet: what that means.
    pub notice: Option<String>,
}

/// The common fields of answers that are no decision, by which clients explain a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Envelope {
    /// `ok`, `exists`, `blocked`, `revoked`, `error`, …
    pub status: Option<String>,
    /// `device_limit_reached`, `not_found`, `missing_params`, …
    pub error: Option<String>,
    /// A decision's code, which some refusals carry.
    pub code: Option<Code>,
    /// The authority's id of the answer.
    #[serde(rename = "request_id")]
    pub request_id: Option<RequestId>,
    /// The reason, as a sentence; a value that is no text counts as none.
    #[serde(deserialize_with = "text_or_none")]
    pub reason: Option<String>,
    /// Of a stop that is in force and not in the authority's database yet: what that means.
    #[serde(deserialize_with = "text_or_none")]
    pub notice: Option<String>,
    /// Of a restore that waits for a second key: the number by which another key confirms it.
    #[serde(deserialize_with = "text_or_none")]
    pub approval_id: Option<String>,
    /// The same: the RFC 3339 time at which the request expires.
    #[serde(deserialize_with = "text_or_none")]
    pub expires_at: Option<String>,
    /// With checkout: the URL to open.
    pub url: Option<String>,
    /// With org create: the new org key.
    pub org_api_key: Option<String>,
}

fn text_or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(serde_json::Value::deserialize(deserializer)?.as_str().map(str::to_owned))
}
