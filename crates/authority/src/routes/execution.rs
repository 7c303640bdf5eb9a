//! `POST /org/disable`, `POST /org/enable`: the organisation's own switch of execution. The operator's is not reached by a
//! key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::path;

use super::answer::Answer;
use super::ask::{self, SMALL_BODY, org_not_found};
use super::openapi::{BAD_KEY, LATE, LIMITED, MALFORMED, NO_ORG, Route, UNAVAILABLE, WAITS};
use super::wire::{ExecutionSwitched, OnlyReason, UnwrittenFields, Word};

use crate::access::Permission;
use crate::app::App;
use crate::audit::Call;
use crate::org::Switch;
use crate::store::OrgChange;
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
    let org = caller.whole()?.id;
    let OnlyReason { reason } = body?;
    let call = Call { reason: ask::reason(reason)?, ..caller.call(&head) };
    let change = OrgChange::Disabled(Switch::Own, off);
    let InForce { done: account, unwritten } = app.store.order(org, &change, &call).await?.ok_or_else(org_not_found)?;
    let switches = account.org.off;
    let off_by = [(switches.own, Switch::Own), (switches.operator, Switch::Operator)];
    let body = ExecutionSwitched {
        status: Word::Ok,
        handler,
        disabled: account.org.disabled,
        off_by: off_by.into_iter().filter(|(off, _)| *off).map(|(_, switch)| switch.as_str()).collect(),
        unwritten: UnwrittenFields::of(unwritten.as_ref()),
    };
    Ok(Answer::of(StatusCode::OK, &body).to(org).unless_written(unwritten.as_ref()))
}
