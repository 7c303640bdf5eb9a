//! Requests and responses of the authority's HTTP API, without the validation (see [`super::decision`]).
//!
//! The client reads these leniently: what is not documented is optional. The authority writes them in full.

use serde::{Deserialize, Serialize};

use super::{Code, DeviceId, DevicePattern, KeyRole, RequestId};

/// Every endpoint of the API, below the authority's base URL.
pub mod path {
    /// `POST`: a new free organisation.
    pub const ORG_CREATE: &str = "/api/v1/org/create";
    /// `POST`: make a device known.
    pub const REGISTER: &str = "/api/v1/devices/register";
    /// `POST`: may it execute?
    pub const VALIDATE: &str = "/api/v1/devices/validate";
    /// `GET`: every device.
    pub const LIST: &str = "/api/v1/devices/list";
    /// `POST`: deny from the next validation on.
    pub const REVOKE: &str = "/api/v1/devices/revoke";
    /// `POST`: take a revoke back.
    pub const UNREVOKE: &str = "/api/v1/devices/unrevoke";
    /// `POST`: revoke up to 500, or all active.
    pub const REVOKE_BATCH: &str = "/api/v1/devices/revoke_batch";
    /// `POST`: unrevoke up to 500, or all revoked.
    pub const UNREVOKE_BATCH: &str = "/api/v1/devices/unrevoke_batch";
    /// `POST`: forget a device.
    pub const REMOVE: &str = "/api/v1/devices/remove";
    /// `GET`: plan and usage.
    pub const USAGE: &str = "/api/v1/usage";
    /// `GET`: who changed what, when and why. Our authority's extension.
    pub const AUDIT: &str = "/api/v1/org/audit";
    /// `GET`, an extension: the organisation's keys.
    pub const KEYS: &str = "/api/v1/org/keys";
    /// `POST`, an extension: a new key with a role.
    pub const KEY_CREATE: &str = "/api/v1/org/keys/create";
    /// `POST`, an extension: a key is invalid from now on.
    pub const KEY_REVOKE: &str = "/api/v1/org/keys/revoke";
    /// `POST`, an extension: a new key in place of one.
    pub const KEY_ROTATE: &str = "/api/v1/org/keys/rotate";
    /// `POST`: where to pay for a larger plan.
    pub const CHECKOUT: &str = "/api/v1/billing/checkout";
    /// `GET` and `POST`, an extension: server-sent events that say when to validate.
    pub const WATCH: &str = "/api/v1/devices/watch";
    /// `POST`, an extension: what a sidecar tells about its devices.
    pub const REPORT: &str = "/api/v1/devices/report";
    /// `GET`, an extension: what the sidecars told.
    pub const FLEET: &str = "/api/v1/org/fleet";
    /// `GET`, an extension: the newest stops of a device.
    pub const STOPS: &str = "/api/v1/org/stops";
    /// `GET`, an extension: what happened on a device.
    pub const TIMELINE: &str = "/api/v1/org/timeline";
    /// `GET`, an extension: server-sent events about everything that changes in the organisation.
    pub const EVENTS: &str = "/api/v1/org/events";
    /// `GET`, an extension: the API, described.
    pub const OPENAPI: &str = "/api/v1/openapi.json";

    /// What our authority answers: each is counted under its name, and described in `docs/openapi/authority.json`.
    pub const SERVED: [&str; 23] = [
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

/// The header of a validation's answer that was given for an old org key: when that key ends, in RFC 3339. An extension.
pub const KEY_ENDS_HEADER: &str = "x-machineid-key-ends";

/// The header of a validation's answer that names the role of the key it was asked with (see [`super::KeyRole`]). An
/// extension.
pub const KEY_ROLE_HEADER: &str = "x-machineid-key-role";

/// The header in which an authority announces what it can do beyond the service's API: words, separated by commas.
pub const EXTENSIONS_HEADER: &str = "x-machineid-extensions";

/// The header of an answer to a validation that is no decision: the authority could complete none. Its value is `1`. The
/// body still says `"allowed": false` and `SYSTEM_UNAVAILABLE`, which is all that other clients know of. It is an extension
/// of our own authority.
pub const UNDECIDED_HEADER: &str = "x-machineid-undecided";

/// What our authority announces: that it can be watched, and that it takes reports.
pub const EXTENSIONS: &str = "watch, report";

/// A key to make, as [`path::KEY_CREATE`] takes it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyWanted {
    /// The key's role.
    pub role: KeyRole,
    /// Of a host key: the devices that it may work for; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<DevicePattern>,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it is valid, in seconds; `None` for until it is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// A key of an organisation, never its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyEntry {
    /// Tells it from other keys, in the audit too.
    pub fingerprint: String,
    /// Its name, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Its role.
    pub role: KeyRole,
    /// The devices that it may work for; `None` for all.
    #[serde(default)]
    pub devices: Option<String>,
    /// `valid`, `old` or `ended`.
    pub state: String,
    /// The organisation's own key or the one before it.
    #[serde(default)]
    pub own: bool,
    /// RFC 3339 time at which it ends; `None` for never.
    #[serde(default)]
    pub ends: Option<String>,
    /// RFC 3339 time of its last use, to about a minute.
    #[serde(default)]
    pub last_used_at: Option<String>,
    /// How many devices asked last with it.
    #[serde(default)]
    pub used_by_devices: u64,
}

/// The most ids one watch may name.
pub const LARGEST_WATCH: usize = 4_096;

/// How often a watched authority sends something at least.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(5);

/// The most ids one batch may name.
pub const LARGEST_BATCH: usize = 500;

/// `{"deviceId": …}`: the body of every request about one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRequest {
    /// The device.
    pub device_id: DeviceId,
}

/// The plan fields that go with many answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanFields {
    /// `free`, `pro`, `scale` or `max`.
    pub plan_tier: Option<String>,
    /// `active`, `frozen`, …
    pub plan_state: Option<String>,
    /// RFC 3339 time at which the entitlement ends; `None` when it does not.
    pub access_until: Option<String>,
    /// The most active devices the plan allows.
    pub limit: Option<u64>,
    /// Active devices now.
    pub devices_used: Option<u64>,
    /// Places left.
    pub remaining: Option<u64>,
    /// Whether more devices are active than the plan allows.
    pub over_limit: Option<bool>,
}

/// What registering came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// New, now known.
    New,
    /// Known before.
    Exists,
    /// Known, but revoked: registering does not restore it.
    Revoked,
    /// The plan is full.
    LimitReached,
    /// The authority answered, but would not register: the status and its `error`.
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
    /// Its id, as the authority writes it.
    pub device_id: String,
    /// Active or revoked.
    pub status: DeviceStatus,
    /// RFC 3339 time of its first registration.
    #[serde(default)]
    pub created_at: Option<String>,
    /// RFC 3339 time of its last validation.
    #[serde(default)]
    pub last_seen_at: Option<String>,
    /// RFC 3339 time of the revoke, while revoked.
    #[serde(default)]
    pub revoked_at: Option<String>,
    /// It is removed when it has not been seen for a time. Our authority's extension.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
    /// It asked last with an org key from before the last rotation. Our authority's extension.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub old_key: bool,
}

/// Whether a device counts against the plan and may execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// It may execute, as far as it alone is concerned.
    Active,
    /// It may not.
    Revoked,
}

/// `GET /devices/list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceList {
    /// The devices.
    pub devices: Vec<Device>,
    /// RFC 3339 time at which the org key from before the last rotation ends or ended. Our authority's extension.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "oldKeyEnds")]
    pub old_key_ends: Option<String>,
    /// The plan.
    #[serde(flatten)]
    pub plan: PlanFields,
}

/// What to revoke or unrevoke at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchRequest {
    /// These, at most [`LARGEST_BATCH`].
    Ids(Vec<String>),
    /// All active ones (revoke), all revoked ones (unrevoke).
    All,
}

/// What became of one id of a batch.
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
    /// One entry for each distinct id.
    pub results: Vec<BatchItem>,
    /// With `all_active`.
    pub revoked_count: Option<u64>,
    /// With `all_revoked`.
    pub unrevoked_count: Option<u64>,
    /// With `all_revoked`: up to 25 of the restored ids.
    pub unrevoked_sample: Vec<String>,
    /// When nothing was restored: `at_cap` or `none_revoked`.
    pub reason: Option<String>,
}

/// Any answer that is not a decision: what clients look at when something is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Envelope {
    /// `ok`, `exists`, `blocked`, `revoked`, `error`, …
    pub status: Option<String>,
    /// `device_limit_reached`, `not_found`, `missing_params`, …
    pub error: Option<String>,
    /// Some refusals carry a decision's code.
    pub code: Option<Code>,
    /// The authority's name for the answer.
    #[serde(rename = "request_id")]
    pub request_id: Option<RequestId>,
    /// Why, as a sentence for people. What is no text is none.
    #[serde(deserialize_with = "text_or_none")]
    pub reason: Option<String>,
    /// With checkout: where to go.
    pub url: Option<String>,
    /// With org create: the new key.
    pub org_api_key: Option<String>,
}

fn text_or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    })
}
