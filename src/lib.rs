//! Makes AI agents stoppable. A library for its own four programs; nothing here is a stable interface.
//!
//! - [`protocol`]: the words on the wires, as types that cannot be wrong
//! - [`clock`], [`span`]: the boot clock; durations as people write them
//! - [`socket_path`]: where a client looks for the daemon's socket
//! - [`run`]: `machineid-run`, the wrapper
//! - [`sys`]: the only unsafe code
//! - [`tree`]: a process tree and how to end it

pub mod clock;
pub mod protocol;
pub mod run;
pub mod socket_path;
pub mod span;
pub mod sys;
pub mod tree;
