//! `machineid-authority backup FILE`: copies the database of a running authority.
//!
//! The server itself writes the copy, so the copy belongs to the server's user, and no other user needs access to the
//! database.

use std::path::PathBuf;

use clap::Args;
use machineid_protocol::Exit;

use super::{complain, socket};
use crate::admin::{AdminCall, AdminReply, AdminRequest, ask};
use crate::database::Database;

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, in which backticks would show")]
pub(super) struct Backup {
    /// The running server's admin socket
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// The running server's SQLite database, beside which its admin socket is unless it was put elsewhere
    #[arg(long, value_name = "sqlite:PATH", conflicts_with = "admin_socket")]
    database: Option<Database>,
    /// The copy, which must not exist: a whole database, to be served as it is
    file: PathBuf,
}

impl Backup {
    pub(super) fn run(self) -> Exit {
        let Some(socket) = socket(self.admin_socket, self.database) else { return Exit::Usage };
        // The server has its own working directory, so the path is made absolute.
        let to = match std::path::absolute(&self.file) {
            Ok(to) => to,
            Err(error) => {
                complain(format_args!("cannot make the path {} absolute: {error}", self.file.display()));
                return Exit::Failure;
            }
        };
        match ask(&socket, &AdminCall { request: AdminRequest::BackUp { to }, reason: None }) {
            Ok(AdminReply::BackedUp) => Exit::Success,
            Ok(AdminReply::Failed(problem)) => {
                complain(problem);
                Exit::Failure
            }
            Ok(_) => {
                complain("the authority sent an unexpected answer; use the same version as the server");
                Exit::Failure
            }
            Err(error) => {
                complain(error);
                Exit::Failure
            }
        }
    }
}
