//! Threads and tasks without which nothing is enforced.

use std::process::abort;
use std::thread;

/// Held by such a thread or task while it works. When that panics the whole process ends.
///
/// A daemon that answers on without its enforcer would say "stopped" and stop nobody. One that is gone is missed: its
/// wrappers live on their leases at the longest, and whoever started it starts it again. Catching the panic and going on
/// was rejected: nothing is known about the state it left.
#[derive(Debug)]
pub(crate) struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            abort();
        }
    }
}
