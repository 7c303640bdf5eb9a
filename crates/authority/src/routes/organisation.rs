//! Routes about all devices of an organisation: the list, the usage, and both forms of both batches.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::{DeviceStatus, path};

use super::answer::Answer;
use super::ask::{self, BATCH_BODY, BodyError, org_not_found};
use super::now;
use super::openapi::{
    BAD_KEY, CONTAINING, CURSOR, DEVICE_STATUS, LATE, LIMIT, LIMITED, MALFORMED, NO_ORG, Route, UNAVAILABLE, WAITS,
};
use super::wire::{
    BatchBody, BatchRevoked, BatchUnrevoked, DeviceList, DeviceListed, ListQuery, NextCursor, NoneRestored, RevokedOne,
    RevokedWord, UnrevokedOne, UnrevokedWord, UnwrittenFields, Usage, Word,
};

use crate::access::Permission;
use crate::app::App;
use crate::audit::{Call, Verb};
use crate::batch::{self, BatchError, Named, Outcome};
use crate::org::OrgId;
use crate::plan::{Account, Restoration, Suspension};
use crate::store::{Filter, ListedDevice};
use crate::unwritten::InForce;

/// The maximum number of devices on one page; without `limit`, all devices are returned at once.
const LARGEST_PAGE: u32 = 1_000;

/// How many restored ids the answer to `all_revoked` names.
const SAMPLE: usize = 25;

/// The devices that a batch is about.
enum BatchScope {
    Ids(Vec<Named>),
    All,
}

pub(super) const LIST: Route = Route::needing(
    Permission::Read,
    Operation {
        path: path::LIST,
        method: "get",
        summary: "The devices; all of them, unless a limit is given",
        parameters: &[DEVICE_STATUS, CONTAINING, LIMIT, CURSOR],
        body: None,
        answers: &[
            AnswerDoc(200, JSON, Some("DeviceList"), "the list, from one snapshot"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn list(
    State(app): State<Arc<App>>,
    head: Parts,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Answer, Answer> {
    let caller = ask::manager(&app, &head).await?;
    let org = caller.whole()?;
    let Query(query) = query.map_err(|_| BodyError::Malformed)?;
    if query.limit.is_some_and(|limit| !(1..=LARGEST_PAGE).contains(&limit)) {
        return Err(BodyError::Malformed.into());
    }
    let filter = Filter {
        status: query.status,
        containing: query.q,
        after: query.cursor,
        limit: query.limit,
        ..Filter::default()
    };
    let large = caller.large_answer(&app)?;
    let (page, account) = app.store.list(org.id, &filter).await?.ok_or_else(org_not_found)?;
    let next = page.devices.last().filter(|_| page.more).map(|last| last.id.clone());
    let body = DeviceList {
        status: Word::Ok,
        handler: "devices/list",
        devices: page.devices.into_iter().map(listed).collect(),
        next_cursor: query.limit.map(|_| next.map_or(NextCursor::Null, NextCursor::Behind)),
        old_key_ends: account.org.old_key_ends,
        plan: account.fields(now()),
    };
    Ok(Answer::of(StatusCode::OK, &body).to(org.id).large(large))
}

pub(super) const USAGE: Route = Route::needing(
    Permission::Read,
    Operation {
        path: path::USAGE,
        method: "get",
        summary: "The plan, and how much of it is used",
        parameters: &[],
        body: None,
        answers: &[AnswerDoc(200, JSON, Some("Usage"), "as of now"), BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
);

pub(super) async fn usage(State(app): State<Arc<App>>, head: Parts) -> Result<Answer, Answer> {
    let caller = ask::manager(&app, &head).await?;
    let org = caller.whole()?;
    let account = app.store.account(org.id).await?.ok_or_else(org_not_found)?;
    let body = Usage { status: Word::Ok, handler: "usage", plan: account.fields(now()) };
    Ok(Answer::of(StatusCode::OK, &body).to(org.id))
}

pub(super) const REVOKE_BATCH: Route = Route::needing(
    Permission::Stop,
    Operation {
        path: path::REVOKE_BATCH,
        method: "post",
        summary: "Revokes up to 500 devices, or all active ones; all of it or nothing",
        parameters: &[],
        body: Some("RevokeBatch"),
        answers: &[
            AnswerDoc(200, JSON, Some("BatchRevoked"), "the outcome for each distinct id, or how many there were"),
            AnswerDoc(202, JSON, Some("BatchRevoked"), "the same, in force at this server and not written yet"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
)
.stopping("those of the devices, or all");

pub(super) async fn revoke_batch(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, scope, call) = asked(&app, request, "all_active").await?;
    let (results, revoked_count, account, unwritten) = match scope {
        BatchScope::Ids(batch) => {
            let stopped = app.store.stop_devices(org, &batch, Verb::RevokeBatch, &call).await?;
            let InForce { done: (outcomes, account), unwritten } = stopped.ok_or_else(org_not_found)?;
            (Some(batch.into_iter().zip(outcomes).map(revoked).collect()), None, account, unwritten)
        }
        BatchScope::All => {
            let stopped = app.store.stop_all(org, &call).await?;
            let InForce { done: (count, account), unwritten } = stopped.ok_or_else(org_not_found)?;
            (None, Some(count), account, unwritten)
        }
    };
    let body = BatchRevoked {
        status: Word::Ok,
        handler: "devices/revoke_batch",
        results,
        revoked_count,
        unwritten: UnwrittenFields::of(unwritten.as_ref()),
        plan: account.fields(call.at),
    };
    Ok(Answer::of(StatusCode::OK, &body).to(org).unless_written(unwritten.as_ref()))
}

pub(super) const UNREVOKE_BATCH: Route = Route::needing(
    Permission::GiveBack,
    Operation {
        path: path::UNREVOKE_BATCH,
        method: "post",
        summary: "Unrevokes up to 500 devices, or all revoked ones, while the plan has places",
        parameters: &[],
        body: Some("UnrevokeBatch"),
        answers: &[
            AnswerDoc(200, JSON, Some("BatchUnrevoked"), "the outcome for each distinct id, or how many were restored"),
            WAITS,
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn unrevoke_batch(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, scope, call) = asked(&app, request, "all_revoked").await?;
    let body = |account: &Account| BatchUnrevoked {
        status: Word::Ok,
        handler: "devices/unrevoke_batch",
        results: None,
        unrevoked_count: None,
        unrevoked_sample: None,
        reason: None,
        plan: account.fields(call.at),
    };
    let body = match scope {
        BatchScope::Ids(batch) => {
            let done = app.store.unrevoke(org, &batch, Verb::UnrevokeBatch, &call).await?;
            let (outcomes, account) = done.ok_or_else(org_not_found)?;
            let results = batch.into_iter().zip(outcomes).map(restored).collect();
            BatchUnrevoked { results: Some(results), ..body(&account) }
        }
        BatchScope::All => {
            let (all, account) = app.store.unrevoke_all(org, &call).await?.ok_or_else(org_not_found)?;
            let reason = match (all.restored.is_empty(), all.left) {
                (false, _) => None,
                (true, 0) => Some(NoneRestored::NoneRevoked),
                (true, _) => Some(NoneRestored::AtCap),
            };
            BatchUnrevoked {
                unrevoked_count: Some(all.restored.len()),
                unrevoked_sample: Some(all.restored.into_iter().take(SAMPLE).collect()),
                reason,
                ..body(&account)
            }
        }
    };
    Ok(Answer::of(StatusCode::OK, &body).to(org))
}

/// The organisation and the devices of a batch; `all` is the word for all devices.
async fn asked(app: &App, request: Request, all: &str) -> Result<(OrgId, BatchScope, Call), Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(app, &head, ask::object(body, BATCH_BODY)).await?;
    let org = caller.whole()?.id;
    let body: BatchBody = body?;
    let scope = match (body.device_ids, body.scope) {
        (Some(ids), None) => BatchScope::Ids(batch::distinct(ids).map_err(|error| match error {
            BatchError::Empty => Answer::missing_params(),
            BatchError::TooLarge => Answer::error(StatusCode::BAD_REQUEST, "too_many_device_ids"),
        })?),
        (None, Some(scope)) if scope == all => BatchScope::All,
        // Both forms at once are refused too: with a whole fleet affected, the server must not guess which one is
        // meant.
        (Some(_) | None, Some(_)) | (None, None) => return Err(BodyError::Malformed.into()),
    };
    Ok((org, scope, Call { reason: ask::reason(body.reason)?, ..caller.call(&head) }))
}

fn listed(device: ListedDevice) -> DeviceListed {
    DeviceListed {
        device_id: device.id,
        status: if device.revoked_at.is_some() { DeviceStatus::Revoked } else { DeviceStatus::Active },
        created_at: device.created_at,
        last_seen_at: device.last_seen_at,
        revoked_at: device.revoked_at,
        revoke_reason: device.revoke_reason,
        ephemeral: device.ephemeral,
        old_key: device.old_key,
        unwritten: device.unwritten,
    }
}

fn revoked((named, outcome): (Named, Outcome<Suspension>)) -> RevokedOne {
    let status = match outcome {
        Outcome::Invalid => RevokedWord::Invalid,
        Outcome::Did(Suspension::Revoked) => RevokedWord::Revoked,
        Outcome::Did(Suspension::AlreadyRevoked) => RevokedWord::AlreadyRevoked,
        Outcome::Did(Suspension::NotFound) => RevokedWord::NotFound,
    };
    RevokedOne { device_id: named.sent, status }
}

fn restored((named, outcome): (Named, Outcome<Restoration>)) -> UnrevokedOne {
    let status = match outcome {
        Outcome::Invalid => UnrevokedWord::Invalid,
        Outcome::Did(Restoration::Restored | Restoration::AlreadyActive) => UnrevokedWord::Ok,
        Outcome::Did(Restoration::NotFound) => UnrevokedWord::NotFound,
        Outcome::Did(Restoration::Full) => UnrevokedWord::Blocked,
    };
    let error = (status == UnrevokedWord::Blocked).then_some("device_limit_reached");
    UnrevokedOne { device_id: named.sent, status, error }
}
