//! `machineid-sidecar`: from the command line to the exit code.
//!
//! | file | concept |
//! |---|---|
//! | `command` | the command line |
//! | `check_config` | `--check-config` |
//! | `identity` | which device this host is |
//! | `keyless` | waits for the org key, and denies meanwhile |
//! | `init` | reaps orphans where it is the first process |
//! | `sidecar` | everything that runs, put together and taken down |
//! | `reload` | a changed configuration, key or kill file, without a restart |
//! | `signals` | what it acts on, what it passes on |
//! | `upkeep` | makes its own files again when they are gone |
//! | `child` | `-- COMMAND`: a wrapper of our own |
//! | `dev` | `--dev`: an authority of our own |
//! | `healthcheck` | `healthcheck` |

mod check_config;
mod child;
mod command;
mod dev;
#[cfg(test)]
mod documents;
mod healthcheck;
mod identity;
mod init;
mod keyless;
mod manager;
mod reload;
mod resume;
mod sidecar;
mod signals;
mod upkeep;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use command::{Command, Verb};
use machineid_protocol::Exit;

use crate::config::Environment;

/// The command line, for manual pages and completions.
#[cfg(test)]
fn command() -> clap::Command {
    <Command as clap::CommandFactory>::command()
}

/// Runs the daemon as its command line says. The same program is also the other three, under their names: the daemon
/// starts its own wrapper that way, and `--dev` hands out the operator's commands without anything else being built.
#[must_use]
pub fn main() -> ExitCode {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    match called.as_ref().and_then(|path| path.file_name()).and_then(|name| name.to_str()) {
        Some("machineid-run") => return machineid_run::main(std::env::args_os().skip(1)).into(),
        Some("machineid") => return machineid_cli::main().into(),
        Some("machineid-authority") => return machineid_authority::command::run(std::env::args_os()).into(),
        _ => {}
    }
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            // Help and version come this way too.
            let _ = error.print();
            return match error.use_stderr() {
                false => Exit::Success.into(),
                // In front of a command our own failures must not look like the command's.
                true if std::env::args_os().any(|argument| argument == "--") => Exit::Wrapper.into(),
                true => Exit::Usage.into(),
            };
        }
    };
    let wraps = !command.agent.is_empty();
    let result = run(command);
    machineid_log::flush();
    match result {
        Ok(exit) => exit.into(),
        Err(Fatal(message)) => {
            complain(&message);
            // In front of a command our own failures must not look like the command's.
            if wraps { Exit::Wrapper.into() } else { Exit::Usage.into() }
        }
    }
}

/// Why nothing was started, for the operator.
struct Fatal(String);

impl<E: std::error::Error> From<E> for Fatal {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn run(command: Command) -> Result<Exit, Fatal> {
    let environment = Environment::of_process();
    if let Some(Verb::Healthcheck) = command.verb {
        return healthcheck::run(command.config.as_deref(), &environment);
    }
    if command.check_config {
        return check_config::run(command.config.as_deref(), command.max_stop, &environment);
    }
    if command.dev {
        return dev::run(command.agent);
    }
    sidecar::run(command.config.as_deref(), command.agent, &environment)
}

fn complain(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "machineid-sidecar: {message}");
}
