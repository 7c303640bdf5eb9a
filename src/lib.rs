//! The daemon of machineid-sidecar, which makes AI agents stoppable: it answers for this host and ends process trees. A
//! library for the programs of this workspace; nothing here is a stable interface.
//!
//! | module | concept |
//! |---|---|
//! | [`daemon`] | the program: command line, assembly, reload, shutdown |
//! | `config` | file, environment and host facts, resolved into settings |
//! | `gate` | one device's answer, kept fresh; its core decides without I/O |
//! | `registry` | the supervised runs, and the thread that ends them |
//! | `local` | the local socket |
//! | `push` | the stream on which an authority says when to validate |
//! | `report` | reports to the authority about agents and stops |
//! | `telemetry` | events, audit file and metrics for operators |
//! | `disk` | file operations that several modules share |
//! | [`fuzzing`] | the parsers of untrusted bytes, for `fuzz/` and the tests |

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
