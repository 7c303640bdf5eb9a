//! Makes AI agents stoppable. A library for its own four programs; nothing here is a stable interface.
//!
//! - [`protocol`]: the words on the wires, as types that cannot be wrong
//! - `client`: asks an authority; `cli`: the operator's command line
//! - [`socket_path`]: where a client looks for the daemon's socket
//! - [`clock`], [`span`]: the boot clock; durations as people write them
//! - [`authority`]: the self-hosted authority: who may execute

#[cfg(feature = "services")]
pub mod authority;
#[cfg(feature = "services")]
pub mod cli;
#[cfg(feature = "services")]
pub mod client;
pub mod clock;
pub mod protocol;
pub mod socket_path;
pub mod span;
