//! The operator's command line: this host and the fleet.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    machineid_cli::main().into()
}
