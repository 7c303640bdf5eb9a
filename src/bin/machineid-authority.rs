//! A self-hosted authority. See [`machineid_sidecar::authority`].

use std::process::ExitCode;

fn main() -> ExitCode {
    machineid_sidecar::authority::command::run(std::env::args_os()).into()
}
