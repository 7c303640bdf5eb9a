//! What the figures share: the real programs, started and certainly ended; load; numbers and tables.

pub(crate) mod agents;
pub(crate) mod authority;
pub(crate) mod bare_server;
pub(crate) mod daemon;
pub(crate) mod delayed;
pub(crate) mod instant;
pub(crate) mod load;
// What the suite starts and looks for as well; each uses a part of it.
#[path = "../../../tests/suite/traps/census.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the suite")]
pub(crate) mod census;
#[path = "../../../tests/suite/harness/place.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the suite")]
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod samples;
#[path = "../../../tests/suite/traps/shapes.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the suite")]
pub(crate) mod shapes;
pub(crate) mod signal_trace;
pub(crate) mod stages;
pub(crate) mod static_build;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a step of a benchmark comes to. An error ends the program with its message, after everything was taken down.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How long anything may take that is not being measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One of the programs that are measured: the one that was built with this benchmark, or the one of that name in the
/// directory that `MACHINEID_PROGRAMS` names, so that one benchmark measures two builds.
pub(crate) fn program(built: &str) -> PathBuf {
    let built = Path::new(built);
    #[expect(clippy::disallowed_methods, reason = "which build is measured is said where the benchmark is started")]
    let elsewhere = std::env::var_os("MACHINEID_PROGRAMS");
    match (elsewhere, built.file_name()) {
        (Some(directory), Some(name)) => Path::new(&directory).join(name),
        (Some(_) | None, _) => built.to_owned(),
    }
}

/// The clock of everything measured here.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures on a clock that no program of ours decides by")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What a clock of the kernel's shows: for times that another process says.
pub(crate) fn time_on(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// Asks again and again until there is an answer; an error naming `what` when none comes in time.
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> Outcome<T> {
    within(PATIENCE, what, ask)
}

/// The same with another time.
pub(crate) fn within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> Outcome<T> {
    let deadline = now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if now() >= deadline {
            return Err(format!("waited {patience:?} in vain: {what}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Leaves a command nothing of our environment that could change what is measured.
pub(crate) fn clean_environment(command: &mut Command, home: &Path) {
    #[expect(clippy::disallowed_methods, reason = "passes the search path on")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", home).env("STATE_DIRECTORY", home.join("state"));
}
