//! The wrapper. The root package builds this file as well, beside the other programs.

#![forbid(unsafe_code)]

use std::panic;
use std::process::ExitCode;

use machineid_protocol::Exit;
use machineid_run as run;

fn main() -> ExitCode {
    // The panic's message is on stderr already. Rust's own exit code for it, 101, would look like the command's.
    panic::catch_unwind(|| run::main(std::env::args_os().skip(1))).unwrap_or(Exit::Wrapper).into()
}
