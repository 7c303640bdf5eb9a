//! Threads and tasks whose panic ends the process.
//!
//! A daemon whose enforcer has died would answer "stopped" and stop nothing. So the whole process ends when a thread or
//! task that enforces panics.

use std::process::abort;
use std::thread;

use tracing::error;

use crate::lines::flush;

/// Held by a vital thread or task while it works. When the holder panics, the whole process ends.
///
/// The end of a daemon takes effect: the agents are stopped when their leases end, and the service manager restarts the
/// daemon. Catching the panic and going on was rejected: nothing is known about the state it left.
#[derive(Debug)]
pub struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            error!(
                "a task that enforcement needs has panicked; exiting, so that the service manager restarts the daemon"
            );
            flush();
            abort();
        }
    }
}
