//! The operator's command line: this host and the fleet.

use std::process::ExitCode;

fn main() -> ExitCode {
    machineid_sidecar::cli::main().into()
}
