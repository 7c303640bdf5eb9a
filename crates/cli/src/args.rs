//! The command line's arguments.

mod adopt;
mod approvals;
mod hook;
mod init;
mod keys;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use machineid_protocol::containment::WishError;
use machineid_protocol::{DeviceId, Wish, span};
use machineid_version::VERSION;

pub(super) use self::adopt::AdoptArgs;
pub(super) use self::approvals::{ApprovalArgs, ApprovalsArgs, DisableArgs, EnableArgs};
pub(super) use self::hook::{HookAnswerArgs, HookArgs, HookCommands, HookHowArgs, HookInstallArgs, HookUninstallArgs};
pub(super) use self::init::{CompletedProgram, CompletionArgs, InitArgs, Shell};
pub(super) use self::keys::{KeyCommand, KeyCreateArgs, KeyListArgs, KeyRevokeArgs, KeyRotateArgs};
use super::role::{self, Role};

const SOCKET_HELP: &str = "The daemon's socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, \
                           else $XDG_RUNTIME_DIR/machineid/sidecar.sock]";

const EXAMPLES: &str = "\
Examples:
  machineid check && ./work        do it only while this host is allowed
  machineid status                 what runs here, and how fast a stop is
  machineid hook install codex     ask before each tool call of an agent
  machineid init                   set up this host
  machineid doctor                 what enforcement lacks here, and the remedy
  machineid stop scraper           end an agent here, without the authority
  machineid list --revoked         the fleet's stopped devices
  machineid revoke agent-07        stop a device, wherever it runs
  machineid revoke --all-active    stop them all

Exit codes: 0 done or allowed, 1 failed or done in part, 2 wrong usage, 3 waits
for a second key, 75 could not find out, 77 denied (check, validate and drill).";

/// Asks whether agents may run, and starts and stops a fleet of them.
#[derive(Debug, Parser)]
#[command(
    name = "machineid",
    version = VERSION,
    max_term_width = 80,
    about = "See what runs under enforcement on this host, and allow or stop a fleet of agents",
    after_help = EXAMPLES
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Ask this host's daemon whether a device may run now (exit 0 allowed, 77 denied, 75 could not find out)
    Check(CheckArgs),
    /// Answer an agent's question before a tool call, in its own form; install this hook in the agent's settings
    Hook(HookArgs),
    /// Show the daemon's state on this host: devices, agents, the authority, the stop bound
    Status(StatusArgs),
    /// Show the events on this host: decisions, starts, stops, the authority, reloads
    Events(EventsArgs),
    /// Stop agents on this host now, without the authority, and wait until they are gone (exit 1 when one is not)
    Stop(StopArgs),
    /// Undo `stop --hold` on this host; starts no agent
    Release(ReleaseArgs),
    /// Put a process that runs already, with all its descendants, under supervision
    Adopt(AdoptArgs),
    /// The daemon's audit file
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Stop a canary tree under real enforcement and measure until its last process is gone (exit 1 when one survives)
    Drill(DrillArgs),
    #[command(name = role::VERB, hide = true)]
    Canary(CanaryArgs),
    /// Set up this host: configuration, key, daemon; asks for the authority and the device's name
    Init(InitArgs),
    /// Check everything that enforcement on this host needs, with a remedy for each problem (exit 1 when a check fails)
    Doctor(DoctorArgs),
    /// Register devices with the authority (safe to repeat)
    Register(RegisterArgs),
    /// Ask the authority whether devices may run now (exit 0 all allowed, 77 one denied, 75 could not find out)
    Validate(ValidateArgs),
    /// Stop devices: deny them from their next validation on
    Revoke(RevokeArgs),
    /// Undo a revoke; starts no agent
    #[command(visible_alias = "restore")]
    Unrevoke(UnrevokeArgs),
    /// Remove devices, which frees their places (to stop a device, revoke it)
    Remove(RemoveArgs),
    /// Show the organisation's devices
    List(ListArgs),
    /// Show the plan and how much of it is used
    Usage(UsageArgs),
    /// Print the address at which a larger plan can be bought
    Checkout(CheckoutArgs),
    /// Keys with roles, for an admin key: for hosts, for stopping, for reading, for operators
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Show the restores that wait for a second key (where restores need two)
    Approvals(ApprovalsArgs),
    /// Confirm a restore that another key asked for; it is then done
    Approve(ApprovalArgs),
    /// End a request for a restore without doing it
    Reject(ApprovalArgs),
    /// Organisations: create one, switch its execution off and on
    Org {
        #[command(subcommand)]
        command: OrgCommand,
    },
    /// Print the completion of a shell for one of the programs
    Completion(CompletionArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Verify that an audit file has no edits and no gaps (exit 1 when it has)
    Verify(AuditVerifyArgs),
}

#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "these are help texts, in which backticks would show")]
pub(super) enum OrgCommand {
    /// Create a free organisation and print its org key, which is shown only this once
    Create(OrgCreateArgs),
    /// Deny execution to every device of the organisation (ORG_DISABLED); all its agents stop
    Disable(DisableArgs),
    /// Undo `disable`, with an admin key; the switch of the authority's operator stays as it is
    Enable(EnableArgs),
}

#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    #[arg(long, value_name = "PATH", help = SOCKET_HELP)]
    pub(super) socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The device to ask about [default: the calling agent's own, else the host's]
    #[arg(long, value_name = "ID")]
    pub(super) device: Option<DeviceId>,
    /// Accept an answer up to this old, as in 2s, if the daemon's configuration allows it
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    pub(super) max_age: Option<Duration>,
    /// Give up after this time, as in 500ms, with exit code 75; a daemon that works answers within a few seconds
    #[arg(long, value_name = "DURATION", value_parser = span::parse, default_value = "10s")]
    pub(super) timeout: Duration,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Print nothing: the exit code says it
    #[arg(short, long, conflicts_with = "json")]
    pub(super) quiet: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print the daemon's answer as JSON; with --watch one object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Keep showing it until Ctrl-C: on a terminal the whole page each second, else a line for each change
    #[arg(short, long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

const EVENTS_HELP: &str = "\
The daemon remembers its newest 4,096 events; all of them, across restarts, are in its audit file ([audit] file). Other users' \
agents are shown to root, the daemon's own user and local.admin_group alone.";

#[derive(Debug, Args)]
#[command(after_help = EVENTS_HELP)]
pub(super) struct EventsArgs {
    /// Continue with new events until Ctrl-C; waits while the daemon restarts
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

const VERIFY_HELP: &str = "\
Each record holds the SHA-256 of the one before, so a change, a removal, an insertion or another order shows wherever it is. \
To find out whether the end was cut or rewritten, give the last hash from machineid status or the daemon's log: --expect. Records \
that the daemon itself says it lost (a full disk) are counted, but are not findings.

Exit codes: 0 sound, 1 something is wrong, 2 wrong usage or a file that cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub(super) struct AuditVerifyArgs {
    /// The file; after a rotation several, the oldest first
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// The file with the key of the records, where the daemon has one
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// The hash that the last record must have
    #[arg(long, value_name = "HASH")]
    pub(super) expect: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct TargetArgs {
    /// The agents of this name, or the one with this pid or run id, as `machineid status` shows them
    #[arg(value_name = "NAME|PID|RUN_ID")]
    pub(super) agent: Option<String>,
    /// Every agent of this device
    #[arg(long, value_name = "ID")]
    pub(super) device: Option<DeviceId>,
    /// Every agent that you may stop: your own, or as root those of all users
    #[arg(long)]
    pub(super) all: bool,
}

const STOP_HELP: &str = "\
A stop is SIGTERM to every process of the agent, its stop grace, then SIGKILL until nothing is left. Its device stays \
allowed and it may be started again; --hold denies it on this host until machineid release, machineid revoke everywhere.

Exit codes: 0 everything is gone (with --no-wait: requested), 1 processes survive or no agent matched, 2 wrong usage, 75 \
no daemon.";

#[derive(Debug, Args)]
#[command(after_help = STOP_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct StopArgs {
    #[command(flatten)]
    pub(super) targets: TargetArgs,
    /// Deny their devices on this host until machineid release, also after a restart; then every agent of these devices is
    /// stopped (with --all: the host's, which rules all)
    #[arg(long)]
    pub(super) hold: bool,
    /// Do not wait until they are gone
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Do not ask for confirmation of --all
    #[arg(long)]
    pub(super) yes: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Without --device and --all: the one device that is held, if there is just one.")]
pub(super) struct ReleaseArgs {
    /// This device
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub(super) device: Option<DeviceId>,
    /// All held devices
    #[arg(long)]
    pub(super) all: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

const DRILL_HELP: &str = "\
The canaries are this program under machineid-run, started with the daemon's socket as any agent would be: one in a session of \
its own, one that ignores SIGTERM, one orphaned by a double fork. Because of the second the drill takes the whole stop grace. \
Nothing is left behind, also when it is interrupted.

Exit codes: 0 everything is gone, 1 processes survive or something else is wrong, 2 wrong usage, 75 no daemon, 77 this host \
is denied.";

#[derive(Debug, Args)]
#[command(after_help = DRILL_HELP)]
pub(super) struct DrillArgs {
    /// The containment of the canaries, as for machineid-run: auto, cgroup, pidns or subreaper [default: auto]
    #[arg(long, value_name = "MODE", value_parser = parse_wish)]
    pub(super) containment: Option<Wish>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

fn parse_wish(text: &str) -> Result<Wish, WishError> {
    text.parse()
}

/// The role of a canary, and the socket where it reports.
#[derive(Debug, Args)]
pub(super) struct CanaryArgs {
    pub(super) role: Role,
    pub(super) socket: PathBuf,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Run it as the user that runs the agents. Exit codes: 0 nothing failed (warnings do not count), 1 \
                  something did, 2 wrong usage."
)]
pub(super) struct DoctorArgs {
    /// Print the checks as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectArgs {
    #[arg(
        long,
        value_name = "URL",
        help = "The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io"
    )]
    pub(super) url: Option<String>,
    #[arg(
        long,
        value_name = "USER",
        help = "The user who may run an authority on this host, beside root and yourself: no other user's process is sent the \
                key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]"
    )]
    pub(super) authority_user: Option<String>,
    /// Time for one request and its whole answer
    #[arg(long, value_name = "DURATION", value_parser = span::parse, default_value = "10s")]
    pub(super) timeout: Duration,
    /// Certificates (PEM) to trust instead of the host's own store
    #[arg(long, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// Allow plain http to another host; the org key then travels unencrypted
    #[arg(long)]
    pub(super) allow_http: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct KeyArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[arg(long, value_name = "PATH", help = "A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]")]
    pub(super) org_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct IdArgs {
    /// Device ids; `-` reads them from stdin, one a line
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Read device ids from a file too, one a line (`-` for stdin); empty lines and lines that begin with # are skipped
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    #[command(flatten)]
    pub(super) ids: IdArgs,
    /// Whether a self-hosted authority removes them when they have not been seen for a while [default: unchanged]
    #[arg(long, value_name = "true|false")]
    pub(super) ephemeral: Option<bool>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    #[command(flatten)]
    pub(super) ids: IdArgs,
    /// Print the decisions as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

const REVOKE_HELP: &str = "\
With --wait the fleet is followed through what sidecars report to the authority (machineid-authority takes reports; \
against another one only the bound of a stop can be told).

Exit codes: 0 revoked (with --wait: and nothing runs any more), 1 failed or done in part, or processes survive, or an \
agent's daemon outside its tree runs on, 2 wrong usage, 75 (--wait) revoked, but not every stop is confirmed: each is named.";

#[derive(Debug, Args)]
#[command(after_help = REVOKE_HELP)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    pub(super) ids: IdArgs,
    /// Every active device of the organisation
    #[arg(long, conflicts_with_all = ["ids", "from"])]
    pub(super) all_active: bool,
    /// Wait until every sidecar has confirmed that nothing runs any more, or, at the end of DURATION, name those that have
    /// not, with the time by which their own lease stops their agents [default DURATION: as long as a sidecar that reaches
    /// the authority may take]
    #[arg(long, value_name = "DURATION", value_parser = span::parse, num_args = 0..=1, require_equals = true,
          default_missing_value = "0s")]
    pub(super) wait: Option<Duration>,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(super) struct UnrevokeArgs {
    #[command(flatten)]
    pub(super) ids: IdArgs,
    /// Every revoked device of the organisation, the newest revoked first, as far as the plan has places
    #[arg(long, conflicts_with_all = ["ids", "from"])]
    pub(super) all_revoked: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    #[command(flatten)]
    pub(super) ids: IdArgs,
    /// Remove revoked devices too, without asking; they can register again and are then allowed. --yes does not mean this
    #[arg(long)]
    pub(super) revoked: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ChangeArgs {
    /// Show which devices would be affected, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(super) yes: bool,
    /// The reason, in one line: kept in the authority's audit, and shown where agents are stopped
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(super) reason: Option<String>,
}

/// Checks a reason: one line that fits into a denial.
fn reason(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let fit = (1..=200).contains(&text.chars().count()) && !text.contains(char::is_control);
    if fit { Ok(text.to_owned()) } else { Err("a reason is one line of 1 to 200 characters") }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only active devices
    #[arg(long, conflicts_with = "revoked")]
    pub(super) active: bool,
    /// Only revoked devices
    #[arg(long)]
    pub(super) revoked: bool,
    /// Only devices whose id contains this text
    #[arg(short, long, value_name = "SUBSTRING")]
    pub(super) query: Option<String>,
    /// Print the list as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// Print the answer as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

/// The plans that can be bought.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PaidPlan {
    Pro,
    Scale,
    Max,
}

#[derive(Debug, Args)]
pub(super) struct CheckoutArgs {
    /// The plan to buy
    #[arg(long)]
    pub(super) plan: PaidPlan,
    /// Print the address as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(super) struct OrgCreateArgs {
    /// Print the key as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
}

impl PaidPlan {
    /// The plan as the API names it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Pro => "pro",
            Self::Scale => "scale",
            Self::Max => "max",
        }
    }
}
