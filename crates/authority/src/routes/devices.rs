//! Registers, revokes, unrevokes and removes one device.
//!
//! None of these checks whether the organisation is disabled, frozen or expired. Those states say whether devices may
//! *execute*, which a validation decides. A fleet that boots while its plan is frozen should be registered, be denied,
//! and run again by itself when the plan is unfrozen, without another registration of every host. The plan's limit
//! applies always.

use std::slice;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::DeviceId;
use machineid_protocol::api::path;

use super::answer::Answer;
use super::ask::{self, org_not_found};
use super::openapi::{
    BAD_KEY, DONE, LATE, LIMITED, MALFORMED, NO_DEVICE, NO_ORG, NO_PLACE, NOT_WRITTEN, Route, UNAVAILABLE, WAITS,
};
use super::wire::{DeviceDone, UnwrittenFields, Word};
use crate::access::Permission;
use crate::app::App;
use crate::audit::{Call, Verb};
use crate::batch::{Named, Outcome};
use crate::org::OrgId;
use crate::plan::{Account, Admission, Removal, Restoration, Suspension};
use crate::unwritten::{InForce, NotWritten};

pub(super) const REGISTER: Route = Route::needing(
    Permission::Work,
    Operation {
        path: path::REGISTER,
        method: "post",
        summary: "Registers a device; safe on every boot",
        parameters: &[],
        body: Some("DeviceNamed"),
        answers: &[
            AnswerDoc(200, JSON, Some("DeviceDone"), "`ok` for a new device, `exists` for a known one"),
            MALFORMED,
            BAD_KEY,
            AnswerDoc(
                403,
                JSON,
                Some("DeviceDone"),
                "the plan has no place for it, it is revoked, or too many other devices are",
            ),
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn register(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let body = ask::registered(body).await;
    let caller = ask::caller(&app, &head).await?;
    let (id, ephemeral) = body?;
    let (org, call) = (caller.about([&id])?, caller.call(&head));
    let (admission, account) = app.store.register(org.id, &id, ephemeral, &call).await?.ok_or_else(org_not_found)?;
    let came_to = match admission {
        Admission::New => OK,
        Admission::Exists => CameTo(StatusCode::OK, Word::Exists, None),
        Admission::Revoked => REVOKED,
        Admission::Full => FULL,
        Admission::TooManyRevoked => TOO_MANY_REVOKED,
    };
    Ok(came_to.answer("devices/register", id, &account, &call, None))
}

pub(super) const REVOKE: Route = Route::needing(
    Permission::Stop,
    Operation {
        path: path::REVOKE,
        method: "post",
        summary: "Denies a device from its next validation on",
        parameters: &[],
        body: Some("DeviceManaged"),
        answers: &[DONE, NOT_WRITTEN, MALFORMED, BAD_KEY, NO_DEVICE, LATE, LIMITED, UNAVAILABLE],
    },
)
.stopping("those of the device");

pub(super) async fn revoke(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, id, call) = asked(&app, request).await?;
    let one = only(&id);
    let stopped = app.store.stop_devices(org, slice::from_ref(&one), Verb::Revoke, &call).await?;
    let InForce { done: (outcomes, account), unwritten } = stopped.ok_or_else(org_not_found)?;
    let came_to = match outcomes.first() {
        Some(Outcome::Did(Suspension::Revoked | Suspension::AlreadyRevoked)) => OK,
        Some(Outcome::Did(Suspension::NotFound) | Outcome::Invalid) | None => NOT_FOUND,
    };
    Ok(came_to.answer("devices/revoke", id, &account, &call, unwritten.as_ref()))
}

pub(super) const UNREVOKE: Route = Route::needing(
    Permission::GiveBack,
    Operation {
        path: path::UNREVOKE,
        method: "post",
        summary: "Undoes a revoke; starts no agent",
        parameters: &[],
        body: Some("DeviceManaged"),
        answers: &[DONE, WAITS, MALFORMED, BAD_KEY, NO_PLACE, NO_DEVICE, LATE, LIMITED, UNAVAILABLE],
    },
);

pub(super) async fn unrevoke(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, id, call) = asked(&app, request).await?;
    let one = only(&id);
    let done = app.store.unrevoke(org, slice::from_ref(&one), Verb::Unrevoke, &call).await?;
    let (outcomes, account) = done.ok_or_else(org_not_found)?;
    let came_to = match outcomes.first() {
        Some(Outcome::Did(Restoration::Restored | Restoration::AlreadyActive)) => OK,
        Some(Outcome::Did(Restoration::Full)) => FULL,
        Some(Outcome::Did(Restoration::NotFound) | Outcome::Invalid) | None => NOT_FOUND,
    };
    Ok(came_to.answer("devices/unrevoke", id, &account, &call, None))
}

pub(super) const REMOVE: Route = Route::needing(
    Permission::Remove,
    Operation {
        path: path::REMOVE,
        method: "post",
        summary: "Removes a device. To stop one, revoke it",
        parameters: &[],
        body: Some("DeviceManaged"),
        answers: &[DONE, WAITS, MALFORMED, BAD_KEY, NO_DEVICE, LATE, LIMITED, UNAVAILABLE],
    },
)
.stopping("those of the device");

pub(super) async fn remove(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(&app, &head, ask::removed(body)).await?;
    let (id, reason, only_active) = body?;
    let org = caller.removing(&id, only_active)?;
    let call = Call { reason, ..caller.call(&head) };
    let (removal, account) = app.store.remove(org.id, &id, only_active, &call).await?.ok_or_else(org_not_found)?;
    let came_to = match removal {
        Removal::Removed => OK,
        Removal::NotFound => NOT_FOUND,
        Removal::Revoked => REVOKED,
    };
    Ok(came_to.answer("devices/remove", id, &account, &call, None))
}

/// Who does what to which device, and why. The key is checked first, so that only its holder learns what is wrong with a request.
async fn asked(app: &App, request: Request) -> Result<(OrgId, DeviceId, Call), Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(app, &head, ask::managed(body)).await?;
    let (id, reason) = body?;
    Ok((caller.about([&id])?.id, id, Call { reason, ..caller.call(&head) }))
}

fn only(id: &DeviceId) -> Named {
    Named { sent: id.to_string(), id: Some(id.clone()) }
}

/// The status, the word and the error of a result.
struct CameTo(StatusCode, Word, Option<&'static str>);

const OK: CameTo = CameTo(StatusCode::OK, Word::Ok, None);
const REVOKED: CameTo = CameTo(StatusCode::FORBIDDEN, Word::Revoked, Some("device_revoked"));
const FULL: CameTo = CameTo(StatusCode::FORBIDDEN, Word::Blocked, Some("device_limit_reached"));
const TOO_MANY_REVOKED: CameTo = CameTo(StatusCode::FORBIDDEN, Word::Blocked, Some("too_many_revoked_devices"));
const NOT_FOUND: CameTo = CameTo(StatusCode::NOT_FOUND, Word::Error, Some("not_found"));

impl CameTo {
    fn answer(
        self,
        handler: &'static str,
        device_id: DeviceId,
        account: &Account,
        call: &Call,
        unwritten: Option<&NotWritten>,
    ) -> Answer {
        let Self(code, status, error) = self;
        let (plan, fields) = (account.fields(call.at), UnwrittenFields::of(unwritten));
        let body = DeviceDone { status, handler, device_id, error, unwritten: fields, plan };
        Answer::of(code, &body).to(account.org.id).unless_written(unwritten)
    }
}
