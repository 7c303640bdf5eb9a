//! The settings of the organisation: whether it may execute, its plan and key; and the actions of the server's
//! operator.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use tracing::error;

use super::form::{OrgForm, asked};
use super::frame::{Frame, Section};
use super::refused::{Refused, sentence};
use super::{page, redirect, result, visit};
use crate::access::Permission;
use crate::admin::{self, NewKeyError, OldKeyReport};
use crate::app::App;
use crate::console::pictures::{self, Picture};
use crate::console::session::{Holder, Outcome};
use crate::console::words::{When, grouped};
use crate::keys::{self, SecretHash};
use crate::org::{Org, PlanTier, Switch};
use crate::plan::Account;
use crate::routes::billing::CHECKOUT_LIFE;
use crate::routes::now;
use crate::store::{CheckoutKey, NewCheckout, OrgChange};

/// A plan change that waits for confirmation.
struct WaitingPlanChange {
    number: String,
    wanted: PlanTier,
    until: When,
}

#[derive(Template)]
#[template(path = "console/settings.html")]
struct Page {
    frame: Frame,
    place: String,
    /// The message about the action just done.
    done: Option<&'static str>,
    org: Org,
    usage: Picture,
    used: String,
    limit: String,
    places: String,
    over: bool,
    created: When,
    until: Option<When>,
    expired: bool,
    waiting: Vec<WaitingPlanChange>,
    old_key: Option<OldKey>,
    /// Who switched execution off, when and why, a sentence for each switch.
    switched_off: Vec<String>,
    /// The word that the user must type to rotate the key.
    rotate_word: &'static str,
}

/// The previous key, as shown on the page.
struct OldKey {
    ends: When,
    valid: bool,
    devices: u64,
    devices_text: String,
    ids: Vec<String>,
    more: bool,
}

/// The messages about actions, by the word in the page's address.
const DONE: [(&str, &str); 11] = [
    ("still-off", "This switch is on again. Execution stays off: the other of the two switches is off."),
    ("off", "Execution is switched off. Every validation is denied with ORG_DISABLED, and agents are being stopped."),
    ("on", "Execution is switched on again. Agents that were stopped do not start by themselves."),
    ("asked", "The plan change waits for the operator of this server."),
    ("confirmed", "The plan is changed."),
    ("frozen", "The plan is frozen. Every validation is denied with PLAN_FROZEN, and agents are being stopped."),
    ("unfrozen", "The plan is no longer frozen."),
    ("expired", "The end of the entitlement is set. From then on every validation is denied with ENTITLEMENT_EXPIRED."),
    ("renewed", "The entitlement does not end any more."),
    ("plan", "The plan and its limit are set."),
    ("old-key-ended", "The old key is invalid now. Requests that still use it are denied with INVALID_ORG_KEY."),
];

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let now = now();
    let old = old_key(&app, &account, now).await?;
    let Account { org, used } = account;
    let waiting = app.store.checkouts(now).await?.into_iter().filter(|open| open.org.id == org.id);
    let waiting = waiting.map(|open| WaitingPlanChange {
        number: open.number,
        wanted: open.wanted,
        until: When::new(open.expires_at, now),
    });
    let switched_off = if org.disabled { app.store.switched_off(&org).await? } else { Vec::new() };
    let word = query.as_deref().and_then(|query| query.strip_prefix("done="));
    let limit = org.limit();
    page(
        StatusCode::OK,
        &Page {
            frame: Frame::inside(&app, &visit, &org, Section::Settings, "Organisation"),
            place: format!("{}/org/{}", app.console.base, org.id),
            done: DONE.iter().find(|(done, _)| Some(*done) == word).map(|(_, text)| *text),
            usage: pictures::usage(used, limit),
            used: grouped(used),
            limit: grouped(limit),
            places: grouped(limit.saturating_sub(used)),
            over: used > limit,
            created: When::new(org.created_at, now),
            until: org.access_until.map(|at| When::new(at, now)),
            expired: org.expired(now),
            waiting: waiting.collect(),
            switched_off: switched_off.iter().map(|one| sentence(&one.words())).collect(),
            rotate_word: confirmation(old.as_ref()),
            old_key: old.map(|old| OldKey {
                ends: When::new(old.ends, now),
                valid: old.valid,
                devices: old.devices,
                devices_text: grouped(old.devices),
                more: old.devices > old.device_ids.len() as u64,
                ids: old.device_ids,
            }),
            org,
        },
    )
}

fn back(app: &App, account: &Account, done: &str) -> Response {
    redirect(&format!("{}/org/{}/settings?done={done}", app.console.base, account.org.id))
}

/// Switches execution off or on.
pub(super) async fn execution(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { visit, account, form, call, .. } = asked(&app, &org, request, Permission::Administer).await?;
    let (off, done) = match form.one("execution") {
        "off" => (true, "off"),
        "on" => (false, "on"),
        _ => return Err(Refused::Malformed("The form says neither on nor off.".to_owned())),
    };
    if !off && !visit.is_operator() && account.org.off.operator {
        let text = "The operator of this server switched execution off. Only the operator can switch it on again.";
        return Err(Refused::Malformed(text.to_owned()));
    }
    if off && form.one("confirm") != "off" {
        return Err(Refused::Malformed("To switch execution off, type the word off.".to_owned()));
    }
    let switch = if visit.is_operator() { Switch::Operator } else { Switch::Own };
    let changed = app.store.order(account.org.id, &OrgChange::Disabled(switch, off), &call).await?;
    let done = if !off && changed.ok_or(Refused::NotFound)?.done.org.disabled { "still-off" } else { done };
    Ok(back(&app, &account, done))
}

/// Rotates the key; the new one is shown once. A session of the current key continues with the new one, under another
/// id. A session of the old key may not rotate, since the key that it would replace is not its own.
pub(super) async fn rotate_key(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { head, mut visit, account, form, call } = asked(&app, &org, request, Permission::Administer).await?;
    let overlap = form.span("overlap")?.unwrap_or(admin::OVERLAP);
    if overlap > admin::LONGEST_OVERLAP {
        return Err(Refused::Malformed("An old key can stay valid for 90 days (2160h) at most.".to_owned()));
    }
    let org = account.org.id;
    let word = confirmation(old_key(&app, &account, call.at).await?.as_ref());
    if form.one("confirm") != word {
        return Err(Refused::Malformed(format!("To rotate the key, type the word {word}.")));
    }
    if let Holder::Key(_, key) = visit.session.holder
        && app
            .store
            .look_up(key, None)
            .await?
            .and_then(|found| found.at(call.at))
            .is_none_or(|found| found.key.ends.is_some())
    {
        let text = "This session began with a key that ends. Sign in with one that does not to rotate the organisation's own key.";
        return Err(Refused::Malformed(text.to_owned()));
    }
    // The key may be ended between that check and the rotation: then the session has ended.
    let own = visit.is_of_own_key();
    let (expected, refused) = match visit.session.holder {
        Holder::Key(_, key) => (own.then_some(key), Refused::SignIn),
        Holder::Operator(_) => (None, Refused::NotFound),
    };
    let rotated = admin::rotate_key(&app.store, org, overlap, expected, &call).await.map_err(|error| match error {
        NewKeyError::Store(error) => error.into(),
        NewKeyError::NoRandomness(_) | NewKeyError::Role(_) => {
            error!(%error, "a key cannot be rotated");
            Refused::Failed
        }
    })?;
    let (new, key) = rotated.ok_or(refused)?;
    if let Some(notice) = new.notice {
        // A session of the organisation's own key has ended, so that no other page could show it.
        return result::key_at_once(&app, &visit, &account.org, &key, notice);
    }
    let renewed = if own { visit.go_on_with(&app, &head, org, &key) } else { None };
    let outcome = Outcome::NewKey {
        key: Some(key),
        old_key_ends: new.old_key_ends.filter(|ends| call.at < *ends),
        older_key_ended: new.older_key_ended,
    };
    let mut response = result::shown(&app, &visit, org, outcome, call.at);
    if let Some(id) = renewed {
        visit::set_cookie(&app.console, &mut response, Some(&id));
    }
    Ok(response)
}

/// Ends the old key early.
pub(super) async fn end_old_key(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { account, form, call, .. } = asked(&app, &org, request, Permission::Administer).await?;
    if form.one("confirm") != "end" {
        return Err(Refused::Malformed("To end the old key, type the word end.".to_owned()));
    }
    app.store.order(account.org.id, &OrgChange::EndOldKey, &call).await?.ok_or(Refused::NotFound)?;
    Ok(back(&app, &account, "old-key-ended"))
}

/// The previous key, if it matters: while it is valid, and while devices last used it.
async fn old_key(app: &App, account: &Account, now: Timestamp) -> Result<Option<OldKeyReport>, Refused> {
    if account.org.old_key_ends.is_none() {
        return Ok(None);
    }
    let old = admin::old_key_of(&app.store, account.org.id, now).await?;
    Ok(old.filter(|old| old.valid || old.devices > 0))
}

/// The word that the user must type to rotate: another one if that stops agents, since a second rotation ends the old
/// key.
fn confirmation(old: Option<&OldKeyReport>) -> &'static str {
    if old.is_some_and(|old| old.valid && old.devices > 0) { "cut" } else { "rotate" }
}

/// Requests another plan, which the operator confirms.
pub(super) async fn checkout(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { account, form, call, .. } = asked(&app, &org, request, Permission::GiveBack).await?;
    let wanted = match form.one("plan").parse() {
        Ok(tier @ (PlanTier::Pro | PlanTier::Scale | PlanTier::Max)) => tier,
        Ok(PlanTier::Free) | Err(_) => return Err(Refused::Malformed("Choose pro, scale or max.".to_owned())),
    };
    let secrets = keys::new_token().and_then(|token| Ok((token, keys::new_number()?)));
    let (token, number) = secrets.map_err(|error| {
        error!(%error, "a checkout could not be created");
        Refused::Failed
    })?;
    let expires_at = call.at.saturating_add(CHECKOUT_LIFE).unwrap_or(call.at);
    let new = NewCheckout { number, wanted, token: SecretHash::of_token(&token), expires_at };
    app.store.create_checkout(account.org.id, &new, &call).await?.ok_or(Refused::NotFound)?;
    Ok(back(&app, &account, "asked"))
}

/// The actions that only the operator may do to an organisation.
pub(super) async fn operate(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { visit, account, form, call, .. } = asked(&app, &org, request, Permission::Administer).await?;
    if !visit.is_operator() {
        return Err(Refused::NotFound);
    }
    let org = &account.org;
    let malformed = |text: &str| Err(Refused::Malformed(text.to_owned()));
    let (change, done) = match form.one("action") {
        "freeze" => (OrgChange::Frozen(true), "frozen"),
        "unfreeze" => (OrgChange::Frozen(false), "unfrozen"),
        "expire" => {
            let end = match form.one("at") {
                "" => call.at,
                text => match text.parse() {
                    Ok(end) => end,
                    Err(_) => {
                        return malformed("Write the time as in 2027-01-31T00:00:00Z, or leave it empty for now.");
                    }
                },
            };
            (OrgChange::AccessUntil(Some(end)), "expired")
        }
        "renew" => (OrgChange::AccessUntil(None), "renewed"),
        "set-plan" => {
            let Ok(plan) = form.one("plan").parse() else { return malformed("Choose one of the plans.") };
            let limit = match form.one("limit") {
                "" => None,
                text => match text.parse() {
                    Ok(limit) => Some(limit),
                    Err(_) => return malformed("A limit is a number of devices; leave it empty for the plan's own."),
                },
            };
            (OrgChange::Plan(plan, limit), "plan")
        }
        "confirm-checkout" => {
            let number = form.one("number");
            let open = app.store.checkouts(call.at).await?;
            if !open.iter().any(|open| open.org.id == org.id && open.number == number) {
                return malformed("That plan change was confirmed already, or is older than an hour.");
            }
            let confirmed = app.store.confirm_checkout(&CheckoutKey::Number(number.to_owned()), &call).await?;
            confirmed.ok_or(Refused::NotFound)?;
            return Ok(back(&app, &account, "confirmed"));
        }
        "delete" => {
            let id = org.id.to_string();
            if form.one("confirm") != id {
                return malformed("To delete an organisation, type its id.");
            }
            app.store.order(org.id, &OrgChange::Delete, &call).await?.ok_or(Refused::NotFound)?;
            return Ok(redirect(&format!("{}/orgs?deleted={id}", app.console.base)));
        }
        _ => return malformed("The form does not say what to do."),
    };
    app.store.order(org.id, &change, &call).await?.ok_or(Refused::NotFound)?;
    Ok(back(&app, &account, done))
}
