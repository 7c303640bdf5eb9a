//! The page of all devices, searched, filtered and paged by the server.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use machineid_protocol::api::DeviceStatus;
use machineid_protocol::{Code, DeviceId};
use serde::Deserialize;

use super::frame::{Frame, Section};
use super::refused::Refused;
use super::told::Told;
use super::{page, visit};
use crate::access::Permission;
use crate::app::App;
use crate::console::pictures::{self, Picture};
use crate::console::words::{State as Shown, When, encoded, grouped, verdict};
use crate::org::Org;
use crate::routes::now;
use crate::store::{Filter, FleetRow};

/// Devices on one page.
pub(super) const PAGE: u32 = 100;

/// The longest search text, in characters: no id is longer.
const LONGEST_SEARCH: usize = DeviceId::LONGEST;

/// The query parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    q: String,
    state: String,
    after: String,
}

/// A device in the list.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) address: String,
    pub(super) state: Shown,
    pub(super) code: Code,
    pub(super) seen: Option<When>,
    pub(super) since: Option<When>,
    pub(super) reason: Option<String>,
    pub(super) told: Option<Told>,
}

impl Row {
    pub(super) fn new(org: &Org, place: &str, row: FleetRow, now: jiff::Timestamp) -> Self {
        let FleetRow { device, heard, .. } = row;
        let verdict = verdict(org, device.revoked_at.is_some(), now);
        Self {
            address: format!("{place}/device?id={}", encoded(&device.id)),
            state: Shown::of(verdict),
            code: verdict.code(),
            seen: device.last_seen_at.map(|at| When::new(at, now)),
            since: device.revoked_at.map(|at| When::new(at, now)),
            told: Told::of(&device, &heard, now),
            reason: device.revoke_reason,
            id: device.id,
        }
    }
}

#[derive(Template)]
#[template(path = "console/fleet.html")]
struct Page {
    frame: Frame,
    place: String,
    q: String,
    state: String,
    rows: Vec<Row>,
    /// The address of the next page.
    next: Option<String>,
    /// The address of the first page, when this is another one.
    first: Option<String>,
    usage: Picture,
    used: String,
    limit: String,
    full: bool,
    agents: String,
    sidecars: u64,
    /// Whether the organisation has any device at all.
    any: bool,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let malformed = |text: &str| Refused::Malformed(text.to_owned());
    let Query(Asked { q, state, after }) = query.map_err(|_| malformed("The address cannot be read."))?;
    let (q, after) = (q.trim().to_owned(), after.trim());
    let status = match state.as_str() {
        "" => None,
        "active" => Some(DeviceStatus::Active),
        "revoked" => Some(DeviceStatus::Revoked),
        _ => return Err(malformed("Devices are active or revoked; the address asks for something else.")),
    };
    // PostgreSQL accepts no NUL, and no id has control characters.
    if q.chars().count() > LONGEST_SEARCH || q.chars().any(char::is_control) {
        return Err(malformed("A search text is one line of at most 128 characters, as device ids are."));
    }
    let after: Option<DeviceId> = match after {
        "" => None,
        after => Some(after.parse().map_err(|_| malformed("The address has an invalid page position."))?),
    };
    let filter = Filter {
        status,
        containing: Some(q.clone()).filter(|q| !q.is_empty()),
        after: after.clone(),
        limit: Some(PAGE),
        // Counted only on the first page without a search: a search should not wait for the count.
        counted: status.is_none() && after.is_none() && q.is_empty(),
        ..Filter::default()
    };
    let found = app.store.fleet(account.org.id, &filter).await?.ok_or(Refused::NotFound)?;
    let now = now();
    let place = format!("{}/org/{}", app.console.base, account.org.id);
    let next = found
        .devices
        .last()
        .filter(|_| found.more)
        .map(|last| format!("{place}?q={}&state={state}&after={}", encoded(&q), encoded(&last.device.id)));
    let first = after.is_some().then(|| format!("{place}?q={}&state={state}", encoded(&q)));
    let filtered = !q.is_empty() || !state.is_empty() || after.is_some();
    let rows: Vec<Row> = found.devices.into_iter().map(|row| Row::new(&account.org, &place, row, now)).collect();
    let (used, limit) = (account.used, account.org.limit());
    page(
        StatusCode::OK,
        &Page {
            frame: Frame::inside(&app, &visit, &account.org, Section::Fleet, "Fleet"),
            any: filtered || !rows.is_empty(),
            place,
            q,
            state,
            rows,
            next,
            first,
            usage: pictures::usage(used, limit),
            used: grouped(used),
            limit: grouped(limit),
            full: used >= limit,
            agents: grouped(found.agents),
            sidecars: found.sidecars,
        },
    )
}
