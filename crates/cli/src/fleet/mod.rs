//! The commands that ask the authority about the fleet.

mod agenda;
mod batches;
mod confirm;
mod connect;
pub(super) mod each;
mod follow;
mod ids;
pub(super) mod list;
mod news;
mod outcome;
pub(super) mod plan;
mod preview;
mod progress;
pub(super) mod revoke;
pub(super) mod unrevoke;
pub(super) mod validate;
