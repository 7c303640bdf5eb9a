//! What can be typed behind `machineid key`.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use machineid_protocol::{DevicePattern, KeyRole, span};

use super::{KeyArgs, reason};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key with a role and print it, this once
    Create(KeyCreateArgs),
    /// Show the keys with their roles and their last uses, never their texts
    List(KeyListArgs),
    /// Make a key invalid, now
    Revoke(KeyRevokeArgs),
    /// Make a key in the place of one and print it, this once; the old one stays valid for a while
    Rotate(KeyRotateArgs),
}

const ROLES_HELP: &str = "\
Roles: host registers, validates, watches and reports, and removes a device of its own while that is active (what a \
sidecar should hold); stop revokes and reads, and gives nothing back; read lists and reads; operate does all of these and \
unrevokes, removes and checks out; admin does everything, with keys, the execution switch and rotation.";

#[derive(Debug, Args)]
#[command(after_help = ROLES_HELP)]
pub(crate) struct KeyCreateArgs {
    /// What the key may do
    #[arg(long, value_name = "ROLE", value_parser = roles())]
    pub(crate) role: KeyRole,
    /// Of a host key: only devices whose ids match, as in 'k8s:*' [default: every device]
    #[arg(long, value_name = "PATTERN")]
    pub(crate) devices: Option<DevicePattern>,
    /// How long it is valid, as in 720h [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    pub(crate) expires: Option<Duration>,
    /// A name for people, also in the audit: letters, digits and . _ -
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The reason, in one line: kept in the authority's audit
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: Option<String>,
    /// Print the key as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

fn roles() -> impl TypedValueParser<Value = KeyRole> {
    PossibleValuesParser::new(KeyRole::ALL.map(KeyRole::as_str)).try_map(|name| name.parse::<KeyRole>())
}

#[derive(Debug, Args)]
pub(crate) struct KeyListArgs {
    /// Print the keys as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRevokeArgs {
    /// Its fingerprint or its name
    #[arg(value_name = "FINGERPRINT|NAME")]
    pub(crate) which: String,
    /// The reason, in one line: kept in the authority's audit
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: Option<String>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRotateArgs {
    /// Its fingerprint or its name
    #[arg(value_name = "FINGERPRINT|NAME")]
    pub(crate) which: String,
    /// How long the old key stays valid beside the new one; 0s ends it at once
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span::parse)]
    pub(crate) overlap: Duration,
    /// The reason, in one line: kept in the authority's audit
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: Option<String>,
    /// Print the key as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}
