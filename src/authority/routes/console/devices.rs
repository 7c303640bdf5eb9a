//! What is done to selected devices: revoke, restore, remove. Through the store's own methods, with a result for each.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::super::App;
use super::form::Form;
use super::frame::{Frame, Section};
use super::refused::Refused;
use super::words::grouped;
use super::{page, visit};
use crate::authority::audit::{Call, Verb};
use crate::authority::batch::{self, BatchError, Named, Outcome};
use crate::authority::org::OrgId;
use crate::authority::plan::{Restoration, Suspension};

/// What became of one.
struct Done {
    id: String,
    word: &'static str,
    /// Whether it is now as it was asked to be.
    well: bool,
}

#[derive(Template)]
#[template(path = "console/done.html")]
struct Page {
    frame: Frame,
    place: String,
    summary: String,
    help: &'static str,
    results: Vec<Done>,
}

#[derive(Template)]
#[template(path = "console/remove.html")]
struct Confirm {
    frame: Frame,
    place: String,
    ids: Vec<String>,
    reason: String,
    /// What has to be typed.
    typed: String,
    wrong: bool,
}

pub(super) async fn act(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org).await?;
    let form = Form::of(&app.console, &visit, &head, body).await?;
    let batch = batch::distinct(form.all("id")).map_err(|error| {
        Refused::Malformed(
            match error {
                BatchError::Empty => "No device is selected.",
                BatchError::TooLarge => "More than 500 devices are selected.",
            }
            .to_owned(),
        )
    })?;
    let call = visit.call(&head, form.reason()?);
    let org = account.org.id;
    let place = format!("{}/org/{org}", app.console.base);
    let inside = |title: &str| Frame::inside(&app, &visit, &account.org, Section::Fleet, title);
    let (title, results, help) = match form.one("action") {
        "revoke" => ("Revoked", revoke(&app, org, &batch, &call).await?, REVOKED),
        "restore" => ("Restored", restore(&app, org, &batch, &call).await?, RESTORED),
        "remove" => {
            let typed = grouped(batch.len() as u64);
            let given = form.one("confirm");
            if given != typed && given.replace(',', "") != batch.len().to_string() {
                let ids = batch.into_iter().map(|named| named.sent).collect();
                let (reason, wrong) = (form.one("reason").to_owned(), !given.is_empty());
                let confirm = Confirm { frame: inside("Remove devices?"), place, ids, reason, typed, wrong };
                return page(StatusCode::OK, &confirm);
            }
            ("Removed", remove(&app, org, &batch, &call).await?, REMOVED)
        }
        _ => return Err(Refused::Malformed("The form does not say what to do.".to_owned())),
    };
    let well = results.iter().filter(|done| done.well).count() as u64;
    let summary = format!("{title}: {} of {}.", grouped(well), grouped(results.len() as u64));
    page(StatusCode::OK, &Page { frame: inside(title), place, summary, help, results })
}

const REVOKED: &str = "Their agents are being stopped. Each device's page shows when its sidecar has confirmed that.";
const RESTORED: &str = "They may execute again. Agents that were stopped do not start by themselves, unless they were \
                        started with --restart on-allow.";
const REMOVED: &str = "They are unknown now, so they are denied with DEVICE_NOT_FOUND. A host that registers again takes a \
                       place again; what must stay stopped is better revoked.";

async fn revoke(app: &App, org: OrgId, batch: &[Named], call: &Call) -> Result<Vec<Done>, Refused> {
    let verb = if batch.len() == 1 { Verb::Revoke } else { Verb::RevokeBatch };
    let (outcomes, _) = app.store.revoke(org, batch, verb, call).await?.ok_or(Refused::NotFound)?;
    Ok(each(batch, &outcomes, |done| match done {
        Suspension::Revoked => ("revoked", true),
        Suspension::AlreadyRevoked => ("was revoked already", true),
        Suspension::NotFound => ("is not known", false),
    }))
}

async fn restore(app: &App, org: OrgId, batch: &[Named], call: &Call) -> Result<Vec<Done>, Refused> {
    let verb = if batch.len() == 1 { Verb::Unrevoke } else { Verb::UnrevokeBatch };
    let (outcomes, _) = app.store.unrevoke(org, batch, verb, call).await?.ok_or(Refused::NotFound)?;
    Ok(each(batch, &outcomes, |done| match done {
        Restoration::Restored => ("restored", true),
        Restoration::AlreadyActive => ("was active already", true),
        Restoration::NotFound => ("is not known", false),
        Restoration::Full => ("stays revoked: the plan has no place left", false),
    }))
}

async fn remove(app: &App, org: OrgId, batch: &[Named], call: &Call) -> Result<Vec<Done>, Refused> {
    let mut results = Vec::with_capacity(batch.len());
    for named in batch {
        let (word, well) = match &named.id {
            None => ("is no device id", false),
            Some(id) => match app.store.remove(org, id, call).await?.ok_or(Refused::NotFound)? {
                (true, _) => ("removed", true),
                (false, _) => ("was not known", true),
            },
        };
        results.push(Done { id: named.sent.clone(), word, well });
    }
    Ok(results)
}

fn each<T: Copy>(batch: &[Named], outcomes: &[Outcome<T>], word: impl Fn(T) -> (&'static str, bool)) -> Vec<Done> {
    let one = |(named, outcome): (&Named, &Outcome<T>)| {
        let (word, well) = match outcome {
            Outcome::Invalid => ("is no device id", false),
            Outcome::Did(done) => word(*done),
        };
        Done { id: named.sent.clone(), word, well }
    };
    batch.iter().zip(outcomes).map(one).collect()
}
