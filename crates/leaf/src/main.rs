//! The leaf helper. Serves on its standard input, a listening socket of the service manager, and ends when it is idle. The
//! root package builds this file as well, beside the other programs.

#![forbid(unsafe_code)]

use std::io::{Write, stderr, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

/// Time without a request after which the helper ends. The service manager starts it again for the next one.
const IDLE: Duration = Duration::from_mins(1);

const USAGE: &str = "machineid-leaf: makes control groups for agents of machineid-sidecar. It takes no arguments: its standard \
                     input must be a listening socket, as machineid-sidecar-leaf.socket passes it";

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None => {}
        Some(flag) if flag == "--version" => {
            let _ = writeln!(stdout(), "machineid-leaf {}", machineid_version::VERSION);
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            let _ = writeln!(stderr(), "{USAGE}");
            return ExitCode::from(2);
        }
    }
    match machineid_leaf::serve(&stdin(), IDLE) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "machineid-leaf: {error}");
            ExitCode::FAILURE
        }
    }
}
