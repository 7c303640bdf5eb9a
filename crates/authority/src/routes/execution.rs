//! `POST /org/disable`, `POST /org/enable`: the organisation's own switch of execution. The operator's is not reached by a
//! key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::path;

use super::answer::Answer;
use super::approvals;
use super::ask::{self, SMALL_BODY, org_not_found};
use super::openapi::{BAD_KEY, LATE, LIMITED, MALFORMED, NO_ORG, Route, UNAVAILABLE, WAITS};
use super::wire::{ExecutionSwitched, OnlyReason, UnwrittenFields, Word};

use crate::access::Permission;
use crate::app::App;
use crate::audit::Call;
use crate::org::Switch;
use crate::store::{OrgChange, StoreError};
use crate::unwritten::InForce;

pub(super) const DISABLE: Route = Route::needing(
    Permission::Stop,
    Operation {
        path: path::DISABLE,
        method: "post",
        summary: "Denies execution to every device, also to those that register later. An extension",
        parameters: &[],
        body: Some("OnlyReason"),
        answers: &[
            AnswerDoc(200, JSON, Some("ExecutionSwitched"), "execution is off"),
            AnswerDoc(202, JSON, Some("ExecutionSwitched"), "it is off at this server, and not in the database yet"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
)
.stopping("all");

pub(super) async fn disable(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    switch(&app, request, true, "org/disable").await
}

pub(super) const ENABLE: Route = Route::needing(
    Permission::Administer,
    Operation {
        path: path::ENABLE,
        method: "post",
        summary: "Takes the organisation's own switch back; the operator's stays. An extension",
        parameters: &[],
        body: Some("OnlyReason"),
        answers: &[
            AnswerDoc(200, JSON, Some("ExecutionSwitched"), "the switch is back; `offBy` names what is still off"),
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

pub(super) async fn enable(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    switch(&app, request, false, "org/enable").await
}

async fn switch(app: &App, request: Request, off: bool, handler: &'static str) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(app, &head, ask::object(body, SMALL_BODY)).await?;
    let org = caller.whole()?;
    let OnlyReason { reason } = body?;
    let call = Call { reason: ask::reason(reason)?, ..caller.call(&head) };
    let change = OrgChange::Disabled(Switch::Own, off);
    let ordered = match app.store.order(org.id, &change, &call).await {
        Err(StoreError::Waits(approval)) if org.off.operator => {
            return Ok(approvals::waits_and(
                &approval,
                "The operator of this server has switched execution off as well, and only the operator takes that back.",
            ));
        }
        ordered => ordered?,
    };
    let InForce { done: account, unwritten } = ordered.ok_or_else(org_not_found)?;
    let switched_off = if account.org.disabled && unwritten.is_none() {
        // The switch is made, whether or not this can be read.
        app.store.switched_off(&account.org).await.unwrap_or_default()
    } else {
        Vec::new()
    };
    let org = org.id;
    let body = ExecutionSwitched {
        status: Word::Ok,
        handler,
        disabled: account.org.disabled,
        off_by: account.org.off.off().map(Switch::as_str).collect(),
        switched_off,
        unwritten: UnwrittenFields::of(unwritten.as_ref()),
    };
    Ok(Answer::of(StatusCode::OK, &body).to(org).unless_written(unwritten.as_ref()))
}
