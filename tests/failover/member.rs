//! One sidecar with its agent.

use std::path::Path;

use crate::agent::Agent;
use crate::harness::sidecar::{Setup, Sidecar};

/// The device of the sidecar with this number.
pub(crate) fn device(member: usize) -> String {
    format!("m{member:02}")
}

/// What the sidecars are set to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) interval: &'static str,
    pub(crate) lease: &'static str,
    pub(crate) grace: &'static str,
    /// What `SYSTEM_UNAVAILABLE` does.
    pub(crate) system_unavailable: &'static str,
}

pub(crate) struct Member {
    /// Before the sidecar, so that it is dropped first.
    pub(crate) agent: Option<Agent>,
    pub(crate) sidecar: Sidecar,
    pub(crate) number: usize,
    /// How many agents there were.
    starts: usize,
}

impl Member {
    /// Starts the sidecar, for an authority at this address.
    pub(crate) fn start(number: usize, url: &str, key: &str, settings: Settings) -> Self {
        let mut setup = Setup::new(url, key, &device(number));
        let Settings { interval, lease, grace, system_unavailable } = settings;
        setup.enforcement = format!(
            "interval = \"{interval}\"\nlease = \"{lease}\"\nstop_grace = \"{grace}\"\n\
             system_unavailable = \"{system_unavailable}\""
        );
        Self { agent: None, sidecar: setup.start(), number, starts: 0 }
    }

    /// Starts its agent anew. Every fourth one ignores SIGTERM.
    pub(crate) fn start_agent(&mut self, program: &Path) -> Result<(), String> {
        self.starts += 1;
        let agent = Agent::start(&self.sidecar, program, self.starts, self.number % 4 == 3)?;
        self.agent = Some(agent);
        Ok(())
    }
}
