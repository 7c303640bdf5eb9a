//! What the gates and the stops are told of the settings.

use std::time::Duration;

use rustix::process::Signal;

/// How the gate is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Time between the beginnings of validations.
    pub(crate) interval: Duration,
    /// How long one ALLOW lasts for running agents.
    pub(crate) lease: Duration,
    /// How long after waking an ALLOW may take to come, when the lease ended while the machine slept.
    pub(crate) resume_grace: Duration,
    /// What the authority's `SYSTEM_UNAVAILABLE` does.
    pub(crate) system_unavailable: SystemUnavailable,
}

/// What the authority's `SYSTEM_UNAVAILABLE` does to running agents.
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
