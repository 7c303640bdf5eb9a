//! The kill switch: a preview, the stop, and undoing it in two steps.
//!
//! The stop revokes every active device in one transaction, by the same method as `machineid revoke --all-active`. All
//! these devices then have the time of that call, which identifies the stop: its board shows the devices that still
//! have it, and a restore restores only those, and none that were revoked before or since.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use machineid_protocol::api::LARGEST_BATCH;

use super::form;
use super::frame::{Frame, Section};
use super::refused::{Refused, waiting_text};
use super::visit::Visit;
use super::{page, redirect, result, visit};
use crate::access::Permission;
use crate::app::App;
use crate::audit::{self, Verb};
use crate::batch::{self, Named, Outcome};
use crate::console::session;
use crate::console::words::{When, grouped};
use crate::org::OrgId;
use crate::plan::{Account, Restoration};
use crate::routes::now;
use crate::store::{Filter, StoreError};

/// How many batches are searched for earlier stops.
const EARLIER: u32 = 50;

/// An earlier stop of everything.
struct Earlier {
    at: When,
    address: String,
    actor: String,
    reason: Option<String>,
    revoked: String,
}

#[derive(Template)]
#[template(path = "console/stop.html")]
struct Page {
    frame: Frame,
    place: String,
    problem: Option<&'static str>,
    reason: String,
    devices: u64,
    devices_text: String,
    agents: String,
    sidecars: u64,
    earlier: Vec<Earlier>,
}

#[derive(Template)]
#[template(path = "console/restore.html")]
struct RestorePage {
    frame: Frame,
    place: String,
    name: String,
    at: When,
    devices: u64,
    devices_text: String,
    places: String,
    short: bool,
    wrong: bool,
    reason: String,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Stop).await?;
    offer(&app, &visit, account, None, String::new()).await
}

/// The page that previews a stop and asks for confirmation.
async fn offer(
    app: &App,
    visit: &Visit,
    account: Account,
    problem: Option<&'static str>,
    reason: String,
) -> Result<Response, Refused> {
    let org = account.org.id;
    let one = Filter { limit: Some(1), counted: true, ..Filter::default() };
    let told = app.store.fleet(org, &one).await?.ok_or(Refused::NotFound)?;
    let verb = Some(Verb::RevokeBatch.as_str().to_owned());
    let batches = audit::Query { org: Some(org), verb, limit: EARLIER, ..audit::Query::default() };
    let batches = app.store.audit(&batches).await?.entries;
    let place = format!("{}/org/{org}", app.console.base);
    let now = now();
    let stops =
        batches.into_iter().filter(|entry| entry.details.get("scope").is_some_and(|scope| scope == "all_active"));
    let earlier = stops.map(|entry| Earlier {
        at: When::new(entry.at, now),
        address: format!("{place}/stop/{}", entry.at.as_microsecond()),
        actor: entry.actor,
        reason: entry.reason,
        revoked: grouped(entry.details.get("revoked").and_then(serde_json::Value::as_u64).unwrap_or(0)),
    });
    let status = if problem.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    page(
        status,
        &Page {
            frame: Frame::inside(app, visit, &account.org, Section::Stop, "Stop everything"),
            problem,
            reason,
            devices: account.used,
            devices_text: grouped(account.used),
            agents: grouped(told.agents),
            sidecars: told.sidecars,
            earlier: earlier.collect(),
            place,
        },
    )
}

pub(super) async fn everything(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let (visit, account, form) = form::sent(&app, &head, &org, Permission::Stop, body).await?;
    let reason = form.reason()?;
    // Compared with the number that the page showed, not the current one: a host that registers meanwhile must not
    // prevent a stop.
    let typed = form.one("confirm").replace(',', "");
    let problem = match (typed.is_empty() || typed != form.one("shown"), reason.is_none()) {
        (true, _) => Some("The number typed is not the number of devices. Nothing was stopped."),
        (false, true) => Some(
            "Give a reason: the audit and the denials of the stopped agents show it. Nothing was \
                               stopped.",
        ),
        (false, false) => None,
    };
    if problem.is_some() {
        return offer(&app, &visit, account, problem, form.one("reason").to_owned()).await;
    }
    let call = visit.call(&head, reason);
    let org = account.org.id;
    app.store.stop_all(org, &call).await?.ok_or(Refused::NotFound)?;
    Ok(redirect(&format!("{}/org/{org}/stop/{}", app.console.base, call.at.as_microsecond())))
}

/// The first step of a restore: shows which devices it would restore.
pub(super) async fn ask_restore(
    State(app): State<Arc<App>>,
    Path((org, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::GiveBack).await?;
    let at = named(&name)?;
    let stopped = stopped(&app, account.org.id, at).await?;
    ask(&app, &visit, &account, name, at, stopped.len() as u64, None)
}

/// The second step of a restore.
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    Path((org, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let (visit, account, form) = form::sent(&app, &head, &org, Permission::GiveBack, body).await?;
    let at = named(&name)?;
    let org = account.org.id;
    let stopped = stopped(&app, org, at).await?;
    let devices = stopped.len() as u64;
    let given = form.one("confirm").replace(',', "");
    if devices == 0 || given.is_empty() || given != form.one("shown") {
        return ask(&app, &visit, &account, name, at, devices, Some(form.one("reason")));
    }
    let call = visit.call(&head, form.reason()?);
    let mut restored = 0;
    let mut waiting = Vec::new();
    for ids in stopped.chunks(LARGEST_BATCH) {
        let batch: Vec<Named> = batch::distinct(ids.to_vec()).map_err(|_| Refused::Failed)?;
        let done = match app.store.unrevoke(org, &batch, Verb::UnrevokeBatch, &call).await {
            Err(StoreError::Waits(approval)) => {
                waiting.push(waiting_text(&approval));
                continue;
            }
            done => done?.ok_or(Refused::NotFound)?,
        };
        let well = |outcome: &&Outcome<Restoration>| {
            matches!(outcome, Outcome::Did(Restoration::Restored | Restoration::AlreadyActive))
        };
        restored += done.0.iter().filter(well).count() as u64;
        if done.0.contains(&Outcome::Did(Restoration::Full)) {
            break;
        }
    }
    if !waiting.is_empty() {
        return Err(Refused::Waits(waiting.join(" ")));
    }
    let outcome = session::Outcome::Restored { stop: name, restored, left: devices - restored };
    Ok(result::shown(&app, &visit, org, outcome, call.at))
}

/// The page that asks for confirmation of a restore; it repeats the given reason when the typed number was wrong.
fn ask(
    app: &App,
    visit: &Visit,
    account: &Account,
    name: String,
    at: Timestamp,
    devices: u64,
    given: Option<&str>,
) -> Result<Response, Refused> {
    let places = account.places();
    let restore = RestorePage {
        frame: Frame::inside(app, visit, &account.org, Section::Stop, "Restore what was stopped?"),
        place: format!("{}/org/{}", app.console.base, account.org.id),
        at: When::new(at, now()),
        devices,
        devices_text: grouped(devices),
        places: grouped(places),
        short: places < devices,
        wrong: given.is_some(),
        reason: given.unwrap_or("").to_owned(),
        name,
    };
    page(if given.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK }, &restore)
}

/// The devices that are still revoked by this stop.
async fn stopped(app: &App, org: OrgId, at: Timestamp) -> Result<Vec<String>, Refused> {
    let filter = Filter { revoked_at: Some(at), ..Filter::default() };
    let (found, _) = app.store.list(org, &filter).await?.ok_or(Refused::NotFound)?;
    Ok(found.devices.into_iter().map(|device| device.id).collect())
}

/// The time that identifies a stop in an address.
fn named(name: &str) -> Result<Timestamp, Refused> {
    let micros: i64 = name.parse().map_err(|_| Refused::NotFound)?;
    Timestamp::from_microsecond(micros).map_err(|_| Refused::NotFound)
}
