//! What the tests share.

pub(crate) mod scripted_daemon;
pub(crate) mod wrapper;

use std::time::Duration;

/// Long enough for anything on a loaded machine; nothing waits this long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `condition` holds; fails with `what` after [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    let pause = Duration::from_millis(5);
    while !condition() {
        assert!(waited < PATIENCE, "never happened: {what}");
        std::thread::sleep(pause);
        waited += pause;
    }
}
