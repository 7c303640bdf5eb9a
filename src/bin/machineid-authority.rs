//! A self-hosted authority. See [`machineid_authority`].

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    machineid_authority::command::run(std::env::args_os()).into()
}
