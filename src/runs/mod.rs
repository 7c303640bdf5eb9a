//! The supervised runs: which there are, on what lease, and their end.
//!
//! [`run`] is one of them, [`registry`] all of them; [`enforcer`] is the thread that ends trees.

pub(crate) mod enforcer;
pub(crate) mod registry;
pub(crate) mod run;

pub(crate) use enforcer::Enforcer;
pub(crate) use registry::{Refused, Runs};
pub(crate) use run::{Opened, Run};
