//! Bodies and answers about restores that wait for a second key, and about the switch of execution.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ReasonText, UnwrittenFields, Word};
use crate::approvals::{Approval, ApprovalState};
use crate::org::SwitchedOff;

/// The request that is meant.
#[derive(Debug, Deserialize, ToSchema)]
pub(in super::super) struct ApprovalNamed {
    /// Its number.
    #[schema(min_length = 1, max_length = 64)]
    pub(in super::super) approval: String,
    pub(in super::super) reason: Option<ReasonText>,
}

/// A request for a restore.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ApprovalEntry {
    pub(in super::super) id: String,
    pub(in super::super) state: ApprovalState,
    /// What it asks for, in words.
    pub(in super::super) asks: String,
    /// The devices that it names; empty for one about all of them, or about something else.
    pub(in super::super) device_ids: Vec<String>,
    /// The key that asked, as the audit names it.
    pub(in super::super) asked_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub(in super::super) asked_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub(in super::super) expires_at: Timestamp,
    pub(in super::super) reason: Option<String>,
    /// The key that decided, as the audit names it.
    pub(in super::super) decided_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(in super::super) decided_at: Option<Timestamp>,
}

impl ApprovalEntry {
    pub(in super::super) fn new(approval: &Approval) -> Self {
        Self {
            id: approval.id.clone(),
            state: approval.state,
            asks: approval.action.words(),
            device_ids: approval.action.devices().into_iter().map(ToString::to_string).collect(),
            asked_by: approval.asked_by.clone(),
            asked_at: approval.asked_at,
            expires_at: approval.expires_at,
            reason: approval.reason.clone(),
            decided_by: approval.decided_by.clone(),
            decided_at: approval.decided_at,
        }
    }
}

/// Requests for restores.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ApprovalList {
    pub(in super::super) status: Word,
    pub(in super::super) handler: &'static str,
    /// How many keys a restore needs: 1 or 2.
    pub(in super::super) restore_needs: u8,
    pub(in super::super) approvals: Vec<ApprovalEntry>,
}

/// A request that was confirmed or rejected.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct ApprovalDone {
    pub(in super::super) status: Word,
    pub(in super::super) handler: &'static str,
    pub(in super::super) approval: ApprovalEntry,
}

/// A restore that waits for a second key. Nothing was done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct RestoreWaits<'a> {
    /// `waiting`.
    pub(in super::super) status: &'static str,
    /// `needs_approval`.
    pub(in super::super) error: &'static str,
    /// The number by which another key confirms it.
    pub(in super::super) approval_id: &'a str,
    #[schema(value_type = String, format = DateTime)]
    pub(in super::super) expires_at: Timestamp,
    /// What to do, in words.
    pub(in super::super) reason: String,
    /// Of a request for a key: its text, shown here and never again. It is valid from the confirmation on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) org_api_key: Option<&'a str>,
}

/// A body with a reason and nothing else.
#[derive(Debug, Deserialize, ToSchema)]
pub(in super::super) struct OnlyReason {
    pub(in super::super) reason: Option<ReasonText>,
}

/// The state of the two switches of execution.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ExecutionSwitched {
    pub(in super::super) status: Word,
    pub(in super::super) handler: &'static str,
    /// Whether every device is denied.
    pub(in super::super) disabled: bool,
    /// Which switches are off: `own`, `operator`.
    #[schema(value_type = Vec<String>)]
    pub(in super::super) off_by: Vec<&'static str>,
    /// Who switched each of these off, when and why, as far as the audit says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(in super::super) switched_off: Vec<SwitchedOff>,
    #[serde(flatten)]
    pub(in super::super) unwritten: UnwrittenFields,
}
