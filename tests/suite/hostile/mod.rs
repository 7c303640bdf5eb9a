//! What an attacker, a broken host or a bad night does to the real binaries.

mod bad_input;
mod bystander;
mod clients;
mod descriptors;
mod floods;
pub(crate) mod limits;
mod log;
pub(crate) mod places;
mod sandboxes;
mod strangers;
