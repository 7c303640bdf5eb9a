//! The operator's side door: a unix socket beside the database, for root and the server's own user.
//!
//! One JSON object each way, a line each, then the connection ends. Not HTTP: there is one client, in this program, and
//! it can then be plain blocking code. Who may connect is settled twice: by the socket's mode (0600) and by the peer's
//! uid from the kernel.

mod client;
mod server;

pub(super) use client::ask;
pub(super) use server::{BindError, Door};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::audit::{Actor, Call, Entry, Query, Reason};
use super::console::Console;
use super::health::{Health, Problem};
use super::keys::{NoRandomness, SecretHash, new_key, new_token};
use super::org::{Org, OrgId, PlanTier};
use super::plan::Account;
use super::store::{Checkout, CheckoutKey, OrgChange, Store, StoreError};
use crate::clock::BootTime;
use crate::protocol::OrgKey;

/// The most entries of the audit in one reply.
pub(super) const LARGEST_AUDIT_PAGE: u32 = 1_000;

/// What an operator asks for, and why.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AdminCall {
    pub(super) request: AdminRequest,
    /// Kept in the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Reason>,
}

/// What an operator asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum AdminRequest {
    Create { name: Option<String>, plan: PlanTier, limit: Option<u64> },
    List,
    Health,
    Show { org: OrgId },
    Disable { org: OrgId },
    Enable { org: OrgId },
    Freeze { org: OrgId },
    Unfreeze { org: OrgId },
    Expire { org: OrgId, at: Expiry },
    SetPlan { org: OrgId, plan: PlanTier, limit: Option<u64> },
    RotateKey { org: OrgId },
    Delete { org: OrgId },
    Checkouts,
    ConfirmCheckout { number: String },
    LinkCheckout { number: String },
    ConsoleLink { org: Option<OrgId> },
    BackUp { to: PathBuf },
    Audit { org: Option<OrgId>, device: Option<String>, limit: u32, before: Option<i64> },
}

/// When an entitlement ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expiry {
    Now,
    Never,
    At(Timestamp),
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "kebab-case")]
pub(super) enum AdminReply {
    /// The organisation with its new key, which is shown this once.
    Key(NewKey),
    Org(OrgReport),
    Orgs(Vec<OrgReport>),
    Audit(AuditReport),
    Checkouts(Vec<CheckoutReport>),
    /// Where an operator's browser confirms a checkout, or signs in to the console; shown this once.
    Link(String),
    /// What is wrong with the server.
    Health(Vec<Problem>),
    /// A copy of the database was written.
    BackedUp,
    Failed(String),
}

/// `{"orgId","orgApiKey","planTier"}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewKey {
    pub(super) org_id: OrgId,
    pub(super) org_api_key: String,
    pub(super) plan_tier: PlanTier,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("org_id", &self.org_id).finish_non_exhaustive()
    }
}

/// A page of the audit, the newest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditReport {
    pub(super) entries: Vec<Entry>,
    /// What to ask for older ones with.
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

/// What admin requests are about.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) store: Store,
    /// Where browsers reach this authority, without a slash at the end.
    pub(super) public_url: String,
    pub(super) console: Arc<Console>,
    pub(super) health: Arc<Health>,
}

/// An organisation as an operator sees it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrgReport {
    pub(super) org_id: OrgId,
    pub(super) name: Option<String>,
    pub(super) plan_tier: PlanTier,
    /// What a validation meets first: `deleted`, `disabled`, `frozen`, `expired`, or `active`.
    pub(super) state: String,
    pub(super) access_until: Option<Timestamp>,
    pub(super) limit: u64,
    pub(super) devices_used: u64,
    pub(super) created_at: Timestamp,
}

impl OrgReport {
    fn new(account: &Account, now: Timestamp) -> Self {
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
            access_until: org.access_until,
            limit: org.limit(),
            devices_used: account.used,
            created_at: org.created_at,
        }
    }
}

/// Why an organisation could not be created or given a new key.
#[derive(Debug, thiserror::Error)]
pub(super) enum NewKeyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Adds an organisation. Its key is nowhere but in the answer.
pub(super) async fn create_org(
    store: &Store,
    name: Option<String>,
    tier: PlanTier,
    limit: Option<u64>,
    call: &Call,
) -> Result<(Org, OrgKey), NewKeyError> {
    let key = new_key()?;
    let org = Org {
        id: OrgId::random(),
        name,
        tier,
        device_limit: limit,
        disabled: false,
        frozen: false,
        access_until: None,
        created_at: call.at,
        deleted: false,
    };
    store.create_org(&org, SecretHash::of_key(&key), call).await?;
    Ok((org, key))
}

/// Does what was asked for.
async fn answer(desk: &Desk, request: AdminRequest, call: &Call) -> AdminReply {
    match perform(desk, request, call).await {
        Ok(reply) => reply,
        Err(error) => AdminReply::Failed(format!("{error}; nothing was changed as far as is known, try again")),
    }
}

async fn perform(desk: &Desk, request: AdminRequest, call: &Call) -> Result<AdminReply, NewKeyError> {
    let (store, now) = (&desk.store, call.at);
    let (org, change) = match request {
        AdminRequest::Create { name, plan, limit } => {
            let (org, key) = create_org(store, name, plan, limit, call).await?;
            return Ok(AdminReply::Key(NewKey {
                org_id: org.id,
                org_api_key: key.expose().to_owned(),
                plan_tier: org.tier,
            }));
        }
        AdminRequest::List => {
            let accounts = store.orgs().await?;
            return Ok(AdminReply::Orgs(accounts.iter().map(|account| OrgReport::new(account, now)).collect()));
        }
        AdminRequest::Health => return Ok(AdminReply::Health(desk.health.problems())),
        AdminRequest::Show { org } => {
            let account = store.any_account(org).await?;
            return Ok(account.map_or_else(
                || AdminReply::Failed(format!("there is no organisation {org}; `org list` names them")),
                |account| AdminReply::Org(OrgReport::new(&account, now)),
            ));
        }
        AdminRequest::RotateKey { org } => {
            let key = new_key()?;
            let changed = store.change_org(org, &OrgChange::Key(SecretHash::of_key(&key)), call).await?;
            return Ok(changed.map_or_else(
                || gone(org),
                |account| {
                    AdminReply::Key(NewKey {
                        org_id: org,
                        org_api_key: key.expose().to_owned(),
                        plan_tier: account.org.tier,
                    })
                },
            ));
        }
        AdminRequest::Checkouts => {
            let open = store.checkouts(now).await?;
            return Ok(AdminReply::Checkouts(open.iter().map(CheckoutReport::new).collect()));
        }
        AdminRequest::ConfirmCheckout { number } => {
            let confirmed = store.confirm_checkout(&CheckoutKey::Number(number.clone()), call).await?;
            let Some(checkout) = confirmed else { return Ok(no_checkout(&number)) };
            let account = store.any_account(checkout.org.id).await?;
            return Ok(
                account.map_or_else(|| gone(checkout.org.id), |account| AdminReply::Org(OrgReport::new(&account, now)))
            );
        }
        AdminRequest::LinkCheckout { number } => {
            let secret = new_token()?;
            let linked = store.link_checkout(&number, SecretHash::of_confirmation(&secret), call).await?;
            return Ok(linked.map_or_else(
                || no_checkout(&number),
                |_| AdminReply::Link(format!("{}/checkout/{secret}", desk.public_url)),
            ));
        }
        AdminRequest::ConsoleLink { org } => {
            if let Some(org) = org
                && store.account(org).await?.is_none()
            {
                return Ok(gone(org));
            }
            let Actor::Uid(uid) = call.actor else {
                return Ok(AdminReply::Failed("only a user of this machine can ask for a link".to_owned()));
            };
            let secret = desk.console.links.make(uid, org, BootTime::now())?;
            return Ok(AdminReply::Link(format!("{}/console/operator/{secret}", desk.public_url)));
        }
        AdminRequest::BackUp { to } => {
            if to.exists() {
                return Ok(AdminReply::Failed(format!("{} exists already; name a new file", to.display())));
            }
            store.back_up(&to).await?;
            return Ok(AdminReply::BackedUp);
        }
        AdminRequest::Audit { org, device, limit, before } => {
            let limit = limit.clamp(1, LARGEST_AUDIT_PAGE);
            let page = store.audit(&Query { org, device, before, limit, ..Query::default() }).await?;
            let next_cursor = page.entries.last().filter(|_| page.more).map(|last| last.id);
            return Ok(AdminReply::Audit(AuditReport { entries: page.entries, next_cursor }));
        }
        AdminRequest::Disable { org } => (org, OrgChange::Disabled(true)),
        AdminRequest::Enable { org } => (org, OrgChange::Disabled(false)),
        AdminRequest::Freeze { org } => (org, OrgChange::Frozen(true)),
        AdminRequest::Unfreeze { org } => (org, OrgChange::Frozen(false)),
        AdminRequest::Expire { org, at } => {
            let end = match at {
                Expiry::Now => Some(now),
                Expiry::Never => None,
                Expiry::At(time) => Some(time),
            };
            (org, OrgChange::AccessUntil(end))
        }
        AdminRequest::SetPlan { org, plan, limit } => (org, OrgChange::Plan(plan, limit)),
        AdminRequest::Delete { org } => (org, OrgChange::Delete),
    };
    let changed = store.change_org(org, &change, call).await?;
    Ok(changed.map_or_else(|| gone(org), |account| AdminReply::Org(OrgReport::new(&account, now))))
}

fn no_checkout(number: &str) -> AdminReply {
    AdminReply::Failed(format!(
        "there is no open checkout {number}: it was confirmed, is older than an hour, or never was; `org checkouts` \
         names those that wait"
    ))
}

fn gone(org: OrgId) -> AdminReply {
    AdminReply::Failed(format!("there is no organisation {org}, or it was deleted; `org list` names them"))
}
