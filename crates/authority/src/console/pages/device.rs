//! The page of one device: its state, its sidecars' reports, its history, and the actions on it.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::report::ReportedHelper;
use serde::Deserialize;

use super::fleet::DeviceRow;
use super::frame::{Frame, Section};
use super::past::{HistoryEntry, together, took_text};
use super::refused::Refused;
use super::told::SidecarRow;
use super::{page, visit};
use crate::access::Permission;
use crate::app::App;
use crate::audit;
use crate::console::pictures::{self, Picture};
use crate::console::words::{When, encoded, grouped};
use crate::reports::KnownStop;
use crate::routes::now;
use crate::store::Filter;

/// How many entries of its history are shown.
const PAST: u32 = 50;

#[derive(Debug, Deserialize)]
pub(super) struct DeviceQuery {
    id: String,
}

/// A stop of an agent.
struct StoppedAgent {
    began: When,
    agent: String,
    code: String,
    request_id: Option<String>,
    confirmed: bool,
    survivors: Vec<String>,
    /// Helpers that ran on outside the tree.
    outside: Vec<String>,
    took: String,
    killed: String,
}

impl StoppedAgent {
    fn new(known: KnownStop, now: Timestamp) -> Self {
        let stop = known.stop;
        Self {
            began: When::new(known.began_at, now),
            agent: stop.name.unwrap_or_else(|| stop.run_id.to_string()),
            code: stop.code.as_str().to_owned(),
            request_id: stop.request_id.map(|id| id.to_string()),
            confirmed: stop.confirmed,
            survivors: stop.survivors.iter().map(|left| format!("{}: {}", left.pid, left.reason)).collect(),
            outside: stop.outside.iter().map(ReportedHelper::in_words).collect(),
            took: took_text(stop.took_ms),
            killed: grouped(stop.killed),
        }
    }
}

#[derive(Template)]
#[template(path = "console/device.html")]
struct Page {
    frame: Frame,
    place: String,
    row: DeviceRow,
    created: When,
    sidecars: Vec<SidecarRow>,
    stops: Vec<StoppedAgent>,
    /// The decisions over time, if any were reported.
    states: Option<Picture>,
    past: Vec<HistoryEntry>,
    more: bool,
    audit: String,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    query: Result<Query<DeviceQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let id: DeviceId = query.ok().and_then(|Query(asked)| asked.id.parse().ok()).ok_or(Refused::NotFound)?;
    let org = account.org.id;
    let filter = Filter { only: Some(id.clone()), limit: Some(1), ..Filter::default() };
    let found = app.store.fleet(org, &filter).await?.ok_or(Refused::NotFound)?;
    let row = found.devices.into_iter().next().ok_or(Refused::NotFound)?;
    let wanted = audit::Query { org: Some(org), device: Some(id.to_string()), limit: PAST, ..audit::Query::default() };
    let done = app.store.audit(&wanted).await?;
    let told = app.store.timeline(org, &id).await?;
    let stops = app.store.stops(org, &id).await?;
    let now = now();
    let spans = pictures::held(&told);
    let place = format!("{}/org/{org}", app.console.base);
    page(
        StatusCode::OK,
        &Page {
            frame: Frame::inside(&app, &visit, &account.org, Section::Fleet, id.as_str()),
            created: When::new(row.device.created_at, now),
            sidecars: SidecarRow::of_all(&row.device, &row.heard, now),
            row: DeviceRow::new(&account.org, &place, row, now),
            stops: stops.into_iter().map(|stop| StoppedAgent::new(stop, now)).collect(),
            states: (!spans.is_empty()).then(|| pictures::states(&spans, now)),
            past: together(done.entries, told, now),
            more: done.more,
            audit: format!("{place}/audit?device={}", encoded(id.as_str())),
            place,
        },
    )
}
