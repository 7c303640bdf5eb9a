//! The commands about the organisation: they ask the authority.

mod agenda;
pub(super) mod approvals;
mod batches;
pub(super) mod billing;
mod confirm;
mod connect;
pub(super) mod each;
mod follow;
mod ids;
pub(super) mod keys;
pub(super) mod list;
mod news;
mod outcome;
mod preview;
mod progress;
pub(super) mod revoke;
pub(super) mod unrevoke;
pub(super) mod validate;
mod waiting;
