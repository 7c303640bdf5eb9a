//! The registry: the supervised runs, their leases and their end.
//!
//! | file | concept |
//! |---|---|
//! | `run` | one run, from its question to its end |
//! | `reach` | the processes of a run, held by descriptors |
//! | `containment` | what holds a run's tree together |
//! | `inside` | pure: in which runs' trees a process is |
//! | `token` | an agent's key for the daemon's own listener |
//! | `freeze` | pure: whether a run is frozen |
//! | `roster` | the runs there are, and the newest stops |
//! | `run_registry` | admits runs, updates them and stops them |
//! | `enforcer` | the thread that ends their trees |
//! | `ledger` | the records of the runs on disk |
//! | `outside` | what agents use outside their trees |
//! | `adoption` | what this daemon does about the runs of a previous daemon |

mod adoption;
pub(crate) mod containment;
mod enforcer;
mod freeze;
mod inside;
mod ledger;
mod outside;
pub(crate) mod reach;
mod roster;
pub(crate) mod run;
pub(crate) mod run_registry;
mod token;

pub(crate) use containment::RunContainment;
pub(crate) use ledger::fuzz_record;
pub(crate) use ledger::{Here, Store};
pub(crate) use roster::{Census, DeviceAgents};
pub(crate) use run::{AskedTerms, Opened, Run};
pub(crate) use run_registry::{Refused, RunRegistry, StartTerms};
pub(crate) use token::{Token, TokenHash};
