//! The supervised runs: which there are, on what lease, and their end.
//!
//! | file | concept |
//! |---|---|
//! | `run` | one run, from its question to its end |
//! | `reach` | its processes, held in advance |
//! | `containment` | what holds its tree together |
//! | `ancestors` | the line of a process's ancestors |
//! | `inside` | pure: in which runs' trees a process is |
//! | `token` | its key for the daemon's own listener |
//! | `freeze` | pure: whether it is to be frozen |
//! | `roster` | which runs there are, and how the newest stops went |
//! | `run_registry` | admits, tells and stops them |
//! | `enforcer` | the thread that ends their trees |
//! | `ledger` | the runs as they are written down |
//! | `adoption` | what becomes of those that a daemon before us wrote down |

mod adoption;
mod ancestors;
pub(crate) mod containment;
mod enforcer;
mod freeze;
mod inside;
mod ledger;
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
