//! `machineid-authority console-link`: prints an address that signs an operator in to the console, once.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use machineid_protocol::Exit;

use super::{complain, socket};
use crate::admin::{AdminCall, AdminReply, AdminRequest, ask};
use crate::database::Database;
use crate::org::OrgId;

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, in which backticks would show")]
pub(super) struct ConsoleLink {
    /// The running server's admin socket
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// The running server's SQLite database, beside which its admin socket is unless it was put elsewhere
    #[arg(long, value_name = "sqlite:PATH", conflicts_with = "admin_socket")]
    database: Option<Database>,
    /// Lead to this organisation's pages instead of the list of all
    #[arg(long, value_name = "ID")]
    org: Option<OrgId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ConsoleLink {
    pub(super) fn run(self) -> Exit {
        let Some(socket) = socket(self.admin_socket, self.database) else { return Exit::Usage };
        let request = AdminRequest::ConsoleLink { org: self.org };
        match ask(&socket, &AdminCall { request, reason: None }) {
            Ok(AdminReply::Link(url)) => {
                let text = if self.json { serde_json::json!({ "url": url }).to_string() } else { url };
                let mut stdout = io::stdout();
                match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
                    Ok(()) => Exit::Success,
                    Err(error) => {
                        complain(format_args!("the address could not be printed: {error}"));
                        Exit::Failure
                    }
                }
            }
            Ok(AdminReply::Failed(problem)) => {
                complain(problem);
                Exit::Failure
            }
            Ok(_) => {
                complain("this version cannot read the authority's answer; use the same version as the server");
                Exit::Failure
            }
            Err(error) => {
                complain(error);
                Exit::Failure
            }
        }
    }
}
