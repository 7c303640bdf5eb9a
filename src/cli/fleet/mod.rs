//! The fleet: the verbs that ask the authority.

mod batches;
mod confirm;
mod connect;
pub(super) mod each;
mod ids;
pub(super) mod list;
mod outcome;
pub(super) mod plan;
mod preview;
pub(super) mod revoke;
pub(super) mod unrevoke;
pub(super) mod validate;
