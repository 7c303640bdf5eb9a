//! The command line of `machineid-authority`.

mod backup;
mod console;
mod keys;
mod org;
mod serve;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use machineid_protocol::Exit;
use machineid_version::VERSION;

use super::admin_socket_of;
use super::database::Database;

const EXAMPLES: &str = "\
Examples:
  machineid-authority serve --database sqlite:/var/lib/machineid/authority.db
  machineid-authority org create --name acme
                                 --database sqlite:/var/lib/machineid/authority.db";

/// A self-hosted authority for machineid-sidecar: decides which devices may execute.
#[derive(Debug, Parser)]
#[command(name = "machineid-authority", version = VERSION, max_term_width = 80, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "these are help texts, in which backticks would show")]
enum Command {
    /// Serve the API until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Write a copy of a running authority's SQLite database, without stopping it
    Backup(backup::Backup),
    /// Administer the organisations of a running authority, through its admin socket
    Org(org::Org),
    /// Print an address where a browser signs in to the console as the operator of a running authority: once, within
    /// five minutes
    ConsoleLink(console::ConsoleLink),
}

/// The command line, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the program and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    machineid_sys::keep_name_services_inside();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap reports help and version as "errors"; they go to stdout and are no failures.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success };
        }
    };
    match arguments.command {
        Command::Serve(serve) => serve.run(),
        Command::Backup(backup) => backup.run(),
        Command::Org(org) => org.run(),
        Command::ConsoleLink(link) => link.run(),
    }
}

/// Prints a problem on stderr.
fn complain(problem: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "machineid-authority: {problem}");
}

/// The admin socket selected by these flags; prints a problem when they select none.
fn socket(named: Option<PathBuf>, database: Option<Database>) -> Option<PathBuf> {
    match (named, database) {
        (Some(path), _) => Some(path),
        (None, Some(Database::Sqlite(path))) => Some(admin_socket_of(&path)),
        (None, Some(Database::Postgres(_))) => {
            complain(
                "a server on PostgreSQL has its admin socket where --admin-socket put it: name it with \
                 --admin-socket PATH",
            );
            None
        }
        (None, None) => {
            complain("name the authority: --database sqlite:PATH as it was served, or --admin-socket PATH");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
