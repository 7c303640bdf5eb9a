//! Makes AI agents stoppable: the daemon, which answers for this host and ends process trees. A library for the programs of
//! this workspace; nothing here is a stable interface.
//!
//! | module | concept |
//! |---|---|
//! | [`daemon`] | `machineid-sidecar`, put together |
//! | `config` | file, environment and host facts, as settings |
//! | `gate` | one device's answer, kept fresh; decides without I/O |
//! | `registry` | the supervised runs, and the thread that ends them |
//! | `local` | the local socket |
//! | `push` | an authority that says when to ask |
//! | `report` | tells an authority what became of its stops |
//! | `telemetry` | what operators are told |
//! | `disk` | what these do alike on the disk |
//! | [`fuzzing`] | what takes foreign bytes apart, for `fuzz/` and the tests |

#![forbid(unsafe_code)]

mod config;
pub mod daemon;
mod disk;
pub mod fuzzing;
mod gate;
mod local;
mod push;
mod registry;
mod report;
mod telemetry;
