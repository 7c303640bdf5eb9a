//! Panics are logged and counted, and tasks that enforce nothing are restarted after one.
//!
//! A thread or task is either vital ([`crate::Vital`]), or it enforces nothing and is restarted ([`kept_up`],
//! [`keep_up`]). A single piece of work may panic and end: a validation, a connection, a call on a thread for calls
//! that block. Its caller gets an error, the log says where, and a metric counts it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::error;

/// The pause before a task is restarted: it may panic again at once.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 1000 });

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Has panics of this process logged and counted. The default hook writes to stderr at once, and a terminal that is
/// held with Ctrl-S would block the thread that panics.
pub fn tell_panics() {
    panic::set_hook(Box::new(tell));
}

fn tell(panicked: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let thread = thread::current();
    let (thread, message) = (thread.name().unwrap_or("unnamed"), panicked.payload_as_str().unwrap_or("no message"));
    let place = panicked.location().map(ToString::to_string).unwrap_or_default();
    // Captured only where RUST_BACKTRACE asks for one.
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(trace));
    error!(thread, place, message, trace, "internal error: the program panicked; please report this");
}

/// The number of panics of this process so far.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Runs a task that enforces nothing, and restarts it when it panics. Returns when the task returns.
pub async fn kept_up<F: Future<Output = ()>>(name: &'static str, task: impl Fn() -> F) {
    while AssertUnwindSafe(async { task().await }).catch_unwind().await.is_err() {
        starting_again(name);
        tokio::time::sleep(AGAIN).await;
    }
}

/// Does a thread's work that enforces nothing, and restarts it when it panics. Returns when the work returns.
pub fn keep_up(name: &'static str, mut work: impl FnMut()) {
    while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
        starting_again(name);
        thread::sleep(AGAIN);
    }
}

fn starting_again(name: &'static str) {
    error!(name, "a task of the daemon panicked; restarting it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_enforces_nothing_is_started_again_when_it_panics_at_once_or_later() {
        let starts = AtomicU64::new(0);
        let task = || {
            let start = starts.fetch_add(1, Ordering::SeqCst);
            assert_ne!(start, 0, "on purpose, before it is a task");
            async move {
                tokio::task::yield_now().await;
                assert_ne!(start, 1, "on purpose, in the middle");
            }
        };
        kept_up("test", task).await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_threads_work_goes_on_after_a_panic() {
        let mut rounds = 0;
        keep_up("test", || {
            rounds += 1;
            assert_ne!(rounds, 1, "on purpose");
        });
        assert_eq!(rounds, 2);
    }
}
