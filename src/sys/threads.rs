//! Whether the process has one thread only, on which the safety of `fork` and of changing the environment rests.

/// `Some(true)` when no other thread runs; `None` when `/proc` does not tell.
pub(super) fn is_single_threaded() -> Option<bool> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.take(2).count() == 1)
}
