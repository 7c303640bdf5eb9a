//! The parts of the settings that gates and stops use.

use std::time::Duration;

use rustix::process::Signal;

/// The settings of a gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The longest time between the beginnings of two validations.
    pub(crate) interval: Duration,
    /// How long one ALLOW lasts for running agents.
    pub(crate) lease: Duration,
    /// How long after waking an ALLOW may take, when the lease ended during a suspend.
    pub(crate) resume_grace: Duration,
    /// The effect of the authority's `SYSTEM_UNAVAILABLE`.
    pub(crate) system_unavailable: SystemUnavailable,
}

/// The effect of the authority's `SYSTEM_UNAVAILABLE` on running agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemUnavailable {
    /// It stops them at once.
    Deny,
    /// It is handled like a network failure: they run on to the end of their lease.
    Retry,
}

/// How an agent is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopTerms {
    pub(crate) signal: Signal,
    pub(crate) grace: Duration,
}
