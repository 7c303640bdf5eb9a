//! The command line of `machineid-authority`.

mod org;
mod serve;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand};

use crate::protocol::Exit;
use crate::version::VERSION;

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
enum Command {
    /// Serve the API until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Administer the organisations of a running authority, through its admin socket
    Org(org::Org),
}

/// The command line, for manual pages and completions.
#[cfg(test)]
pub(crate) fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the program and says how it went.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are "errors" of clap's that go to stdout and are none.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success };
        }
    };
    match arguments.command {
        Command::Serve(serve) => serve.run(),
        Command::Org(org) => org.run(),
    }
}

/// Says on stderr what went wrong.
fn complain(problem: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "machineid-authority: {problem}");
}

/// `sqlite:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Database(PathBuf);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DatabaseError {
    Postgres,
    InMemory,
    NoPath,
    Unknown,
}

impl FromStr for Database {
    type Err = DatabaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(DatabaseError::Postgres);
        }
        let path = text.strip_prefix("sqlite:").ok_or(DatabaseError::Unknown)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        match path {
            "" => Err(DatabaseError::NoPath),
            ":memory:" => Err(DatabaseError::InMemory),
            path => Ok(Self(path.into())),
        }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL is not supported by this version; use sqlite:PATH",
            Self::InMemory => "a database in memory would forget every revoke with the process; use sqlite:PATH",
            Self::NoPath => "the path is missing; write sqlite:PATH, as in sqlite:/var/lib/machineid/authority.db",
            Self::Unknown => "not a database this version knows; use sqlite:PATH",
        })
    }
}

impl std::error::Error for DatabaseError {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_database_is_a_path_behind_sqlite() {
        for (text, path) in [("sqlite:a.db", "a.db"), ("sqlite:/x/a.db", "/x/a.db"), ("sqlite:///x/a.db", "/x/a.db")] {
            assert_eq!(text.parse(), Ok(Database(path.into())), "{text}");
        }
        for (text, error) in [
            ("postgres://h/db", DatabaseError::Postgres),
            ("postgresql://h/db", DatabaseError::Postgres),
            ("sqlite::memory:", DatabaseError::InMemory),
            ("sqlite:", DatabaseError::NoPath),
            ("a.db", DatabaseError::Unknown),
        ] {
            assert_eq!(text.parse::<Database>(), Err(error), "{text}");
        }
    }
}
