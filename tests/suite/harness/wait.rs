//! Waiting for a condition instead of a time.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again and again until there is an answer. Panics with `what` when none comes in time.
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_for(PATIENCE, ask).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Asks again and again until there is an answer, and no longer than this.
#[expect(clippy::disallowed_methods, reason = "a test's own deadline")]
pub(crate) fn until_for<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `condition` holds. Panics with `what` when it does not in time.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}

/// Lets time pass, for tests of what its mere passing does: the end of a lease, a wrapper that wakes late. Never a way to
/// wait for something.
pub(crate) fn let_time_pass(span: Duration) {
    thread::sleep(span);
}

/// The time, for tests of how long something takes at least.
#[expect(clippy::disallowed_methods, reason = "a test's own measure")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}
