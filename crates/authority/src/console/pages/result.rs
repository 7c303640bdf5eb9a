//! The pages with the results of forms: every form is answered with a redirect to one, so that a reload repeats
//! nothing.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use machineid_clock::BootTime;
use machineid_org_key::OrgKey;
use machineid_protocol::KeyRole;

use super::frame::{Frame, Section};
use super::keys::KeyDetails;
use super::refused::Refused;
use super::visit::Visit;
use super::{page, redirect, visit};
use crate::access::Permission;
use crate::app::App;
use crate::console::session::{Done, Outcome};
use crate::console::words::{When, grouped};
use crate::org::{Org, OrgId};
use crate::routes::now;

#[derive(Template)]
#[template(path = "console/done.html")]
struct DonePage {
    frame: Frame,
    place: String,
    summary: String,
    help: &'static str,
    results: Vec<Done>,
}

#[derive(Template)]
#[template(path = "console/remove.html")]
struct RemovePage {
    frame: Frame,
    place: String,
    ids: Vec<String>,
    revoked: Vec<String>,
    reason: String,
    /// The text that the user must type to confirm.
    typed: String,
    wrong: bool,
}

#[derive(Template)]
#[template(path = "console/restored.html")]
struct RestoredPage {
    frame: Frame,
    place: String,
    name: String,
    restored: String,
    left: String,
    all: bool,
}

#[derive(Template)]
#[template(path = "console/new_key.html")]
struct KeyPage {
    frame: Frame,
    place: String,
    key: Option<String>,
    /// When the old key ends, while it is valid.
    old_key_ends: Option<When>,
    older_key_ended: bool,
    /// What it means that the database has not got it yet, if that is so.
    notice: Option<String>,
}

#[derive(Template)]
#[template(path = "console/role_key.html")]
struct RoleKeyPage {
    frame: Frame,
    place: String,
    key: Option<String>,
    made: KeyDetails,
    /// Whether it took the place of another key.
    rotated: bool,
    /// When that one ends, while it is valid.
    old_key_ends: Option<When>,
    /// The number of the request that a second key must confirm first.
    waits: Option<String>,
}

#[derive(Template)]
#[template(path = "console/created.html")]
struct CreatedPage {
    frame: Frame,
    place: String,
    id: OrgId,
    key: Option<String>,
}

/// Shows a new key that the database has not got yet, in the answer to the form itself.
pub(super) fn key_at_once(
    app: &App,
    visit: &Visit,
    org: &Org,
    key: &OrgKey,
    notice: String,
) -> Result<Response, Refused> {
    let frame = Frame::inside(app, visit, org, Section::Settings, "The new key");
    let place = format!("{}/org/{}", app.console.base, org.id);
    let (key, notice) = (Some(key.expose().to_owned()), Some(notice));
    page(StatusCode::OK, &KeyPage { frame, place, key, old_key_ends: None, older_key_ended: false, notice })
}

/// Stores the result of this visit's form, and redirects to its page.
pub(super) fn shown(app: &App, visit: &Visit, org: OrgId, outcome: Outcome, at: Timestamp) -> Response {
    let name = app.console.results.keep(visit.session.hash, org, outcome, at, BootTime::now());
    redirect(&format!("{}/org/{org}/result/{name}", app.console.base))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path((org, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let name: i64 = name.parse().map_err(|_| Refused::NotFound)?;
    let (org, id) = (&account.org, account.org.id);
    // A prefetch by the browser, or a request by the page's script, shows no key.
    let purpose = ["sec-purpose", "purpose", "x-moz"].iter().any(|name| head.headers.contains_key(*name));
    let to_show = head.method == Method::GET && !visit::is_live(&head) && !purpose;
    let outcome = app.console.results.look(visit.session.hash, id, name, to_show, BootTime::now());
    let place = format!("{}/org/{id}", app.console.base);
    let text = |key: OrgKey| key.expose().to_owned();
    match outcome.ok_or(Refused::NotKept)? {
        Outcome::Devices { title, help, results } => {
            let well = results.iter().filter(|done| done.well).count() as u64;
            let summary = format!("{title}: {} of {}.", grouped(well), grouped(results.len() as u64));
            let frame = Frame::inside(&app, &visit, org, Section::Fleet, title);
            page(StatusCode::OK, &DonePage { frame, place, summary, help, results })
        }
        Outcome::AskRemove { ids, revoked, reason, wrong } => {
            let frame = Frame::inside(&app, &visit, org, Section::Fleet, "Remove devices?");
            let typed = grouped(ids.len() as u64);
            page(StatusCode::OK, &RemovePage { frame, place, ids, revoked, reason, typed, wrong })
        }
        Outcome::Restored { stop, restored, left } => {
            let frame = Frame::inside(&app, &visit, org, Section::Stop, "Restored");
            let (restored, left, all) = (grouped(restored), grouped(left), left == 0);
            page(StatusCode::OK, &RestoredPage { frame, place, name: stop, restored, left, all })
        }
        Outcome::NewKey { key, old_key_ends, older_key_ended } => {
            let frame = Frame::inside(&app, &visit, org, Section::Settings, "The new key");
            let now = now();
            let old_key_ends = old_key_ends.filter(|ends| now < *ends).map(|ends| When::new(ends, now));
            page(
                StatusCode::OK,
                &KeyPage { frame, place, key: key.map(text), old_key_ends, older_key_ended, notice: None },
            )
        }
        Outcome::RoleKey { key, made, old_key_ends, waits } => {
            let frame = Frame::inside(&app, &visit, org, Section::Keys, "The new key");
            let (now, rotated) = (now(), old_key_ends.is_some());
            let old_key_ends = old_key_ends.filter(|ends| now < *ends).map(|ends| When::new(ends, now));
            let (key, made) = (key.map(text), KeyDetails::new(*made, now));
            page(StatusCode::OK, &RoleKeyPage { frame, place, key, made, rotated, old_key_ends, waits })
        }
        Outcome::NewOrg { key } => {
            let frame = Frame::inside(&app, &visit, org, Section::Other, "The organisation and its key");
            page(StatusCode::OK, &CreatedPage { frame, place, id, key: key.map(text) })
        }
    }
}
