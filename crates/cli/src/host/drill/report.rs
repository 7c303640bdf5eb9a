//! The result of a drill, as a page and as JSON.

use serde::Serialize;

use machineid_protocol::status::StopReport;
use machineid_protocol::{Containment, HoldsAgainst, RunId, span};
use std::time::Duration;

use crate::host::stop_words::{mechanism, processes};
use crate::printer::{Colour, Line, Printer};
use crate::role::Role;
use crate::table::{self, Cell, Column};
use crate::words::{count, precise};

/// One process and its end.
#[derive(Clone, Debug, Serialize)]
pub(super) struct End {
    pub(super) canary: Role,
    pub(super) pid: i32,
    /// Milliseconds from the stop to its end; `None` while it lives.
    pub(super) gone_after_ms: Option<u64>,
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) run_id: RunId,
    pub(super) containment: Containment,
    pub(super) holds_against: HoldsAgainst,
    pub(super) containment_reason: Option<String>,
    pub(super) canaries: Vec<End>,
    /// Processes of the run besides the canaries that were alive at the end: the wrapper's, or a canary that never
    /// reported.
    pub(super) others_alive: Vec<i32>,
    /// Milliseconds from the stop to the last observed end.
    pub(super) took_ms: u64,
    pub(super) survivors: Vec<i32>,
    /// The daemon's own report, if it gave one.
    pub(super) daemon: Option<StopReport>,
    /// The wrapper's exit code; `None` if it had not ended.
    pub(super) wrapper_exit: Option<i32>,
}

impl Report {
    /// Whether every process has ended, the daemon confirms it, and the wrapper gave the right reason.
    pub(super) fn passed(&self) -> bool {
        self.survivors.is_empty() && self.complaints().is_empty()
    }

    /// Problems other than survivors.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if !self.others_alive.is_empty() {
            complaints
                .push(format!("processes of the run were left beside the canaries: pids {}", pids(&self.others_alive)));
        }
        match &self.daemon {
            Some(report) if report.confirmed => {}
            Some(_) => complaints.push("the daemon does not confirm the stop".to_owned()),
            None => complaints.push("the daemon does not say what came of the stop".to_owned()),
        }
        match self.wrapper_exit {
            Some(DENIED) => {}
            Some(code) => complaints.push(format!("the wrapper's exit code was {code} instead of {DENIED}")),
            None => complaints.push("the wrapper did not end".to_owned()),
        }
        complaints
    }

    pub(super) fn show(&self, bound: Duration, printer: &mut Printer) {
        let reason = self.containment_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let held = format!("holds against {}{reason}", self.holds_against);
        for line in table::hanging(&format!("{}, ", self.containment), &held, printer.width()) {
            printer.line(line);
        }
        printer.line("");
        let rows: Vec<_> = self.canaries.iter().map(row).collect();
        for line in table::layout(&COLUMNS, &rows, printer.width()) {
            printer.line(line);
        }
        printer.line("");
        if let Some(report) = &self.daemon {
            printer.line(format!(
                "daemon: {}, {} in {}",
                mechanism(report),
                processes(report),
                precise(report.took_ms)
            ));
        }
        let mut line = Line::default();
        if self.survivors.is_empty() {
            line.push("passed", Some(Colour::Good));
            if !self.passed() {
                line = Line::default();
                line.push("failed", Some(Colour::Bad));
            }
            let processes = count(self.canaries.len(), "process", "processes");
            let (took, bound) = (precise(self.took_ms), span::format(bound));
            line.push(&format!(": {processes} gone {took} after the stop; a stop may take {bound} here"), None);
        } else {
            line.push("failed", Some(Colour::Bad));
            let left = count(self.survivors.len(), "survivor", "survivors");
            line.push(&format!(": {left} of {}: pids {}", self.canaries.len(), pids(&self.survivors)), None);
        }
        printer.line(line);
        for complaint in self.complaints() {
            printer.line(complaint);
        }
    }
}

/// The exit code of a wrapper whose agent was stopped by a deny, including a local one.
const DENIED: i32 = machineid_protocol::Exit::Denied.code() as i32;

const COLUMNS: [Column; 3] = [Column::keep("PID"), Column::keep("GONE AFTER"), Column::drop_at("CANARY", 1)];

fn row(end: &End) -> Vec<Cell> {
    let gone = match end.gone_after_ms {
        Some(after) => Cell::coloured(precise(after), Colour::Good),
        None => Cell::coloured("ALIVE", Colour::Bad),
    };
    vec![Cell::new(end.pid.to_string()), gone, Cell::new(end.canary.description())]
}

fn pids(pids: &[i32]) -> String {
    pids.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}
