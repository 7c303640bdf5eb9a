//! The actions on selected devices: revoke, restore, remove. They use the store's methods and show a result for each
//! device.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::form;
use super::refused::Refused;
use super::result;
use crate::access::Permission;
use crate::app::App;
use crate::audit::{Call, Verb};
use crate::batch::{self, BatchError, Named, Outcome as Came};
use crate::console::session::{Done, Outcome};
use crate::console::words::grouped;
use crate::org::OrgId;
use crate::plan::{Removal, Restoration, Suspension};
use crate::store::{Filter, StoreError};

pub(super) async fn act(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let (visit, account, form) = form::sent(&app, &head, &org, Permission::Stop, body).await?;
    let batch = batch::distinct(form.all("id")).map_err(|error| {
        Refused::Malformed(
            match error {
                BatchError::Empty => "No device is selected.",
                BatchError::TooLarge => "More than 500 devices are selected.",
            }
            .to_owned(),
        )
    })?;
    visit.must(match form.one("action") {
        "restore" => Permission::GiveBack,
        "remove" => Permission::Remove,
        _ => Permission::Stop,
    })?;
    let call = visit.call(&head, form.reason()?);
    let org = account.org.id;
    let (title, results, help) = match form.one("action") {
        "revoke" => ("Revoked", revoke(&app, org, &batch, &call).await?, REVOKED),
        "restore" => ("Restored", restore(&app, org, &batch, &call).await?, RESTORED),
        "remove" => {
            let given = form.one("confirm");
            if given != grouped(batch.len() as u64) && given.replace(',', "") != batch.len().to_string() {
                let (reason, wrong) = (form.one("reason").to_owned(), !given.is_empty());
                let revoked = revoked(&app, org, &batch).await?;
                let ids = batch.into_iter().map(|named| named.sent).collect();
                let ask = Outcome::AskRemove { ids, revoked, reason, wrong };
                return Ok(result::shown(&app, &visit, org, ask, call.at));
            }
            // Revoked devices need a second confirmation, since they could register again. A device that another
            // operator revoked after the page was shown is not removed, either.
            let only_active = form.one("revoked") != "revoked";
            ("Removed", remove(&app, org, &batch, only_active, &call).await?, REMOVED)
        }
        _ => return Err(Refused::Malformed("The form does not say what to do.".to_owned())),
    };
    Ok(result::shown(&app, &visit, org, Outcome::Devices { title, help, results }, call.at))
}

const REVOKED: &str = "Their agents are being stopped. Each device's page shows when its sidecar has confirmed that.";
const RESTORED: &str = "They may execute again. Agents that were stopped do not start by themselves, unless they were \
                        started with --restart on-allow.";
const REMOVED: &str = "They are unknown now, so they are denied with DEVICE_NOT_FOUND. A host that registers again \
                       takes a place again; to keep a device stopped, revoke it.";

async fn revoke(app: &App, org: OrgId, batch: &[Named], call: &Call) -> Result<Vec<Done>, Refused> {
    let verb = if batch.len() == 1 { Verb::Revoke } else { Verb::RevokeBatch };
    // That some are not in the database yet is said at the top of every page.
    let stopped = app.store.stop_devices(org, batch, verb, call).await?.ok_or(Refused::NotFound)?;
    let (outcomes, _) = stopped.done;
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

/// The devices of the batch that are revoked.
async fn revoked(app: &App, org: OrgId, batch: &[Named]) -> Result<Vec<String>, Refused> {
    let mut revoked = Vec::new();
    for id in batch.iter().filter_map(|named| named.id.clone()) {
        let filter =
            Filter { status: Some(DeviceStatus::Revoked), only: Some(id), limit: Some(1), ..Filter::default() };
        let (page, _) = app.store.list(org, &filter).await?.ok_or(Refused::NotFound)?;
        revoked.extend(page.devices.into_iter().map(|device| device.id));
    }
    Ok(revoked)
}

async fn remove(app: &App, org: OrgId, batch: &[Named], only_active: bool, call: &Call) -> Result<Vec<Done>, Refused> {
    let mut results = Vec::with_capacity(batch.len());
    for named in batch {
        let (word, well) = match &named.id {
            None => ("is not a device id", false),
            Some(id) => match removed(app, org, id, only_active, call).await? {
                None => ("waits for a second key: see Approvals", false),
                Some(Removal::Removed) => ("removed", true),
                Some(Removal::NotFound) => ("was not known", true),
                Some(Removal::Revoked) => ("is revoked and was not removed: it could register again", false),
            },
        };
        results.push(Done { id: named.sent.clone(), word, well });
    }
    Ok(results)
}

/// Removes the device; `None` when that waits for a second key.
async fn removed(
    app: &App,
    org: OrgId,
    id: &DeviceId,
    only_active: bool,
    call: &Call,
) -> Result<Option<Removal>, Refused> {
    match app.store.remove(org, id, only_active, call).await {
        Err(StoreError::Waits(_)) => Ok(None),
        done => Ok(Some(done?.ok_or(Refused::NotFound)?.0)),
    }
}

fn each<T: Copy>(batch: &[Named], outcomes: &[Came<T>], word: impl Fn(T) -> (&'static str, bool)) -> Vec<Done> {
    let one = |(named, outcome): (&Named, &Came<T>)| {
        let (word, well) = match outcome {
            Came::Invalid => ("is not a device id", false),
            Came::Did(done) => word(*done),
        };
        Done { id: named.sent.clone(), word, well }
    };
    batch.iter().zip(outcomes).map(one).collect()
}
