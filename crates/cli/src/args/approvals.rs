//! What can be typed behind `machineid approvals`, `approve`, `reject`, `org disable` and `org enable`.

use clap::Args;

use super::{KeyArgs, reason};

#[derive(Debug, Args)]
pub(crate) struct ApprovalsArgs {
    /// Also those that were approved, rejected, void or expired within 30 days
    #[arg(long)]
    pub(crate) all: bool,
    /// Print the requests as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ApprovalArgs {
    /// The request's number
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The reason, in one line: kept in the authority's audit
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: Option<String>,
    /// Print the request as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DisableArgs {
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
    /// The reason, in one line: kept in the authority's audit
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: Option<String>,
    /// Print the state of the switches as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// The reason, in one line: kept in the authority's audit
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: Option<String>,
    /// Print the state of the switches as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}
