//! The result for each device, and its output.

use machineid_client::{Failure, Refusal, Waiting};
use machineid_protocol::Exit;
use serde::Serialize;

use super::waiting;
use crate::printer::{Colour, Printer};
use crate::table::{self, Cell, Column};
use crate::words::count;

/// The result for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceOutcome {
    pub(super) device_id: String,
    /// One word, such as `revoked`, `not_found` or `failed`.
    pub(super) result: String,
    /// Details when the device is not in the requested state.
    pub(super) error: Option<String>,
    /// What the authority says about a stop that is in force and not in its database yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notice: Option<String>,
    /// The request that waits for a second key.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<Waits>,
    #[serde(skip)]
    pub(super) done: bool,
}

/// What waits for a second key, of which the result of a device has the number alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waits {
    approval_id: String,
    #[serde(skip)]
    request: Waiting,
}

impl DeviceOutcome {
    pub(super) fn done(device_id: impl Into<String>, result: impl Into<String>) -> Self {
        Self {
            device_id: device_id.into(),
            result: result.into(),
            error: None,
            notice: None,
            waiting: None,
            done: true,
        }
    }

    /// The same with the authority's notice, if it is done.
    pub(super) fn with_notice(self, notice: Option<&String>) -> Self {
        let notice = notice.filter(|_| self.done).cloned();
        Self { notice, ..self }
    }

    pub(super) fn not_done(device_id: impl Into<String>, result: impl Into<String>, error: Option<String>) -> Self {
        Self { device_id: device_id.into(), result: result.into(), error, notice: None, waiting: None, done: false }
    }

    /// The outcome of a failed request about this one device.
    pub(super) fn failed(device_id: impl Into<String>, failure: &Failure, explained: String) -> Self {
        if let Some(request) = waiting::of(failure) {
            let waits = Waits { approval_id: request.approval_id.clone(), request: request.clone() };
            return Self { waiting: Some(waits), ..Self::not_done(device_id, "waiting", None) };
        }
        if let Failure::Refused(Refusal { error: Some(error), .. }) = failure {
            match error.as_str() {
                "not_found" => return Self::not_done(device_id, "not_found", None),
                "device_limit_reached" | "limit_reached" => {
                    return Self::not_done(device_id, "blocked", Some("device_limit_reached".to_owned()));
                }
                _ => {}
            }
        }
        Self::not_done(device_id, "failed", Some(explained))
    }
}

#[derive(Debug, Serialize)]
struct OutcomeReport<'a> {
    results: &'a [DeviceOutcome],
    succeeded: usize,
    failed: usize,
    /// The requests that wait for a second key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<&'a Waiting>,
}

/// The requests that wait for a second key, each once.
fn requests(outcomes: &[DeviceOutcome]) -> Vec<&Waiting> {
    let mut requests: Vec<&Waiting> = Vec::new();
    for request in outcomes.iter().filter_map(|outcome| outcome.waiting.as_ref()).map(|waits| &waits.request) {
        if !requests.contains(&request) {
            requests.push(request);
        }
    }
    requests
}

/// The outcomes with the result of a wait.
#[derive(Debug, Serialize)]
struct Followed<'a, T> {
    results: &'a [DeviceOutcome],
    succeeded: usize,
    failed: usize,
    wait: &'a T,
}

/// Prints all outcomes as JSON, with the result of a wait.
pub(super) fn report_with<T: Serialize>(outcomes: &[DeviceOutcome], wait: &T, printer: &mut Printer) {
    let succeeded = outcomes.iter().filter(|outcome| outcome.done).count();
    printer.json(&Followed { results: outcomes, succeeded, failed: outcomes.len() - succeeded, wait });
}

/// Prints all outcomes and returns the exit code: 1 when one failed, 3 when one waits for a second key.
pub(super) fn report(outcomes: &[DeviceOutcome], json: bool, printer: &mut Printer) -> Exit {
    let succeeded = outcomes.iter().filter(|outcome| outcome.done).count();
    let failed = outcomes.iter().filter(|outcome| !outcome.done && outcome.waiting.is_none()).count();
    let waiting = requests(outcomes);
    if json {
        printer.json(&OutcomeReport { results: outcomes, succeeded, failed, waiting: waiting.clone() });
    } else {
        let rows: Vec<Vec<Cell>> = outcomes.iter().map(row).collect();
        // Without a heading: the lines are also for `grep` and `cut`.
        for line in table::layout(&COLUMNS, &rows, printer.width()).into_iter().skip(1) {
            printer.line(line);
        }
        // One server says the same of all.
        if let Some(notice) = outcomes.iter().find_map(|outcome| outcome.notice.as_ref()) {
            printer.note(&format!("machineid: warning: {notice}"));
        }
    }
    for request in &waiting {
        waiting::note(request, printer);
    }
    if failed == 0 {
        return if waiting.is_empty() { Exit::Success } else { Exit::Waiting };
    }
    let of =
        if outcomes.len() == 1 { String::new() } else { format!(" of {}", count(outcomes.len(), "device", "devices")) };
    if outcomes.len() > 1 || json {
        printer.note(&format!("machineid: {failed}{of} failed"));
    }
    Exit::Failure
}

const COLUMNS: [Column; 3] = [Column::keep(""), Column::keep(""), Column::fold("")];

fn row(outcome: &DeviceOutcome) -> Vec<Cell> {
    let (colour, told) = match &outcome.waiting {
        Some(waits) => (Colour::Unclear, Some(&waits.approval_id)),
        None => (if outcome.done { Colour::Good } else { Colour::Bad }, outcome.error.as_ref()),
    };
    vec![
        Cell::new(&outcome.device_id),
        Cell::coloured(&outcome.result, colour),
        Cell::new(told.map_or("", String::as_str)),
    ]
}
