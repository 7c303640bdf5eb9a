//! The result for each device, and its output.

use machineid_client::{Failure, Refusal};
use machineid_protocol::Exit;
use serde::Serialize;

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
    #[serde(skip)]
    pub(super) done: bool,
}

impl DeviceOutcome {
    pub(super) fn done(device_id: impl Into<String>, result: impl Into<String>) -> Self {
        Self { device_id: device_id.into(), result: result.into(), error: None, notice: None, done: true }
    }

    /// The same with the authority's notice, if it is done.
    pub(super) fn with_notice(self, notice: Option<&String>) -> Self {
        let notice = notice.filter(|_| self.done).cloned();
        Self { notice, ..self }
    }

    pub(super) fn not_done(device_id: impl Into<String>, result: impl Into<String>, error: Option<String>) -> Self {
        Self { device_id: device_id.into(), result: result.into(), error, notice: None, done: false }
    }

    /// The outcome of a failed request about this one device.
    pub(super) fn failed(device_id: impl Into<String>, failure: &Failure, explained: String) -> Self {
        if let Failure::Refused(Refusal { error: Some(error), reason, .. }) = failure {
            match error.as_str() {
                "needs_approval" => return Self::not_done(device_id, "waiting", reason.clone()),
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
struct Report<'a> {
    results: &'a [DeviceOutcome],
    succeeded: usize,
    failed: usize,
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

/// Prints all outcomes and returns the exit code: 1 when one failed.
pub(super) fn report(outcomes: &[DeviceOutcome], json: bool, printer: &mut Printer) -> Exit {
    let succeeded = outcomes.iter().filter(|outcome| outcome.done).count();
    let failed = outcomes.len() - succeeded;
    if json {
        printer.json(&Report { results: outcomes, succeeded, failed });
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
    if failed == 0 {
        return Exit::Success;
    }
    let of =
        if outcomes.len() == 1 { String::new() } else { format!(" of {}", count(outcomes.len(), "device", "devices")) };
    if outcomes.len() > 1 || json {
        printer.note(&format!("machineid: {failed}{of} failed"));
    }
    Exit::Failure
}

const COLUMNS: [Column; 3] = [Column::keep(""), Column::keep(""), Column::keep("")];

fn row(outcome: &DeviceOutcome) -> Vec<Cell> {
    let colour = if outcome.done { Colour::Good } else { Colour::Bad };
    vec![
        Cell::new(&outcome.device_id),
        Cell::coloured(&outcome.result, colour),
        Cell::new(outcome.error.as_deref().unwrap_or("")),
    ]
}
