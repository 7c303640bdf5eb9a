//! `GET /org/audit`: an organisation's audit, for whoever holds its key.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::json;

use super::App;
use super::answer::Answer;
use super::ask::{self, BodyError};
use crate::authority::audit;

/// The most entries on one page.
const LARGEST_PAGE: u32 = 1_000;
/// How many come without `limit`.
const USUAL_PAGE: u32 = 100;

/// The query.
#[derive(Debug, Deserialize)]
pub(super) struct AuditQuery {
    device: Option<String>,
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<i64>,
}

pub(super) async fn audit(
    State(app): State<Arc<App>>,
    head: Parts,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Answer, Answer> {
    let org = ask::manager(&app, &head).await?;
    let Query(query) = query.map_err(|_| BodyError::Malformed)?;
    let limit = query.limit.unwrap_or(USUAL_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(BodyError::Malformed.into());
    }
    let wanted = audit::Query { org: Some(org.id), device: query.device, before: query.cursor, limit };
    let page = app.store.audit(&wanted).await?;
    let next = page.entries.last().filter(|_| page.more).map(|last| last.id);
    let mut answer = Answer::ok("ok", "org/audit").with("entries", json!(page.entries)).with("nextCursor", next);
    answer.org = Some(org.id);
    Ok(answer)
}
