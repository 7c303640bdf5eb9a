//! The supervised runs: which there are, on what lease, and their end.
//!
//! [`run`] is one of them, [`record`] which there are; [`registry`] admits and stops them, and [`enforcer`] is the thread
//! that ends their trees.

mod enforcer;
mod record;
pub(crate) mod registry;
pub(crate) mod run;

pub(crate) use registry::{Refused, Runs};
pub(crate) use run::{Opened, Run};
