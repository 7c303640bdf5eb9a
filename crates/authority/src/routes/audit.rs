//! `GET /org/audit`: an organisation's audit, for holders of its key.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::path;

use super::answer::Answer;
use super::ask::{self, BodyError};
use super::openapi::{ABOUT, BAD_KEY, BEFORE, LIMIT, LIMITED, MALFORMED, NO_ORG, Route, UNAVAILABLE};
use super::wire::{AuditPage, AuditQuery, Word};

use crate::access::Permission;
use crate::app::App;
use crate::audit;

/// The maximum number of entries on one page.
const LARGEST_PAGE: u32 = 1_000;
/// The number of entries without `limit`.
const USUAL_PAGE: u32 = 100;

pub(super) const AUDIT: Route = Route::needing(
    Permission::Read,
    Operation {
        path: path::AUDIT,
        method: "get",
        summary: "Who changed what, when and why, the newest first; 100 unless a limit is given. An extension",
        parameters: &[ABOUT, LIMIT, BEFORE],
        body: None,
        answers: &[AnswerDoc(200, JSON, Some("AuditPage"), "a page"), MALFORMED, BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
);

pub(super) async fn audit(
    State(app): State<Arc<App>>,
    head: Parts,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Answer, Answer> {
    let caller = ask::manager(&app, &head).await?;
    let org = caller.whole()?;
    let Query(query) = query.map_err(|_| BodyError::Malformed)?;
    let limit = query.limit.unwrap_or(USUAL_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(BodyError::Malformed.into());
    }
    let wanted = audit::Query {
        org: Some(org.id),
        device: query.device,
        before: query.cursor,
        limit,
        ..audit::Query::default()
    };
    let large = caller.large_answer(&app)?;
    let page = app.store.audit(&wanted).await?;
    let next_cursor = page.entries.last().filter(|_| page.more).map(|last| last.id);
    let body = AuditPage { status: Word::Ok, handler: "org/audit", entries: page.entries, next_cursor };
    Ok(Answer::of(StatusCode::OK, &body).to(org.id).large(large))
}
