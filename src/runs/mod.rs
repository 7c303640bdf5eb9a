//! The supervised runs: which there are, on what lease, and their end.
//!
//! | file | concept |
//! |---|---|
//! | `run` | one run, from its question to its end |
//! | `reach` | its processes, held in advance |
//! | `hold` | what holds its tree together |
//! | `ancestors` | the line of a process's ancestors |
//! | `inside` | pure: in which runs' trees a process is |
//! | `token` | its key for the daemon's own listener |
//! | `freeze` | pure: whether it is to be frozen |
//! | `record` | which runs there are, and how the newest stops went |
//! | `registry` | admits, tells and stops them |
//! | `enforcer` | the thread that ends their trees |
//! | `ledger` | the runs as they are written down |
//! | `adoption` | what becomes of those that a daemon before us wrote down |

mod adoption;
mod ancestors;
mod enforcer;
mod freeze;
pub(crate) mod hold;
mod inside;
mod ledger;
pub(crate) mod reach;
mod record;
pub(crate) mod registry;
pub(crate) mod run;
mod token;

pub(crate) use hold::Hold;
pub(crate) use ledger::fuzz_record;
pub(crate) use ledger::{Here, Store};
pub(crate) use record::{Census, OfDevice};
pub(crate) use registry::{Refused, Runs, Terms};
pub(crate) use run::{AskedTerms, Opened, Run};
pub(crate) use token::{Token, TokenHash};
