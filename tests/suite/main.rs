//! One integration test binary: one link instead of one a file.

#![allow(clippy::unwrap_used, reason = "a fixture that fails should end its test where it failed")]

mod cli;
