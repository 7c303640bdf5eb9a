//! End-to-end tests: real binaries, real sockets, real processes.
#![allow(clippy::unwrap_used, reason = "in a fixture as in a test, what should not happen should be loud")]

mod authority;
mod daemon;
mod harness;
