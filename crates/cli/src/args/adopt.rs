//! The arguments of `machineid adopt`.

use clap::Args;
use machineid_protocol::DeviceId;

use super::SocketArgs;

const HELP: &str = "\
The process and all its descendants are then an agent like any other: it lives on its device's lease and is stopped at a \
deny. It has no wrapper, so its exit code is its parent's to see, and a dead daemon cannot stop it. Its end ends what it \
left. Root, the daemon's user and local.admin_group may adopt the processes of all users, others their own.

Exit codes: 0 supervised, 1 refused, 2 wrong usage, 75 no decision or no daemon, 77 denied (nothing was adopted).";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct AdoptArgs {
    /// The process
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
    /// The agent's own device; without it, the host's counts
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<DeviceId>,
    /// A name for people, shown by machineid status
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}
