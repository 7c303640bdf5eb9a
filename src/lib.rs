//! Makes AI agents stoppable. A library for its own four programs; nothing here is a stable interface.
//!
//! - [`protocol`]: the words on the wires, as types that cannot be wrong
//! - [`clock`], [`span`]: the boot clock; durations as people write them
//! - [`authority`]: the self-hosted authority: who may execute

#[cfg(feature = "services")]
pub mod authority;
pub mod clock;
pub mod protocol;
pub mod span;
