//! The result of each stop, as a table and as JSON.

use machineid_protocol::DeviceId;
use machineid_protocol::outside::counted;
use machineid_protocol::status::StopReport;
use serde_json::{Value, json};

use super::choose::label;
use super::outcome::{StopOutcome, Stopped};
use crate::host::stop_words::{mechanism, processes, survivors};
use crate::printer::{Colour, Printer};
use crate::table::{self, Cell, Column};
use crate::words::precise;

const COLUMNS: [Column; 5] = [
    Column::keep("AGENT"),
    Column::keep("RESULT"),
    Column::drop_at("TOOK", 1),
    Column::drop_at("MECHANISM", 2),
    Column::drop_at("PROCESSES", 3),
];

/// Prints the results. `held`: the devices that are denied on this host from now on.
pub(super) fn show(stopped: &[Stopped], held: &[DeviceId], json: bool, printer: &mut Printer) {
    if json {
        let stops: Vec<Value> = stopped.iter().map(value).collect();
        let over = stopped.iter().filter(|one| one.outcome.is_over()).count();
        printer.json(&json!({ "requested": stopped.len(), "confirmed": over, "stops": stops, "held": held }));
        return;
    }
    for device in held {
        printer.line(format!("{device}  held: denied on this host until machineid release --device {device}"));
    }
    if stopped.is_empty() && !held.is_empty() {
        printer.note("no agent of it was running");
        return;
    }
    if stopped.is_empty() {
        printer.note("nothing was left to stop: they were already ending");
        return;
    }
    let rows: Vec<_> = stopped.iter().map(row).collect();
    for line in table::layout(&COLUMNS, &rows, printer.width()) {
        printer.line(line);
    }
    for one in stopped {
        if let StopOutcome::NotOver(report) = &one.outcome {
            for left in &report.survivors {
                printer.line(format!("{}: pid {} is still alive: {}", name(one), left.pid, left.reason));
            }
        }
    }
    for one in stopped {
        if let Some(left) = one.outcome.left_outside() {
            printer.line(format!("{}: stopped; {left}", name(one)));
        }
    }
    if stopped.iter().any(|one| matches!(one.outcome, StopOutcome::NotOver(_))) {
        printer.note("the daemon keeps retrying; look again with: machineid status");
    }
}

fn name(one: &Stopped) -> String {
    label(one.agent.as_ref(), &one.run.to_string())
}

fn row(one: &Stopped) -> Vec<Cell> {
    let (result, colour, report) = match &one.outcome {
        StopOutcome::Requested => ("requested, not confirmed".to_owned(), Colour::Unclear, None),
        StopOutcome::Gone(report) => match report.as_ref().and_then(|report| counted(&report.outside)) {
            None => ("gone".to_owned(), Colour::Good, report.as_ref()),
            Some(helpers) => (format!("gone, {helpers}"), Colour::Unclear, report.as_ref()),
        },
        StopOutcome::NotOver(report) => (survivors(report), Colour::Bad, Some(report)),
    };
    let of = |text: &dyn Fn(&StopReport) -> String| report.map_or_else(|| "-".to_owned(), text);
    vec![
        Cell::new(name(one)),
        Cell::coloured(result, colour),
        Cell::new(of(&|report| precise(report.took_ms))),
        Cell::new(of(&mechanism)),
        Cell::new(of(&processes)),
    ]
}

fn value(one: &Stopped) -> Value {
    let (outcome, report) = match &one.outcome {
        StopOutcome::Requested => ("requested", None),
        StopOutcome::Gone(report) => ("gone", report.as_ref()),
        StopOutcome::NotOver(report) => ("not_over", Some(report)),
    };
    json!({
        "run_id": one.run,
        "name": one.agent.as_ref().and_then(|agent| agent.name.clone()),
        "pid": one.agent.as_ref().and_then(|agent| agent.pid),
        "outcome": outcome,
        "report": report,
    })
}
