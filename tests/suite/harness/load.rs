//! How much of a time what is measured waited for the machine itself.

use std::fs;
use std::time::Duration;

/// What the machine may take where it does not say how busy it was.
const UNKNOWN: Duration = Duration::from_secs(5);
/// What any machine may take.
const LEAST: Duration = Duration::from_secs(1);

/// A moment from which on it is counted how long tasks waited for a processor, a disk or memory.
pub(crate) struct Stalls(Option<Duration>);

impl Stalls {
    pub(crate) fn from_now() -> Self {
        Self(stalled())
    }

    /// What to add to a promised time, since the moment: a test that runs beside others measures them as well.
    pub(crate) fn allowance(&self) -> Duration {
        let since = self.0.zip(stalled()).map(|(then, now)| now.saturating_sub(then));
        LEAST + since.unwrap_or(UNKNOWN)
    }
}

/// By the kernel's own account, all together since the machine's start. `None` where it keeps none.
fn stalled() -> Option<Duration> {
    ["cpu", "io", "memory"].into_iter().map(of_one).sum()
}

fn of_one(resource: &str) -> Option<Duration> {
    let pressure = fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?;
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    some.rsplit_once("total=")?.1.trim().parse().ok().map(Duration::from_micros)
}
