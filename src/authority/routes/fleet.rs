//! Whole fleets: the list, the usage, and both forms of both batches.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::ask::{self, BATCH_BODY, BodyError, org_not_found};
use super::{App, now};
use crate::authority::audit::{Call, Verb};
use crate::authority::batch::{self, BatchError, Named, Outcome};
use crate::authority::org::OrgId;
use crate::authority::plan::{Restoration, Suspension};
use crate::authority::store::{Filter, ListedDevice};
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

/// The most devices on one page; without `limit`, everything comes at once.
const LARGEST_PAGE: u32 = 1_000;

/// How many restored ids `all_revoked` names.
const SAMPLE: usize = 25;

/// The query of a list.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    status: Option<DeviceStatus>,
    q: Option<String>,
    limit: Option<u32>,
    cursor: Option<DeviceId>,
}

/// The body of a batch: one of the two.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchBody {
    device_ids: Option<Vec<String>>,
    scope: Option<String>,
    reason: Option<String>,
}

/// What a batch is about.
enum Scope {
    Ids(Vec<Named>),
    All,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    head: Parts,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Answer, Answer> {
    let org = ask::manager(&app, &head).await?;
    let Query(query) = query.map_err(|_| BodyError::Malformed)?;
    if query.limit.is_some_and(|limit| !(1..=LARGEST_PAGE).contains(&limit)) {
        return Err(BodyError::Malformed.into());
    }
    let filter = Filter { status: query.status, containing: query.q, after: query.cursor, limit: query.limit };
    let (page, account) = app.store.list(org.id, &filter).await?.ok_or_else(org_not_found)?;
    let next = page.devices.last().filter(|_| page.more).map(|last| last.id.clone());
    let devices: Vec<Value> = page.devices.iter().map(device_json).collect();
    let answer = Answer::ok("ok", "devices/list").with("devices", devices).with_plan(&account, now());
    Ok(if query.limit.is_some() { answer.with("nextCursor", next) } else { answer })
}

pub(super) async fn usage(State(app): State<Arc<App>>, head: Parts) -> Result<Answer, Answer> {
    let org = ask::manager(&app, &head).await?;
    let account = app.store.account(org.id).await?.ok_or_else(org_not_found)?;
    Ok(Answer::ok("ok", "usage").with_plan(&account, now()))
}

pub(super) async fn revoke_batch(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, scope, call) = asked(&app, request, "all_active").await?;
    let answer = Answer::ok("ok", "devices/revoke_batch");
    Ok(match scope {
        Scope::Ids(batch) => {
            let done = app.store.revoke(org, &batch, Verb::RevokeBatch, &call).await?;
            let (outcomes, account) = done.ok_or_else(org_not_found)?;
            let results: Vec<Value> =
                batch.iter().zip(outcomes).map(|(named, done)| revoked_json(named, done)).collect();
            answer.with("results", results).with_plan(&account, call.at)
        }
        Scope::All => {
            let (revoked, account) = app.store.revoke_all(org, &call).await?.ok_or_else(org_not_found)?;
            answer.with("revokedCount", revoked).with_plan(&account, call.at)
        }
    })
}

pub(super) async fn unrevoke_batch(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, scope, call) = asked(&app, request, "all_revoked").await?;
    let answer = Answer::ok("ok", "devices/unrevoke_batch");
    Ok(match scope {
        Scope::Ids(batch) => {
            let done = app.store.unrevoke(org, &batch, Verb::UnrevokeBatch, &call).await?;
            let (outcomes, account) = done.ok_or_else(org_not_found)?;
            let results: Vec<Value> =
                batch.iter().zip(outcomes).map(|(named, done)| restored_json(named, done)).collect();
            answer.with("results", results).with_plan(&account, call.at)
        }
        Scope::All => {
            let (all, account) = app.store.unrevoke_all(org, &call).await?.ok_or_else(org_not_found)?;
            let sample: Vec<_> = all.restored.iter().take(SAMPLE).cloned().collect();
            let answer = answer
                .with("unrevokedCount", all.restored.len())
                .with("unrevokedSample", sample)
                .with_plan(&account, call.at);
            match (all.restored.is_empty(), all.left) {
                (false, _) => answer,
                (true, 0) => answer.with("reason", "none_revoked"),
                (true, _) => answer.with("reason", "at_cap"),
            }
        }
    })
}

/// Who asks about which devices; `all` is the word for all of them.
async fn asked(app: &App, request: Request, all: &str) -> Result<(OrgId, Scope, Call), Answer> {
    let (head, body) = request.into_parts();
    let org = ask::manager(app, &head).await?;
    let body: BatchBody = ask::object(body, BATCH_BODY).await?;
    let scope = match (body.device_ids, body.scope) {
        (Some(ids), None) => Scope::Ids(batch::distinct(ids).map_err(|error| match error {
            BatchError::Empty => Answer::missing_params(),
            BatchError::TooLarge => Answer::error(StatusCode::BAD_REQUEST, "too_many_device_ids"),
        })?),
        (None, Some(scope)) if scope == all => Scope::All,
        // Both at once is refused too: which one is meant is not ours to guess when a fleet is at stake.
        (Some(_) | None, Some(_)) | (None, None) => return Err(BodyError::Malformed.into()),
    };
    Ok((org.id, scope, Call { reason: ask::reason(body.reason)?, ..ask::call(&head) }))
}

fn device_json(device: &ListedDevice) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "deviceId": device.id,
        "status": if device.revoked_at.is_some() { DeviceStatus::Revoked } else { DeviceStatus::Active },
        "createdAt": device.created_at.to_string(),
        "lastSeenAt": time(device.last_seen_at),
        "revokedAt": time(device.revoked_at),
        "revokeReason": device.revoke_reason,
    })
}

fn revoked_json(named: &Named, outcome: Outcome<Suspension>) -> Value {
    let word = match outcome {
        Outcome::Invalid => "invalid",
        Outcome::Did(Suspension::Revoked) => "revoked",
        Outcome::Did(Suspension::AlreadyRevoked) => "already_revoked",
        Outcome::Did(Suspension::NotFound) => "not_found",
    };
    json!({"deviceId": named.sent, "status": word})
}

fn restored_json(named: &Named, outcome: Outcome<Restoration>) -> Value {
    let word = match outcome {
        Outcome::Invalid => "invalid",
        Outcome::Did(Restoration::Restored | Restoration::AlreadyActive) => "ok",
        Outcome::Did(Restoration::NotFound) => "not_found",
        Outcome::Did(Restoration::Full) => {
            return json!({"deviceId": named.sent, "status": "blocked", "error": "device_limit_reached"});
        }
    };
    json!({"deviceId": named.sent, "status": word})
}
