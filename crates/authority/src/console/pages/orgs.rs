//! The operator's list of organisations, and the form for new ones.

use std::sync::Arc;

use askama::Template;
use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use tracing::error;

use super::form::ConsoleForm;
use super::frame::{Frame, Section};
use super::refused::Refused;
use super::{page, result, visit};
use crate::admin;
use crate::app::App;
use crate::console::session::Outcome;
use crate::console::words::{State as Shown, When, grouped, verdict};
use crate::org::{OrgId, PlanTier, org_name};
use crate::routes::now;

struct Row {
    name: String,
    id: OrgId,
    state: Shown,
    plan: PlanTier,
    used: String,
    limit: String,
    created: When,
}

#[derive(Template)]
#[template(path = "console/orgs.html")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    /// The id of an organisation that was just deleted.
    deleted: Option<OrgId>,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let visit = visit::operator(&app, &head)?;
    let now = now();
    let rows = app.store.orgs().await?.into_iter().map(|account| {
        let org = account.org;
        Row {
            name: org.name.clone().unwrap_or_else(|| "without a name".to_owned()),
            id: org.id,
            state: Shown::of(verdict(&org, false, now)),
            plan: org.tier,
            used: grouped(account.used),
            limit: grouped(org.limit()),
            created: When::new(org.created_at, now),
        }
    });
    let frame = Frame { section: Section::Orgs, ..Frame::of(&app, &visit, "Organisations") };
    let deleted = query.as_deref().and_then(|query| query.strip_prefix("deleted=")).and_then(|id| id.parse().ok());
    page(StatusCode::OK, &Page { frame, rows: rows.collect(), deleted })
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let visit = visit::operator(&app, &head)?;
    let form = ConsoleForm::of(&app.console, &visit, &head, body).await?;
    let call = visit.call(&head, form.reason()?);
    let name = match form.one("name") {
        "" => None,
        text => Some(org_name(text).map_err(|error| Refused::Malformed(error.to_string()))?),
    };
    let plan = form.one("plan").parse().map_err(|_| Refused::Malformed("Choose one of the plans.".to_owned()))?;
    let (org, key) = admin::create_org(&app.store, name, plan, None, &call).await.map_err(|error| {
        error!(%error, "an organisation could not be created");
        Refused::Failed
    })?;
    Ok(result::shown(&app, &visit, org.id, Outcome::NewOrg { key: Some(key) }, call.at))
}
