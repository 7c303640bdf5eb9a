//! Asking before something that stops a fleet.

use std::io::{BufRead, IsTerminal};

use crate::cli::printer::Printer;
use crate::cli::problem::Problem;
use crate::cli::words::count;

/// More ids than this are a fleet, even when each was named.
pub(super) const A_FLEET: usize = 25;

/// Wants the number of devices typed: whoever reads it knows how many. `what` begins the question, as in "revoke".
///
/// Fails without a terminal to ask on, and when something else is typed.
pub(super) fn typed(what: &str, devices: usize, at: &str, printer: &mut Printer) -> Result<(), Problem> {
    let number = count(devices, "device", "devices");
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Problem::usage(format!(
            "this would {what} {number} at {at} and there is no terminal to confirm it on; say --yes, or look first with --dry-run"
        )));
    }
    printer.ask(&format!("This will {what} {number} at {at}. Type {devices} to go on: "));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == devices.to_string() {
        return Ok(());
    }
    Err(Problem::failure("not confirmed; nothing was changed"))
}
