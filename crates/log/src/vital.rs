//! Threads and tasks whose end must not go unnoticed.
//!
//! A daemon that answers on without its enforcer would say "stopped" and stop nothing. So the whole process ends when a
//! thread or task that enforces panics, and that is missed.

use std::process::abort;
use std::thread;

use tracing::error;

use crate::lines::flush;

/// Held by a vital thread or task while it works. When that panics the whole process ends.
///
/// A daemon that has ended is missed: the agents end with their leases, and the service manager starts the daemon again.
/// Catching the panic and going on was rejected: nothing is known about the state it left.
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
