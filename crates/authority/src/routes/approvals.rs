//! `GET /org/approvals`, `POST /org/approvals/approve`, `…/reject`: restores that wait for a second key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::path;
use tracing::info;

use super::answer::Answer;
use super::ask::{self, SMALL_BODY, org_not_found};
use super::openapi::{BAD_KEY, LATE, LIMITED, MALFORMED, NO, NO_ORG, Route, UNAVAILABLE};
use super::wire::{ApprovalDone, ApprovalEntry, ApprovalList, ApprovalNamed, RestoreWaits, Word};

use crate::access::Permission;
use crate::app::App;
use crate::approvals::{Approval, ApprovalRefusal};
use crate::audit::Call;
use crate::org::OrgId;

pub(super) const APPROVALS: Route = Route::needing(
    Permission::Read,
    Operation {
        path: path::APPROVALS,
        method: "get",
        summary: "The restores that wait for a second key, and those of the last 30 days. An extension",
        parameters: &[],
        body: None,
        answers: &[
            AnswerDoc(200, JSON, Some("ApprovalList"), "those that wait first, then the newest"),
            BAD_KEY,
            NO_ORG,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn list(State(app): State<Arc<App>>, head: Parts) -> Result<Answer, Answer> {
    let caller = ask::manager(&app, &head).await?;
    let org = caller.whole()?;
    let all = app.store.approvals(org.id, super::now()).await?.ok_or_else(org_not_found)?;
    let approvals = all.iter().map(ApprovalEntry::new).collect();
    let needs = org.restore_needs;
    let body = ApprovalList { status: Word::Ok, handler: "org/approvals", restore_needs: needs, approvals };
    Ok(Answer::of(StatusCode::OK, &body).to(org.id))
}

const REFUSED: AnswerDoc = AnswerDoc(
    403,
    JSON,
    NO,
    "this key may not confirm it: its own request, or made since, or its role does not suffice; `error` says which",
);
const UNKNOWN: AnswerDoc = AnswerDoc(404, JSON, NO, "there is no such request, or no such organisation any more");
const DECIDED: AnswerDoc =
    AnswerDoc(409, JSON, NO, "it was decided, has expired, or a stop has made it void; `error` says which");

pub(super) const APPROVE: Route = Route::needing(
    Permission::GiveBack,
    Operation {
        path: path::APPROVE,
        method: "post",
        summary: "Confirms the restore that another key asked for, which is then done. An extension",
        parameters: &[],
        body: Some("ApprovalNamed"),
        answers: &[
            AnswerDoc(200, JSON, Some("ApprovalDone"), "confirmed and done"),
            MALFORMED,
            BAD_KEY,
            REFUSED,
            UNKNOWN,
            LATE,
            DECIDED,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn approve(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, id, call) = asked(&app, request).await?;
    let approval = app.store.approve(org, &id, &call).await?.ok_or_else(org_not_found)?;
    Ok(done(&approval, "org/approvals/approve", org))
}

pub(super) const REJECT: Route = Route::needing(
    Permission::Stop,
    Operation {
        path: path::REJECT,
        method: "post",
        summary: "Ends a request for a restore without doing it. An extension",
        parameters: &[],
        body: Some("ApprovalNamed"),
        answers: &[
            AnswerDoc(200, JSON, Some("ApprovalDone"), "rejected"),
            MALFORMED,
            BAD_KEY,
            UNKNOWN,
            LATE,
            DECIDED,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn reject(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (org, id, call) = asked(&app, request).await?;
    let approval = app.store.reject(org, &id, &call).await?.ok_or_else(org_not_found)?;
    Ok(done(&approval, "org/approvals/reject", org))
}

async fn asked(app: &App, request: Request) -> Result<(OrgId, String, Call), Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(app, &head, ask::object(body, SMALL_BODY)).await?;
    let org = caller.whole()?.id;
    let ApprovalNamed { approval, reason } = body?;
    Ok((org, approval, Call { reason: ask::reason(reason)?, ..caller.call(&head) }))
}

fn done(approval: &Approval, handler: &'static str, org: OrgId) -> Answer {
    info!(%org, approval = approval.id, state = approval.state.as_str(), "a request for a restore is decided");
    let body = ApprovalDone { status: Word::Ok, handler, approval: ApprovalEntry::new(approval) };
    Answer::of(StatusCode::OK, &body).to(org)
}

/// The answer to a restore that waits for a second key, with the text of the key that it makes. Its `error` makes every client
/// take it for not done.
pub(super) fn waits(approval: &Approval, org_api_key: Option<&str>) -> Answer {
    waiting(approval, org_api_key, explained(approval))
}

/// The same with another sentence.
pub(super) fn waits_and(approval: &Approval, more: &str) -> Answer {
    waiting(approval, None, format!("{}. {more}", explained(approval)))
}

fn waiting(approval: &Approval, org_api_key: Option<&str>, reason: String) -> Answer {
    info!(approval = approval.id, by = approval.asked_by, "a restore waits for a second key");
    let body = RestoreWaits {
        status: "waiting",
        error: "needs_approval",
        approval_id: &approval.id,
        expires_at: approval.expires_at,
        reason,
        org_api_key,
    };
    Answer::of(StatusCode::ACCEPTED, &body)
}

/// What to do about a restore that waits.
fn explained(approval: &Approval) -> String {
    format!(
        "Nothing was done yet: another key of the role {} must confirm it within 24 hours: machineid approve {}",
        approval.action.confirming_roles(),
        approval.id
    )
}

/// The answer to a request that is not made, or not confirmed.
pub(super) fn refused(refusal: ApprovalRefusal) -> Answer {
    let status = match refusal {
        ApprovalRefusal::Unknown => StatusCode::NOT_FOUND,
        ApprovalRefusal::Decided
        | ApprovalRefusal::Expired
        | ApprovalRefusal::AskerGone
        | ApprovalRefusal::Overtaken
        | ApprovalRefusal::TooMany => StatusCode::CONFLICT,
        ApprovalRefusal::SameKey
        | ApprovalRefusal::TooNew
        | ApprovalRefusal::OldKey
        | ApprovalRefusal::NotPermitted
        | ApprovalRefusal::OthersKey => StatusCode::FORBIDDEN,
    };
    Answer::error(status, refusal.as_str()).with("reason", refusal.to_string())
}
