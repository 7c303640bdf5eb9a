//! The wrapper; see the library's `run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    machineid_sidecar::run::main()
}
