//! End-to-end tests: real binaries, real sockets, real processes.

mod authority;
mod harness;
