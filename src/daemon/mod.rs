//! `machineid-sidecar`: from the command line to the exit code.
//!
//! | file | concept |
//! |---|---|
//! | `command` | the command line |
//! | `check_config` | `--check-config` |
//! | `identity` | the device id of this host |
//! | `keyless` | waits for the org key, and denies meanwhile |
//! | `init` | reaps orphans when the daemon is the first process |
//! | `sidecar` | assembly and shutdown of everything that runs |
//! | `reload` | a changed configuration, key or kill file, without a restart |
//! | `signals` | the signals that the daemon acts on or passes on |
//! | `upkeep` | recreates the daemon's own files when they are gone |
//! | `child` | `-- COMMAND`: a wrapper that the daemon starts |
//! | `dev` | `--dev`: an authority of its own |
//! | `healthcheck` | `machineid-sidecar healthcheck`, for container platforms |

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

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use command::{Command, Verb};
use machineid_authority::EmbeddedError;
use machineid_org_key::OrgKeyError;
use machineid_protocol::Exit;
use machineid_protocol::device_id::DeviceIdError;
use machineid_sys::ScrubError;
use thiserror::Error;

use crate::config::org_key::KEY_VARIABLE;
use crate::config::{ConfigError, Environment};

/// The command line, for manual pages and completions.
#[cfg(test)]
fn command() -> clap::Command {
    <Command as clap::CommandFactory>::command()
}

/// Runs the daemon as its command line says. The same program is also the other three, under their names: the daemon starts
/// its own wrapper that way, and `--dev` provides the operator's commands without building anything else.
#[must_use]
pub fn main() -> ExitCode {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    match called.as_ref().and_then(|path| path.file_name()).and_then(|name| name.to_str()) {
        Some("machineid-run") => return machineid_run::main(std::env::args_os().skip(1)).into(),
        Some("machineid") => return machineid_cli::main().into(),
        Some("machineid-authority") => return machineid_authority::command::run(std::env::args_os()).into(),
        _ => {}
    }
    machineid_sys::keep_name_services_inside();
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            // Help and version also come as errors.
            let _ = error.print();
            remedy(&error);
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
        Err(error) => {
            complain(&error.to_string());
            // In front of a command our own failures must not look like the command's.
            if wraps { Exit::Wrapper.into() } else { Exit::Usage.into() }
        }
    }
}

/// A command without `--` before it is taken for an argument of the daemon's.
fn remedy(error: &clap::Error) {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let taken = matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand);
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let has_separator = arguments.iter().any(|argument| argument == "--");
    let refused = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|kind| {
        let Some(ContextValue::String(refused)) = error.get(kind) else { return None };
        arguments.iter().position(|argument| argument == refused.as_str() && !refused.starts_with('-'))
    });
    if let Some(first) = refused.filter(|_| taken && !has_separator) {
        let shown: Vec<_> = arguments[..first].iter().map(|option| option.to_string_lossy() + " ").collect();
        let name: String = machineid_protocol::printable::printable(&arguments[first].to_string_lossy(), '?').collect();
        complain(&format!(
            "to run a command under enforcement, write -- before it: machineid-sidecar {}-- {name}",
            shown.concat()
        ));
    }
}

/// Why the daemon did not start or had to end. The text is for the operator.
#[derive(Debug, Error)]
enum Fatal {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key in the environment is not one.
    #[error("{KEY_VARIABLE}: {0}")]
    Key(#[source] OrgKeyError),
    #[error("cannot take {KEY_VARIABLE} out of the environment: {0}")]
    ScrubKey(#[source] ScrubError),
    /// `/proc` does not show this process's namespace.
    #[error(transparent)]
    Proc(Box<dyn Error + Send + Sync>),
    #[error("cannot {what}: {}", machineid_sys::io_in_words(source))]
    Io { what: String, source: io::Error },
    #[error(
        "cannot read which devices are held on this host from {}: {source}; repair the file, or remove it to release them \
         all", .path.display()
    )]
    Holds { path: PathBuf, source: io::Error },
    /// The wrapper of `-- COMMAND` cannot be waited for.
    #[error("lost machineid-run: {0}")]
    WrapperLost(#[source] io::Error),
    /// The authority of `--dev` did not start.
    #[error(transparent)]
    Dev(#[from] EmbeddedError),
    #[error(transparent)]
    DevDevice(#[from] DeviceIdError),
}

impl Fatal {
    /// Says what the daemon could not do: `what` follows "cannot".
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

fn run(command: Command) -> Result<Exit, Fatal> {
    let environment = Environment::of_process();
    if let Some(Verb::Healthcheck { ready }) = command.verb {
        return healthcheck::run(command.config.as_deref(), ready, &environment);
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
