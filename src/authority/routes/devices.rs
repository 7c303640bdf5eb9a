//! Registering, revoking, unrevoking and removing one device.
//!
//! None of them looks at whether the organisation is disabled, frozen or expired. Those say who may *execute*, which a
//! validation decides; a fleet that boots while its plan is frozen should be known, and deny, and run again by itself
//! when the plan is, instead of needing every host to register once more. The plan's limit holds throughout.

use std::slice;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;

use super::App;
use super::answer::Answer;
use super::ask::{self, org_not_found};
use crate::authority::audit::{Call, Verb};
use crate::authority::batch::{Named, Outcome};
use crate::authority::org::Org;
use crate::authority::plan::{Admission, Restoration, Suspension};
use crate::protocol::DeviceId;

pub(super) async fn register(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let org = ask::caller(&app, &head).await?;
    let id = ask::device(body).await?;
    let call = ask::call(&head);
    let (admission, account) = app.store.register(org.id, &id, &call).await?.ok_or_else(org_not_found)?;
    let handler = "devices/register";
    let answer = match admission {
        Admission::New => Answer::ok("ok", handler),
        Admission::Exists => Answer::ok("exists", handler),
        Admission::Revoked => refused("revoked", "device_revoked", handler),
        Admission::Full => refused("blocked", "device_limit_reached", handler),
    };
    Ok(answer.with("deviceId", id.as_str()).with_plan(&account, call.at))
}

pub(super) async fn revoke(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, id, call) = asked(&app, request).await?;
    let one = only(&id);
    let done = app.store.revoke(org.id, slice::from_ref(&one), Verb::Revoke, &call).await?;
    let (outcomes, account) = done.ok_or_else(org_not_found)?;
    let answer = match outcomes.first() {
        Some(Outcome::Did(Suspension::Revoked | Suspension::AlreadyRevoked)) => Answer::ok("ok", "devices/revoke"),
        Some(Outcome::Did(Suspension::NotFound) | Outcome::Invalid) | None => not_found("devices/revoke"),
    };
    Ok(answer.with("deviceId", id.as_str()).with_plan(&account, call.at))
}

pub(super) async fn unrevoke(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, id, call) = asked(&app, request).await?;
    let one = only(&id);
    let done = app.store.unrevoke(org.id, slice::from_ref(&one), Verb::Unrevoke, &call).await?;
    let (outcomes, account) = done.ok_or_else(org_not_found)?;
    let handler = "devices/unrevoke";
    let answer = match outcomes.first() {
        Some(Outcome::Did(Restoration::Restored | Restoration::AlreadyActive)) => Answer::ok("ok", handler),
        Some(Outcome::Did(Restoration::Full)) => refused("blocked", "device_limit_reached", handler),
        Some(Outcome::Did(Restoration::NotFound) | Outcome::Invalid) | None => not_found(handler),
    };
    Ok(answer.with("deviceId", id.as_str()).with_plan(&account, call.at))
}

pub(super) async fn remove(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, id, call) = asked(&app, request).await?;
    let (removed, account) = app.store.remove(org.id, &id, &call).await?.ok_or_else(org_not_found)?;
    let handler = "devices/remove";
    let answer = if removed { Answer::ok("ok", handler) } else { not_found(handler) };
    Ok(answer.with("deviceId", id.as_str()).with_plan(&account, call.at))
}

/// Who does what to which device, and why. The key is looked at first: nobody else is told what is wrong with a request.
async fn asked(app: &App, request: Request) -> Result<(Org, DeviceId, Call), Answer> {
    let (head, body) = request.into_parts();
    let org = ask::manager(app, &head).await?;
    let (id, reason) = ask::managed(body).await?;
    Ok((org, id, Call { reason, ..ask::call(&head) }))
}

fn only(id: &DeviceId) -> Named {
    Named { sent: id.to_string(), id: Some(id.clone()) }
}

fn refused(word: &str, error: &str, handler: &str) -> Answer {
    Answer::error(StatusCode::FORBIDDEN, error).with("status", word).with("handler", handler)
}

fn not_found(handler: &str) -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "not_found").with("handler", handler)
}
