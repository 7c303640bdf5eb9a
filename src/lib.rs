//! Makes AI agents stoppable. A library for its own four programs; nothing here is a stable interface.
//!
//! - [`protocol`]: the words on the wires, as types that cannot be wrong
//! - `client`: asks an authority
//! - [`clock`], [`span`]: the boot clock; durations as people write them
//! - [`sys`]: the only unsafe code
//! - [`tree`]: a process tree and how to end it

#[cfg(feature = "services")]
pub mod client;
pub mod clock;
mod gate;
pub mod protocol;
pub mod span;
pub mod sys;
pub mod tree;
