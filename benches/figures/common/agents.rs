//! Supervised agents that do nothing.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::daemon::{Daemon, wrapper};
use super::process::Guarded;
use super::{Outcome, until};

/// Long enough for any benchmark, and an end of its own should everything else fail.
const SLEEP: [&str; 2] = ["sleep", "600"];

/// Wrappers in front of sleeping commands. All are ended when dropped.
pub(crate) struct Agents(Vec<Guarded>);

impl Agents {
    /// Starts them and waits until the daemon supervises every one.
    pub(crate) fn start(daemon: &Daemon, count: usize) -> Outcome<Self> {
        Self::start_under(&wrapper(), daemon, count)
    }

    /// The same with this wrapper.
    pub(crate) fn start_under(wrapper: &Path, daemon: &Daemon, count: usize) -> Outcome<Self> {
        let mut agents = Self(Vec::with_capacity(count));
        for _ in 0..count {
            agents.0.push(Guarded::start(daemon.wrap_with(wrapper, &[], &SLEEP).stderr(Stdio::inherit()))?);
        }
        until("every agent is supervised", || (daemon.agents().ok()? == count).then_some(()))?;
        Ok(agents)
    }

    /// The guardians' pids: of each wrapper the child that is the same program.
    pub(crate) fn guardians(&self) -> impl Iterator<Item = u32> {
        self.wrappers().filter_map(|wrapper| {
            let children = fs::read_to_string(format!("/proc/{wrapper}/task/{wrapper}/children")).ok()?;
            children.split_whitespace().find_map(|child| child.parse().ok())
        })
    }

    /// The wrappers' pids.
    pub(crate) fn wrappers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(Guarded::pid)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        // All at once: a wrapper hands SIGTERM on, and ends with its command.
        self.0.iter().for_each(Guarded::terminate);
        for wrapper in &mut self.0 {
            // One that does not is killed, and takes the command along.
            let _ = until("the wrapper ends", || wrapper.has_ended().then_some(()));
        }
    }
}
