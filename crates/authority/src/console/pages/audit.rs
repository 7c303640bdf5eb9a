//! The audit page: who did what, when and why, filtered, by pages; and its export as JSON lines.

use std::convert::Infallible;
use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use tracing::error;

use super::frame::{Frame, Section};
use super::refused::Refused;
use super::{page, visit};
use crate::access::Permission;
use crate::app::App;
use crate::audit::{self, Verb};
use crate::console::words::{Deed, encoded};
use crate::org::OrgId;
use crate::routes::answer::Answer;
use crate::routes::now;

/// Lines on one page.
const PAGE: u32 = 100;

/// Lines read at a time for an export.
const TOGETHER: u32 = 1_000;

/// The longest text of a filter, in characters.
const LONGEST: usize = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    device: String,
    verb: String,
    who: String,
    before: String,
}

impl Asked {
    /// Converts the filter to the store's query.
    fn query(&self, org: OrgId, limit: u32) -> Result<audit::Query, Refused> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let before = given(&self.before).map(|text| text.parse()).transpose();
        let before = before.map_err(|_| Refused::Malformed("The address has an invalid page position.".to_owned()))?;
        let odd = |text: &&String| text.chars().count() > LONGEST || text.chars().any(char::is_control);
        if [&self.device, &self.verb, &self.who].iter().any(odd) {
            return Err(Refused::Malformed(format!("A filter is one line of at most {LONGEST} characters.")));
        }
        Ok(audit::Query {
            org: Some(org),
            device: given(&self.device),
            verb: given(&self.verb),
            who: given(&self.who),
            before,
            limit,
        })
    }

    /// Whether the filter selects this verb.
    fn chose(&self, verb: &str) -> bool {
        self.verb == verb
    }

    /// The filter as a part of an address.
    fn address(&self) -> String {
        format!("device={}&verb={}&who={}", encoded(&self.device), encoded(&self.verb), encoded(&self.who))
    }
}

#[derive(Template)]
#[template(path = "console/audit.html")]
struct Page {
    frame: Frame,
    place: String,
    asked: Asked,
    verbs: Vec<&'static str>,
    deeds: Vec<Deed>,
    export: String,
    first: Option<String>,
    next: Option<String>,
    filtered: bool,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let asked = readable(query)?;
    let found = app.store.audit(&asked.query(account.org.id, PAGE)?).await?;
    let now = now();
    let place = format!("{}/org/{}", app.console.base, account.org.id);
    let filter = asked.address();
    let last = found.entries.last().filter(|_| found.more);
    let filtered = [&asked.device, &asked.verb, &asked.who].iter().any(|text| !text.trim().is_empty());
    page(
        StatusCode::OK,
        &Page {
            frame: Frame::inside(&app, &visit, &account.org, Section::Audit, "Audit"),
            export: format!("{place}/audit.jsonl?{filter}"),
            first: (!asked.before.is_empty()).then(|| format!("{place}/audit?{filter}")),
            next: last.map(|last| format!("{place}/audit?{filter}&before={}", last.id)),
            verbs: Verb::ALL.into_iter().map(Verb::as_str).collect(),
            deeds: found.entries.into_iter().map(|entry| Deed::new(entry, now)).collect(),
            filtered,
            place,
            asked,
        },
    )
}

/// Exports all entries that match the filter, the newest first, one JSON object on each line.
pub(super) async fn export(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (_, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let org = account.org.id;
    let first = readable(query)?.query(org, TOGETHER)?;
    // The first part is read before the answer begins: a failing store must not look like an empty audit.
    let begun = app.store.audit(&first).await?;
    let state = Some((first, Some(begun)));
    let lines = futures_util::stream::unfold((app, state), |(app, state)| async move {
        let (mut query, begun) = state?;
        let found = match begun {
            Some(begun) => Ok(begun),
            None => app.store.audit(&query).await,
        };
        let text = |page: &audit::Page| {
            let lines = page.entries.iter().filter_map(|entry| serde_json::to_string(entry).ok());
            lines.map(|line| line + "\n").collect::<String>()
        };
        match found {
            Ok(page) => {
                query.before = page.entries.last().map(|last| last.id);
                let rest = page.more.then_some((query, None));
                Some((Ok::<_, Infallible>(Bytes::from(text(&page))), (app, rest)))
            }
            Err(error) => {
                error!(%error, "an export of the audit failed");
                let said = Bytes::from_static(b"{\"error\":\"the export is incomplete: the database failed\"}\n");
                Some((Ok(said), (app, None)))
            }
        }
    });
    let mut response = Answer::stream("application/x-ndjson", org, Body::from_stream(lines));
    let name = format!("attachment; filename=\"audit-{org}.jsonl\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

fn readable(query: Result<Query<Asked>, QueryRejection>) -> Result<Asked, Refused> {
    let Query(asked) = query.map_err(|_| Refused::Malformed("The address cannot be read.".to_owned()))?;
    Ok(asked)
}
