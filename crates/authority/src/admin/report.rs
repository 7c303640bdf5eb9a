//! Organisations as an operator sees them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::org::{OrgId, PlanTier, Switch, SwitchedOff};
use crate::plan::Account;
use crate::store::OldKey;

/// An organisation as an operator sees it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrgReport {
    pub(crate) org_id: OrgId,
    pub(crate) name: Option<String>,
    pub(crate) plan_tier: PlanTier,
    /// The first reason of a validation to deny: `deleted`, `disabled`, `frozen`, `expired`; otherwise `active`.
    pub(crate) state: String,
    /// Which switches are off: `own`, which an admin key takes back, and `operator`, which `enable` takes back.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) off_by: Vec<String>,
    /// When one organisation is shown: who switched each of these off, when and why.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) off: Vec<SwitchedOff>,
    pub(crate) access_until: Option<Timestamp>,
    pub(crate) limit: u64,
    pub(crate) devices_used: u64,
    /// How many keys a restore needs.
    #[serde(default = "one")]
    pub(crate) restore_needs: u8,
    pub(crate) created_at: Timestamp,
    /// After a rotation: the previous key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) old_key: Option<OldKeyReport>,
    /// After a stop that is in force and not in the database: what that means.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) notice: Option<String>,
}

/// What a server of an earlier version does.
fn one() -> u8 {
    1
}

/// The previous key, and the devices that still use it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OldKeyReport {
    pub(crate) ends: Timestamp,
    /// Whether the key is still valid.
    pub(crate) valid: bool,
    /// How many devices used another key than the current one in their last request.
    pub(crate) devices: u64,
    /// Some of those devices, when one organisation is shown.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) device_ids: Vec<String>,
}

impl OldKeyReport {
    pub(super) fn new(old: &OldKey, device_ids: Vec<String>, now: Timestamp) -> Self {
        Self { ends: old.ends, valid: now < old.ends, devices: old.devices, device_ids }
    }
}

impl OrgReport {
    pub(super) fn new(account: &Account, now: Timestamp) -> Self {
        let org = &account.org;
        let state = if org.deleted {
            "deleted"
        } else if org.disabled {
            "disabled"
        } else if org.frozen {
            "frozen"
        } else if org.expired(now) {
            "expired"
        } else {
            "active"
        };
        Self {
            org_id: org.id,
            name: org.name.clone(),
            plan_tier: org.tier,
            state: state.to_owned(),
            off_by: [(org.off.own, Switch::Own), (org.off.operator, Switch::Operator)]
                .into_iter()
                .filter(|(off, _)| *off)
                .map(|(_, switch)| switch.as_str().to_owned())
                .collect(),
            off: Vec::new(),
            access_until: org.access_until,
            limit: org.limit(),
            devices_used: account.used,
            restore_needs: org.restore_needs,
            created_at: org.created_at,
            old_key: None,
            notice: None,
        }
    }
}
