//! Confirmation of actions that stop many devices.

use crate::confirm;
use crate::printer::Printer;
use crate::problem::Problem;
use crate::words::count;

/// More ids than this need a confirmation, even when each was named.
pub(super) const A_FLEET: usize = 25;

/// Asks the user to type the number of devices. `what` begins the question, as in "revoke". Fails like
/// [`confirm::typed`].
pub(super) fn typed(what: &str, devices: usize, at: &str, printer: &mut Printer) -> Result<(), Problem> {
    let deed = format!("{what} {} at {at}", count(devices, "device", "devices"));
    confirm::typed(&deed, devices, "look first with --dry-run", printer)
}

/// Asks whether to remove revoked devices, too. Without a terminal the answer is no.
pub(super) fn revoked(devices: usize, printer: &mut Printer) -> bool {
    let devices = count(devices, "of them is a revoked device", "of them are revoked devices");
    let question = format!(
        "{devices}. A device that is removed can register again, and is then allowed. Type revoked to remove those \
         too, anything else to go on: "
    );
    confirm::word(&question, "revoked", printer)
}
