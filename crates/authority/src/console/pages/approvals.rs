//! The page of restores that wait for a second key, with the forms that confirm and reject them.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;

use super::form::{OrgForm, asked};
use super::frame::{Frame, Section};
use super::refused::Refused;
use super::{page, redirect, visit};
use crate::access::Permission;
use crate::app::App;
use crate::approvals::{Approval, ApprovalState};
use crate::console::words::{State as Shown, When};
use crate::routes::now;

/// A request, as shown.
struct Row {
    id: String,
    asks: String,
    devices: Vec<String>,
    asked_by: String,
    asked: When,
    reason: Option<String>,
    state: Shown,
    waits: bool,
    decided: Option<When>,
    decided_by: Option<String>,
}

impl Row {
    fn new(approval: Approval, now: Timestamp) -> Self {
        let (word, shape, class) = match approval.state {
            ApprovalState::Waiting => ("Waiting", "◷", "halted"),
            ApprovalState::Approved => ("Approved", "✓", "allowed"),
            ApprovalState::Rejected => ("Rejected", "✕", "revoked"),
            ApprovalState::Void => ("Void", "■", "revoked"),
            ApprovalState::Expired => ("Expired", "◌", "revoked"),
        };
        Self {
            asks: approval.action.words(),
            devices: approval.action.devices().into_iter().map(ToString::to_string).collect(),
            asked: When::new(approval.asked_at, now),
            state: Shown { word, shape, class },
            waits: approval.state == ApprovalState::Waiting,
            decided: approval.decided_at.map(|at| When::new(at, now)),
            decided_by: approval.decided_by,
            asked_by: approval.asked_by,
            reason: approval.reason,
            id: approval.id,
        }
    }
}

#[derive(Template)]
#[template(path = "console/approvals.html")]
struct Page {
    frame: Frame,
    place: String,
    done: Option<&'static str>,
    waiting: Vec<Row>,
    decided: Vec<Row>,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let now = now();
    let all = app.store.approvals(account.org.id, now).await?.ok_or(Refused::NotFound)?;
    let (waiting, decided) = all.into_iter().map(|approval| Row::new(approval, now)).partition(|row| row.waits);
    page(
        StatusCode::OK,
        &Page {
            frame: Frame::inside(&app, &visit, &account.org, Section::Approvals, "Approvals"),
            place: format!("{}/org/{}", app.console.base, account.org.id),
            done: match query.as_deref() {
                Some("done=approved") => Some("The request is confirmed, and what it asked for is done."),
                Some("done=rejected") => Some("The request is rejected. Nothing was restored."),
                Some(_) | None => None,
            },
            waiting,
            decided,
        },
    )
}

/// Confirms or rejects a request.
pub(super) async fn decide(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { visit, account, form, call, .. } = asked(&app, &org, request, Permission::Stop).await?;
    let (org, id) = (account.org.id, form.one("approval"));
    let done = match form.one("decision") {
        "approve" => {
            visit.must(Permission::GiveBack)?;
            app.store.approve(org, id, &call).await?.ok_or(Refused::NotFound)?;
            "approved"
        }
        "reject" => {
            app.store.reject(org, id, &call).await?.ok_or(Refused::NotFound)?;
            "rejected"
        }
        _ => return Err(Refused::Malformed("The form does not say what to do.".to_owned())),
    };
    Ok(redirect(&format!("{}/org/{org}/approvals?done={done}", app.console.base)))
}
