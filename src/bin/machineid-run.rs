//! The wrapper; see the library's `run`.

use std::panic;
use std::process::ExitCode;

use machineid_sidecar::protocol::Exit;
use machineid_sidecar::run;

fn main() -> ExitCode {
    // The panic's message is on stderr already. Rust's own exit code for it, 101, would read as the command's.
    panic::catch_unwind(|| run::main(std::env::args_os().skip(1))).unwrap_or(Exit::Wrapper).into()
}
