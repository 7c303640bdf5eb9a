//! `machineid hook`: the hook itself, and how it is put into agents' settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use machineid_hook::{Agent, Scope};
use machineid_protocol::{DeviceId, span};

use super::SOCKET_HELP;

const HOOK_HELP: &str = "\
machineid hook AGENT is what the agent starts: it reads the agent's event on stdin, asks the daemon, and answers in the agent's \
own form. A no always has a reason. Whatever goes wrong blocks the call: no daemon, no answer in time, an event that is no JSON. \
A denied session is ended where the agent can be told to end it. A hook is a second lock: machineid-run ends the process.

Exit codes: 0 the call may begin (copilot, mistral-vibe, cline and cursor: see stdout), 2 blocked, or wrong usage.";

/// Without a subcommand it is the hook.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = HOOK_HELP)]
pub(crate) struct HookArgs {
    #[command(subcommand)]
    pub(crate) command: Option<HookCommands>,
    #[command(flatten)]
    pub(crate) answer: HookAnswerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HookCommands {
    /// Put the hook into an agent's settings; safe to repeat. All other settings stay as they are, a copy is kept beside them
    Install(HookInstallArgs),
    /// Take the hook out of an agent's settings again
    Uninstall(HookUninstallArgs),
}

#[derive(Debug, Args)]
pub(crate) struct HookAnswerArgs {
    /// The agent that asks
    #[arg(value_name = "AGENT", value_parser = agents(), required = true)]
    pub(crate) agent: Option<Agent>,
    #[command(flatten)]
    pub(crate) how: HookHowArgs,
}

/// How the daemon is asked.
#[derive(Debug, Args)]
pub(crate) struct HookHowArgs {
    /// The device to ask about [default: the calling agent's own, else the host's]
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<DeviceId>,
    /// Block the call when there is no answer within this time [default: 3s]
    #[arg(long, value_name = "DURATION", value_parser = deadline)]
    pub(crate) timeout: Option<Duration>,
    #[arg(long, value_name = "PATH", help = SOCKET_HELP)]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct HookScopeArgs {
    /// The settings of the project in the working directory
    #[arg(long)]
    project: bool,
    /// Your own settings (the default)
    #[arg(long)]
    user: bool,
    /// The settings for all users of this host, which hold against their own
    #[arg(long)]
    managed: bool,
}

impl HookScopeArgs {
    pub(crate) const fn scope(&self) -> Scope {
        match (self.project, self.managed) {
            (true, _) => Scope::Project,
            (false, true) => Scope::Managed,
            (false, false) => Scope::User,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct HookInstallArgs {
    /// The agent
    #[arg(value_name = "AGENT", value_parser = agents())]
    pub(crate) agent: Agent,
    #[command(flatten)]
    pub(crate) scope: HookScopeArgs,
    /// Print what would be written, and change nothing
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) how: HookHowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HookUninstallArgs {
    /// The agent
    #[arg(value_name = "AGENT", value_parser = agents())]
    pub(crate) agent: Agent,
    #[command(flatten)]
    pub(crate) scope: HookScopeArgs,
}

fn agents() -> impl TypedValueParser<Value = Agent> {
    PossibleValuesParser::new(Agent::ALL.map(Agent::name)).try_map(|name| name.parse::<Agent>())
}

/// The longest deadline of a hook: below the time that every agent leaves its hooks, since a hook that is ended there lets
/// the call through.
const LONGEST: Duration = Duration::from_secs(10);

fn deadline(text: &str) -> Result<Duration, String> {
    let span = span::parse(text).map_err(|error| error.to_string())?;
    if span > LONGEST {
        Err("agents end a hook that takes long, and then let the call through: at most 10s".to_owned())
    } else {
        Ok(span)
    }
}
