//! The daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    machineid_sidecar::daemon::main()
}
