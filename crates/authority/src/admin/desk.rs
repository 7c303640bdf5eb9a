//! Carries out what operators ask on the admin socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use machineid_clock::BootTime;
use machineid_org_key::OrgKey;

use super::{
    AdminReply, AdminRequest, AuditReport, CheckoutReport, Expiry, LARGEST_AUDIT_PAGE, LONGEST_OVERLAP, NAMED,
    NewOrgKey, OldKeyReport, OrgReport, keys,
};
use crate::approvals::{self, MOST_NEEDED};
use crate::audit::{Actor, Call, Query};
use crate::console::session::Console;
use crate::health::Health;
use crate::keys::{NoRandomness, SecretHash, new_key, new_token};
use crate::org::{Org, OrgId, PlanTier, Switch, SwitchedOff, Switches};
use crate::plan::Account;
use crate::role_keys::KeyError;
use crate::store::{CheckoutKey, Filter, OrgChange, Store, StoreError};
use crate::unwritten::{InForce, NotWritten};

/// The state that admin requests need.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) store: Store,
    /// The URL of this authority for browsers, without a slash at the end.
    pub(crate) public_url: String,
    pub(crate) console: Arc<Console>,
    pub(crate) health: Arc<Health>,
}

/// Why an organisation could not be created or given a new key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewKeyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error(transparent)]
    Role(#[from] KeyError),
}

/// Adds an organisation. Its key exists only in the answer.
pub(crate) async fn create_org(
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
        off: Switches::default(),
        frozen: false,
        access_until: None,
        created_at: call.at,
        deleted: false,
        old_key_ends: None,
        restore_needs: 1,
    };
    store.create_org(&org, SecretHash::of_key(&key), call).await?;
    Ok((org, key))
}

/// Handles a request.
pub(super) async fn answer(desk: &Desk, request: AdminRequest, call: &Call) -> AdminReply {
    match perform(desk, request, call).await {
        Ok(reply) => reply,
        Err(NewKeyError::Store(error) | NewKeyError::Role(KeyError::Store(error))) => {
            AdminReply::Failed(format!("{error}{}", error.advice()))
        }
        Err(error @ (NewKeyError::NoRandomness(_) | NewKeyError::Role(_))) => {
            AdminReply::Failed(format!("{error}; nothing was changed as far as is known; try again"))
        }
    }
}

async fn perform(desk: &Desk, request: AdminRequest, call: &Call) -> Result<AdminReply, NewKeyError> {
    let (store, now) = (&desk.store, call.at);
    let (org, change) = match request {
        AdminRequest::Create { name, plan, limit } => {
            let (org, key) = create_org(store, name, plan, limit, call).await?;
            return Ok(AdminReply::Key(NewOrgKey {
                org_id: org.id,
                org_api_key: key.expose().to_owned(),
                plan_tier: org.tier,
                old_key_ends: None,
                old_key_valid: false,
                older_key_ended: false,
                notice: None,
            }));
        }
        AdminRequest::List => return listed(store, now).await,
        AdminRequest::Health => return Ok(AdminReply::Health(desk.health.problems())),
        AdminRequest::Show { org } => {
            let Some(account) = store.any_account(org).await? else {
                return Ok(AdminReply::Failed(format!("there is no organisation {org}; `org list` names them")));
            };
            let old_key = old_key_of(store, org, now).await?;
            let off = switched_off(store, &account).await?;
            return Ok(AdminReply::Org(OrgReport { off, old_key, ..OrgReport::new(&account, now) }));
        }
        AdminRequest::RotateKey { org, overlap_seconds, yes } => {
            return asked_rotation(store, org, Duration::from_secs(overlap_seconds), yes, call).await;
        }
        AdminRequest::Key { org, request } => {
            return Ok(keys::perform(store, org, request, call).await?);
        }
        AdminRequest::EndOldKey { org } => (org, OrgChange::EndOldKey),
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
        AdminRequest::BackUp { to } => return backed_up(store, &to).await,
        AdminRequest::Audit { org, device, limit, before } => {
            let limit = limit.clamp(1, LARGEST_AUDIT_PAGE);
            let page = store.audit(&Query { org, device, before, limit, ..Query::default() }).await?;
            let next_cursor = page.entries.last().filter(|_| page.more).map(|last| last.id);
            return Ok(AdminReply::Audit(AuditReport { entries: page.entries, next_cursor }));
        }
        AdminRequest::Disable { org } => (org, OrgChange::Disabled(Switch::Operator, true)),
        AdminRequest::Enable { org, own } => {
            if own && store.order(org, &OrgChange::Disabled(Switch::Own, false), call).await?.is_none() {
                return Ok(gone(org));
            }
            (org, OrgChange::Disabled(Switch::Operator, false))
        }
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
        AdminRequest::Set { org, restore_needs } => (org, OrgChange::RestoreNeeds(restore_needs.clamp(1, MOST_NEEDED))),
        AdminRequest::Delete { org } => (org, OrgChange::Delete),
    };
    changed(store, org, &change, call).await
}

/// Changes an organisation.
async fn changed(store: &Store, org: OrgId, change: &OrgChange, call: &Call) -> Result<AdminReply, NewKeyError> {
    let now = call.at;
    let Some(InForce { done: account, unwritten }) = store.order(org, change, call).await? else {
        return Ok(gone(org));
    };
    // The change is made, whether or not what is told beside it can be read.
    let (mut notice, mut off) = (unwritten.as_ref().map(NotWritten::notice), Vec::new());
    if unwritten.is_none() {
        off = switched_off(store, &account).await.unwrap_or_default();
        if let OrgChange::RestoreNeeds(needed) = change {
            notice = too_few_keys(store, org, *needed, now).await.unwrap_or_default();
        }
    }
    Ok(AdminReply::Org(OrgReport { off, notice, ..OrgReport::new(&account, now) }))
}

/// What an operator should know who made restores a matter of two keys: with fewer keys nothing can be confirmed.
async fn too_few_keys(store: &Store, org: OrgId, needed: u8, now: Timestamp) -> Result<Option<String>, StoreError> {
    if needed < 2 {
        return Ok(None);
    }
    let keys = store.keys(org).await?.unwrap_or_default();
    let held: Vec<_> = keys.into_iter().map(|key| key.held).collect();
    Ok(approvals::too_few(&held, now).map(str::to_owned))
}

/// Who switched the organisation off, as the audit says; empty while it is on.
async fn switched_off(store: &Store, account: &Account) -> Result<Vec<SwitchedOff>, StoreError> {
    if !account.org.disabled {
        return Ok(Vec::new());
    }
    store.switched_off(&account.org).await
}

/// Writes a copy of the database to a new file.
async fn backed_up(store: &Store, to: &Path) -> Result<AdminReply, NewKeyError> {
    if to.exists() {
        return Ok(AdminReply::Failed(format!("{} exists already; name a new file", to.display())));
    }
    store.back_up(to).await?;
    Ok(AdminReply::BackedUp)
}

/// Every organisation, and what still uses old keys.
async fn listed(store: &Store, now: Timestamp) -> Result<AdminReply, NewKeyError> {
    let old = store.old_keys(Timestamp::MIN).await?;
    let report = |account: &Account| OrgReport {
        old_key: old.iter().find(|old| old.org == account.org.id).map(|old| OldKeyReport::new(old, Vec::new(), now)),
        ..OrgReport::new(account, now)
    };
    Ok(AdminReply::Orgs(store.orgs().await?.iter().map(report).collect()))
}

/// Rotates the key, unless that would stop agents and the operator has not allowed it.
async fn asked_rotation(
    store: &Store,
    org: OrgId,
    overlap: Duration,
    yes: bool,
    call: &Call,
) -> Result<AdminReply, NewKeyError> {
    if overlap > LONGEST_OVERLAP {
        return Ok(AdminReply::Failed("an old key can stay valid for 90 days (2160h) at most".to_owned()));
    }
    if !overlap.is_zero()
        && !yes
        && let Some(old) = old_key_of(store, org, call.at).await?
        && old.valid
        && old.devices > 0
    {
        return Ok(AdminReply::Failed(older_key_in_use(&old)));
    }
    let rotated = rotate_key(store, org, overlap, None, call).await?;
    Ok(rotated.map_or_else(|| gone(org), |(new, _)| AdminReply::Key(new)))
}

/// Gives the organisation a new key; the previous one stays valid for `overlap`. The new key exists only in the answer.
/// `None` when the organisation was deleted, or its key is not the `expected` one: a caller whose own key was ended
/// meanwhile must not see the new one.
pub(crate) async fn rotate_key(
    store: &Store,
    org: OrgId,
    overlap: Duration,
    expected: Option<SecretHash>,
    call: &Call,
) -> Result<Option<(NewOrgKey, OrgKey)>, NewKeyError> {
    let key = new_key()?;
    let ends = (!overlap.is_zero()).then(|| call.at.saturating_add(overlap).unwrap_or(Timestamp::MAX));
    let before = store.account_in_passing(org).await.and_then(|account| account.org.old_key_ends);
    let changed = store.order(org, &OrgChange::Key(SecretHash::of_key(&key), ends, expected), call).await?;
    Ok(changed.map(|InForce { done: account, unwritten }| {
        let notice = unwritten
            .map(|unwritten| format!("{} Until then no own key is valid, not even the new one.", unwritten.notice()));
        let new = NewOrgKey {
            org_id: org,
            org_api_key: key.expose().to_owned(),
            plan_tier: account.org.tier,
            old_key_ends: account.org.old_key_ends,
            old_key_valid: ends.is_some(),
            older_key_ended: before.is_some_and(|before| call.at < before),
            notice,
        };
        (new, key)
    }))
}

/// The organisation's previous key, and the devices that still use it. `None` when there was no rotation.
pub(crate) async fn old_key_of(store: &Store, org: OrgId, now: Timestamp) -> Result<Option<OldKeyReport>, StoreError> {
    let Some(old) = store.old_keys(Timestamp::MIN).await?.into_iter().find(|old| old.org == org) else {
        return Ok(None);
    };
    let filter = Filter { old_key: true, limit: Some(NAMED), ..Filter::default() };
    let named = store.list(org, &filter).await?;
    let ids = named.into_iter().flat_map(|(page, _)| page.devices).map(|device| device.id).collect();
    Ok(Some(OldKeyReport::new(&old, ids, now)))
}

fn older_key_in_use(old: &OldKeyReport) -> String {
    let some = if old.devices > u64::from(NAMED) { " and more" } else { "" };
    format!(
        "{} device(s) still use the key before the current one, which is valid until {:.0}: {}{some}\n\
         A second rotation ends that key at once, and agents there stop until the host has the new one. Give those hosts \
         the current key first; --yes rotates all the same.",
        old.devices,
        old.ends,
        old.device_ids.join(", ")
    )
}

fn no_checkout(number: &str) -> AdminReply {
    AdminReply::Failed(format!(
        "there is no open checkout {number}: it was confirmed, is older than an hour, or never existed; `org \
         checkouts` lists the open ones"
    ))
}

fn gone(org: OrgId) -> AdminReply {
    AdminReply::Failed(format!("there is no organisation {org}, or it was deleted; `org list` names them"))
}
