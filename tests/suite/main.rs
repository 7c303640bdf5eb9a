//! End-to-end tests: real binaries, real sockets, real processes. One test binary: one link instead of one a file.
#![allow(clippy::unwrap_used, reason = "in a fixture as in a test, what should not happen should be loud")]
#![allow(clippy::print_stderr, reason = "a failing test shows what the processes under test said")]

mod authority;
mod cli;
mod console;
mod daemon;
mod documentation;
mod end_to_end;
mod examples;
mod faults;
mod harness;
mod hostile;
mod run;
#[path = "../security/mod.rs"]
mod security;
mod slim;
mod source;
mod transparency;
mod traps;
