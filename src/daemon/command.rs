//! The command line of `machineid-sidecar`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use machineid_protocol::span;
use machineid_version::VERSION;

const EXAMPLES: &str = "\
Examples:
  machineid-sidecar --dev -- python3 agent.py
                                      try it: an authority of its own, no setup
  machineid-sidecar                   the daemon, with the configuration it finds
  machineid-sidecar -- python3 agent.py
                                      daemon and agent: a container's entrypoint
  machineid-sidecar --check-config --max-stop 30s
                                      is it valid, and is a stop fast enough?

Configuration: --config, else MACHINEID_CONFIG,
~/.config/machineid/machineid-sidecar.toml (not for root),
/etc/machineid/machineid-sidecar.toml. MACHINEID_ORG_KEY, MACHINEID_BASE_URL
and MACHINEID_DEVICE_ID override the file.

Exit codes with a COMMAND: its own; 128+n when a signal ended it; 77 denied; 75
could not find out; 125 failure of machineid-sidecar; 126 the command cannot be
executed; 127 it was not found. Without a COMMAND: 0 after SIGTERM or SIGINT,
2 invalid configuration or wrong usage.";

/// Asks an authority whether agents on this host may run, answers them on a unix socket, and stops supervised process
/// trees when they may not.
#[derive(Debug, Parser)]
#[command(name = "machineid-sidecar", version = VERSION, max_term_width = 80, after_help = EXAMPLES)]
pub(super) struct Command {
    /// The configuration file
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) config: Option<PathBuf>,

    /// Also start an authority with an organisation and its keys on this host, all removed at the end
    #[arg(long, conflicts_with_all = ["config", "check_config"])]
    pub(super) dev: bool,

    /// Check the configuration, print what it means, and exit
    #[arg(long, conflicts_with = "agent")]
    pub(super) check_config: bool,

    /// With --check-config: fail when a stop could take longer than this
    #[arg(long, value_name = "DURATION", value_parser = span::parse, requires = "check_config")]
    pub(super) max_stop: Option<Duration>,

    /// A command to supervise; its exit code is passed on
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) agent: Vec<OsString>,

    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Check whether the running daemon responds: exit code 0, or 75 when none does
    Healthcheck {
        /// Also whether it has a decision no older than the lease; a deny counts: a revoked host is ready
        #[arg(long)]
        ready: bool,
    },
}
