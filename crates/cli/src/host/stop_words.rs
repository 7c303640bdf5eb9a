//! The words for a stop in tables: what `status` and `stop` both show of a [`StopReport`].

use machineid_protocol::status::StopReport;

/// The number of survivors, as in `2 survivors`; a stop that could not be watched names none and is still not
/// confirmed.
pub(super) fn survivors(report: &StopReport) -> String {
    match report.survivors.len() {
        0 => "not confirmed".to_owned(),
        1 => "1 SURVIVOR".to_owned(),
        many => format!("{many} SURVIVORS"),
    }
}

pub(super) fn mechanism(report: &StopReport) -> String {
    format!("{} (against {})", report.mechanism, report.holds_against)
}

pub(super) fn processes(report: &StopReport) -> String {
    format!("{} signalled, {} killed", report.signalled, report.killed)
}
