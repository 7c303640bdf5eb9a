//! The admin socket: a unix socket beside the database, for root and the server's own user.
//!
//! The client sends one JSON object on one line, the server answers with another, and the connection ends. Not HTTP:
//! the only client is in this program, and can then be plain blocking code. Access is checked twice: by the socket's
//! mode (0600), and by the peer's uid from the kernel.
//!
//! | file | concept |
//! |---|---|
//! | `mod` | what is sent: requests and replies |
//! | `desk` | carries requests out |
//! | `keys` | keys with roles |
//! | `report` | an organisation in a reply |
//! | `client`, `server` | the two ends of the socket |

mod client;
mod desk;
mod keys;
mod report;
mod server;

pub(super) use client::ask;
pub(super) use desk::{Desk, NewKeyError, create_org, old_key_of, rotate_key};
pub(super) use keys::{KeyRequest, ShownKey};
pub(super) use report::{OldKeyReport, OrgReport};
pub(super) use server::Door;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::audit::{AuditEntry, CallReason};
use super::health::Problem;
use super::org::{OrgId, PlanTier};
use super::role_keys::KeyReport;
use super::store::Checkout;

/// The maximum number of audit entries in one reply.
pub(super) const LARGEST_AUDIT_PAGE: u32 = 1_000;

/// A request of an operator, with the reason.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AdminCall {
    pub(super) request: AdminRequest,
    /// The reason, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<CallReason>,
}

/// A request of an operator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum AdminRequest {
    Create {
        name: Option<String>,
        plan: PlanTier,
        limit: Option<u64>,
    },
    List,
    Health,
    Show {
        org: OrgId,
    },
    Disable {
        org: OrgId,
    },
    Enable {
        org: OrgId,
        /// The organisation's own switch too.
        #[serde(default)]
        own: bool,
    },
    Freeze {
        org: OrgId,
    },
    Unfreeze {
        org: OrgId,
    },
    Expire {
        org: OrgId,
        at: Expiry,
    },
    SetPlan {
        org: OrgId,
        plan: PlanTier,
        limit: Option<u64>,
    },
    RotateKey {
        org: OrgId,
        /// How long the old key stays valid.
        #[serde(default = "default_overlap")]
        overlap_seconds: u64,
        /// Rotate even if devices still use the key before the old one, which then ends.
        #[serde(default)]
        yes: bool,
    },
    EndOldKey {
        org: OrgId,
    },
    /// About its keys with roles.
    Key {
        org: OrgId,
        request: KeyRequest,
    },
    Set {
        org: OrgId,
        /// How many keys a restore needs.
        restore_needs: u8,
    },
    Delete {
        org: OrgId,
    },
    Checkouts,
    ConfirmCheckout {
        number: String,
    },
    LinkCheckout {
        number: String,
    },
    ConsoleLink {
        org: Option<OrgId>,
    },
    BackUp {
        to: PathBuf,
    },
    Audit {
        org: Option<OrgId>,
        device: Option<String>,
        limit: u32,
        before: Option<i64>,
    },
}

/// How long an old key stays valid after a rotation, by default.
pub(super) const OVERLAP: Duration = Duration::from_hours(24);

/// The longest time that an old key may stay valid.
pub(super) const LONGEST_OVERLAP: Duration = Duration::from_hours(24 * 90);

/// How many devices that use an old key are named.
pub(super) const NAMED: u32 = 25;

fn default_overlap() -> u64 {
    OVERLAP.as_secs()
}

/// The end of an entitlement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expiry {
    Now,
    Never,
    At(Timestamp),
}

/// The server's reply.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "kebab-case")]
pub(super) enum AdminReply {
    /// The organisation with its new key, which is shown only this once.
    Key(NewOrgKey),
    /// A key with a role, which is shown this once.
    RoleKey(ShownKey),
    Keys(Vec<KeyReport>),
    /// The fingerprints of keys that are invalid now.
    KeyEnded(Vec<String>),
    /// The same, of keys that are invalid at this server and not in the database: what that means.
    KeyEndedUnwritten {
        fingerprints: Vec<String>,
        notice: String,
    },
    Org(OrgReport),
    Orgs(Vec<OrgReport>),
    Audit(AuditReport),
    Checkouts(Vec<CheckoutReport>),
    /// The address where an operator's browser confirms a checkout or signs in to the console; shown only this once.
    Link(String),
    /// The known problems of the server.
    Health(Vec<Problem>),
    /// A copy of the database was written.
    BackedUp,
    Failed(String),
}

/// A new key; in JSON `{"orgId","orgApiKey","planTier"}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewOrgKey {
    pub(super) org_id: OrgId,
    pub(super) org_api_key: String,
    pub(super) plan_tier: PlanTier,
    /// After a rotation: when the previous key ends or ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) old_key_ends: Option<Timestamp>,
    /// Whether the previous key is still valid.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(super) old_key_valid: bool,
    /// After a rotation: an even older key was valid until then, and ended with the rotation.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(super) older_key_ended: bool,
    /// The old key is invalid at this server, and the database has not got the new one yet: what that means.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) notice: Option<String>,
}

impl fmt::Debug for NewOrgKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewOrgKey").field("org_id", &self.org_id).finish_non_exhaustive()
    }
}

/// A page of the audit, the newest entry first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditReport {
    pub(super) entries: Vec<AuditEntry>,
    /// The cursor of the page with older entries.
    pub(super) next_cursor: Option<i64>,
}

/// A checkout that waits for an operator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckoutReport {
    pub(super) number: String,
    pub(super) org_id: OrgId,
    pub(super) name: Option<String>,
    pub(super) plan_tier: PlanTier,
    pub(super) wanted: PlanTier,
    pub(super) expires_at: Timestamp,
}

impl CheckoutReport {
    fn new(checkout: &Checkout) -> Self {
        Self {
            number: checkout.number.clone(),
            org_id: checkout.org.id,
            name: checkout.org.name.clone(),
            plan_tier: checkout.org.tier,
            wanted: checkout.wanted,
            expires_at: checkout.expires_at,
        }
    }
}
