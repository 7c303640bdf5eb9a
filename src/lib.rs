//! Makes AI agents stoppable. A library for its own four programs; nothing here is a stable interface.
//!
//! | module | concept |
//! |---|---|
//! | [`protocol`] | the words on the wires, as types that cannot be wrong |
//! | `gate` | one device's answer, kept fresh; decides without I/O |
//! | `runs` | the supervised runs, and the thread that ends them |
//! | [`tree`] | a process tree and how to end it |
//! | `local` | the local socket |
//! | [`run`] | `machineid-run`, the wrapper |
//! | `daemon` | `machineid-sidecar`, put together |
//! | `push` | an authority that says when to ask |
//! | `report` | tells an authority what became of its stops |
//! | `client` | asks an authority |
//! | `authority` | a self-hosted authority |
//! | `cli` | the operator's command line |
//! | `config` | file, environment and host facts, as settings |
//! | `key_file` | reading an org key from a file |
//! | [`socket_path`] | where clients find the socket |
//! | `telemetry` | what operators are told |
//! | `printable` | foreign text, fit to be shown |
//! | `replace_file` | a file is replaced whole |
//! | `doubling` | pauses that double with each failure |
//! | `openapi` | descriptions of HTTP surfaces, made from the types that are sent |
//! | `descriptors` | how many a server may hold |
//! | `blocking` | threads for calls that may block |
//! | `vital` | what must not end unnoticed |
//! | [`clock`], `boot_timer`, [`span`] | the boot clock, waiting on it, durations as people write them |
//! | [`suspend`] | telling a suspend of the machine from a delay |
//! | `version` | which version this is |
//! | [`sys`] | the only unsafe code |
//! | `fuzzing` | what takes foreign bytes apart, for `fuzz/` and the tests |

#[cfg(feature = "services")]
pub mod authority;
#[cfg(feature = "services")]
mod blocking;
#[cfg(feature = "services")]
mod boot_timer;
#[cfg(feature = "services")]
pub mod cli;
#[cfg(feature = "services")]
pub mod client;
pub mod clock;
#[cfg(feature = "services")]
mod config;
#[cfg(feature = "services")]
pub mod daemon;
#[cfg(feature = "services")]
mod descriptors;
#[cfg(test)]
#[cfg(feature = "services")]
mod documents;
#[cfg(feature = "services")]
mod doubling;
#[cfg(all(feature = "services", any(test, feature = "fuzzing")))]
pub mod fuzzing;
#[cfg(feature = "services")]
mod gate;
#[cfg(feature = "services")]
mod key_file;
#[cfg(feature = "services")]
mod local;
#[cfg(feature = "services")]
mod openapi;
mod printable;
pub mod protocol;
#[cfg(feature = "services")]
mod push;
#[cfg(feature = "services")]
mod replace_file;
#[cfg(feature = "services")]
mod report;
pub mod run;
#[cfg(feature = "services")]
mod runs;
pub mod socket_path;
pub mod span;
pub mod suspend;
pub mod sys;
#[cfg(feature = "services")]
mod telemetry;
pub mod tree;
mod version;
#[cfg(feature = "services")]
mod vital;
