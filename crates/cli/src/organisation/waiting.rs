//! What waits for a second key: one form for every command, and one exit code.

use machineid_client::{Failure, Refusal, Waiting};
use machineid_protocol::Exit;
use serde_json::{Value, json};

use super::connect::OrgClient;
use crate::printer::Printer;
use crate::problem::Problem;

/// The request that was made in the place of what was asked for, when that is why it was not done.
pub(super) fn of(failure: &Failure) -> Option<&Waiting> {
    if let Failure::Refused(Refusal { waits, .. }) = failure { waits.as_deref() } else { None }
}

/// The requests in the JSON of a result.
pub(super) fn json<'a>(waiting: impl IntoIterator<Item = &'a Waiting>) -> Value {
    json!(waiting.into_iter().collect::<Vec<_>>())
}

/// Says what to do, on stderr.
pub(super) fn note(waiting: &Waiting, printer: &mut Printer) {
    let told = waiting.reason.clone().unwrap_or_else(|| {
        format!("Nothing was done yet: another key must confirm it: machineid approve {}", waiting.approval_id)
    });
    printer.note(&format!("machineid: {told}"));
}

/// Ends a command that is about no device in particular.
pub(super) fn or_problem(
    org: &OrgClient,
    failure: &Failure,
    json: bool,
    printer: &mut Printer,
) -> Result<Exit, Problem> {
    let Some(waiting) = of(failure) else { return Err(org.problem(failure)) };
    if json {
        printer.json(&json!({ "waiting": [waiting] }));
    } else {
        printer.line(format!("waiting  {}", waiting.approval_id));
    }
    note(waiting, printer);
    Ok(Exit::Waiting)
}
