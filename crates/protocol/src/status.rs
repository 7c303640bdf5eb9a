//! The answer to `GET /v1/status`: the daemon's state. It contains no secret.

use serde::{Deserialize, Serialize};

use super::local::Killer;
use super::outside::OutsideHelper;
use super::{Code, Containment, DeviceId, HoldsAgainst, KeyRole, RequestId, RunId};

/// The daemon's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// RFC 3339 time of the daemon's start.
    pub started_at: String,
    /// The daemon's socket.
    pub socket: String,
    /// The authority that the daemon asks.
    pub authority: AuthorityStatus,
    /// The longest time that a stop can take.
    pub stop_bound: StopBound,
    /// The source of the settings.
    pub configuration: ConfigurationStatus,
    /// One entry for each device that the daemon asks about, the host's first.
    pub devices: Vec<DeviceReport>,
    /// The supervised agents that this caller may see.
    pub agents: Vec<AgentReport>,
    /// Which agents this caller may see.
    #[serde(default)]
    pub agents_shown: Option<AgentsShown>,
    /// The newest stops that this caller may see, the newest last: those that have ended, and those with survivors.
    #[serde(default)]
    pub recent_stops: Vec<StopReport>,
    /// The newest agents that ended for lack of memory, of those that this caller may see; the newest last.
    #[serde(default)]
    pub recent_oom: Vec<OomReport>,
    /// Devices that are denied on this host until they are released.
    #[serde(default)]
    pub holds: Vec<HoldReport>,
    /// The state of the audit file, if there is one.
    #[serde(default)]
    pub audit: Option<AuditStatus>,
    /// The state of the files that the daemon keeps.
    #[serde(default)]
    pub files: FilesStatus,
    /// The socket of the helper that makes control groups for the daemon, if there is one.
    #[serde(default)]
    pub leaf_helper: Option<String>,
}

/// The files that the daemon keeps: its socket, its lock, the records of runs, and files that outlive it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilesStatus {
    /// The problem with them, and what to do; `None` when all are in place.
    pub problem: Option<String>,
    /// RFC 3339 time at which missing files were last made again.
    pub restored_at: Option<String>,
    /// The kinds of those files: `socket`, `lock`, `record`, `marker`, `holds`, `device`, `sidecar_id`.
    pub restored: Vec<String>,
}

/// A device that is denied on this host until it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldReport {
    /// The device.
    pub device_id: DeviceId,
    /// RFC 3339 time since which the device is held.
    pub since: String,
    /// The user who asked for the hold.
    pub by_uid: u32,
}

/// The state of the audit file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditStatus {
    /// The file's path.
    pub file: String,
    /// The SHA-256 of the last record, in hex, for `machineid audit verify FILE --expect HASH`.
    pub last_hash: Option<String>,
    /// Records that could not be written since the daemon's start.
    pub dropped: u64,
    /// Why the file cannot be written now, if it cannot.
    pub problem: Option<String>,
    /// Whether the chain of its records has a key (`audit.key_file`).
    #[serde(default)]
    pub keyed: bool,
}

/// The result of a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopReport {
    /// The run that was stopped.
    pub run_id: RunId,
    /// The agent's display name.
    pub name: Option<String>,
    /// The device of the agent.
    pub device_id: DeviceId,
    /// The reason of the stop, as a code.
    pub code: Code,
    /// The authority's id of the deny, if the authority denied.
    pub request_id: Option<RequestId>,
    /// RFC 3339 time at which the stop began.
    pub began_at: String,
    /// How the process tree was held together, and therefore how it was ended.
    pub mechanism: Containment,
    /// Which agents that containment holds without a survivor.
    pub holds_against: HoldsAgainst,
    /// How many processes the daemon sent the stop signal.
    pub signalled: usize,
    /// How many processes the daemon sent SIGKILL.
    pub killed: usize,
    /// Milliseconds from the beginning of the stop to the last look at it.
    pub took_ms: u64,
    /// Whether no process of the tree is left, as far as the kernel can tell.
    pub confirmed: bool,
    /// Processes that survived SIGKILL. The daemon keeps trying to end them.
    pub survivors: Vec<SurvivorReport>,
    /// Processes outside the tree that the agent used and that run on, as far as is known; ordinary services are left out.
    #[serde(default)]
    pub outside: Vec<OutsideHelper>,
}

/// A process that survived SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SurvivorReport {
    /// The process id, as the daemon sees it.
    pub pid: i32,
    /// The reason, as text.
    pub reason: String,
}

/// The authority that the daemon asks, and whether it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityStatus {
    /// The authority's base URL.
    pub url: String,
    /// Whether the newest request brought a usable answer; `None` before the first.
    pub reachable: Option<bool>,
    /// RFC 3339 time of the last usable answer.
    pub last_answer_at: Option<String>,
    /// The error of the newest request, if it failed.
    pub last_error: Option<String>,
    /// Whether the authority pushes changes, over a connection that stands now.
    #[serde(default)]
    pub push: bool,
    /// RFC 3339 time at which the org key in use ends, if another key has taken its place or it ends within a week.
    #[serde(default)]
    pub key_ends: Option<String>,
    /// The role of the org key in use, if the authority tells: a host needs no more than `host`.
    #[serde(default)]
    pub key_role: Option<KeyRole>,
}

/// The longest time from a revoke to the end of the last process, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopBound {
    /// While the authority answers: `interval` + `timeout` + `stop_grace` + 1 s.
    pub connected_ms: u64,
    /// While it does not: `lease` + `stop_grace` + 1 s.
    pub cut_off_ms: u64,
}

/// The source of the settings, and the protection of the org key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigurationStatus {
    /// The configuration file, if one was read.
    pub file: Option<String>,
    /// The source of the org key.
    pub key_source: String,
    /// How the key is protected from agents on this host, in a sentence.
    pub key_protection: String,
    /// RFC 3339 time of the start, or of the last reload that changed something.
    #[serde(default)]
    pub loaded_at: Option<String>,
    /// Settings in the files that are not in force, each with its place and what would be right.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The kill file, if one is configured.
    #[serde(default)]
    pub kill_file: Option<KillFileStatus>,
}

/// The kill file, which denies everything while it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KillFileStatus {
    /// The file's path.
    pub path: String,
    /// Why the kill file is in force, in a sentence; `None` while it is not.
    pub in_force: Option<String>,
}

/// The daemon's standing of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StandingKind {
    /// There is no answer yet.
    Unknown,
    /// The newest answer is an ALLOW.
    Allowed,
    /// The newest answer is a deny.
    Denied,
    /// The newest attempt brought no answer.
    Unavailable,
}

/// The state of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceReport {
    /// The device id.
    pub device_id: DeviceId,
    /// Whether the device is the host's own, which rules all agents.
    pub host: bool,
    /// Whether the device is the one that all replicas of the host's workload share, which rules all agents too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workload: bool,
    /// The daemon's standing of the device.
    pub standing: StandingKind,
    /// RFC 3339 time since which the standing is the same.
    pub since: String,
    /// The last decision, whenever it came.
    pub last_decision: Option<LastDecision>,
    /// The error of the newest attempt, if it failed.
    pub last_error: Option<String>,
    /// Milliseconds until the next validation; `None` while one is due or under way.
    pub next_validation_ms: Option<u64>,
    /// The remaining time of the lease, in milliseconds; `None` without one.
    pub lease_left_ms: Option<u64>,
    /// The number of agents that run on the device.
    pub agents: usize,
}

/// A decision with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastDecision {
    /// RFC 3339 time at which the validation began.
    pub at: String,
    /// Whether the device may execute.
    pub allowed: bool,
    /// The reason, as a code.
    pub code: Code,
    /// The authority's id of the decision.
    pub request_id: Option<RequestId>,
    /// The authority's reason, as text.
    pub reason: Option<String>,
}

/// Which agents a caller may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AgentsShown {
    /// Those of all users.
    All,
    /// Those of its user, in its PID namespace and below it.
    Own,
    /// None: it is in another user namespace, or in a PID namespace that the daemon cannot identify.
    None,
}

/// The state of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// The agent runs on a lease.
    Running,
    /// The agent's stop has begun.
    Stopping,
}

/// One supervised run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentReport {
    /// The run.
    pub run_id: RunId,
    /// The leader's pid, as the daemon sees it; `None` when the daemon cannot see the leader.
    pub pid: Option<u32>,
    /// The agent's display name.
    pub name: Option<String>,
    /// The command line; empty for a caller that may not see all agents and is not in this one's tree.
    pub command: Vec<String>,
    /// The device of the agent.
    pub device_id: DeviceId,
    /// The user that the agent runs as.
    pub uid: u32,
    /// RFC 3339 time at which the run was allowed.
    pub started_at: String,
    /// Milliseconds since then.
    pub uptime_ms: u64,
    /// The remaining time of the lease, in milliseconds.
    pub lease_left_ms: u64,
    /// Whether the agent is running or stopping.
    pub state: AgentState,
    /// The reason of the stop, as a code, while the agent is being stopped.
    pub stop_code: Option<Code>,
    /// How the process tree is held together.
    pub containment: Containment,
    /// Which agents that containment holds without a survivor.
    pub holds_against: HoldsAgainst,
    /// The containment in a sentence, and why it is not stronger.
    pub containment_reason: Option<String>,
    /// Whether the agent is frozen until there is a decision about its device again.
    pub frozen: bool,
    /// Which side ends the tree when it must end.
    pub killer: Killer,
    /// Which processes may use the agent's token on `compat.listen`; `None` when the agent has none.
    #[serde(default)]
    pub token_good_for: Option<TokenUse>,
    /// Whether the agent was put under supervision while it ran (`machineid adopt`): it has no wrapper.
    #[serde(default)]
    pub adopted: bool,
    /// Processes outside the tree that the agent uses; ordinary services come last.
    #[serde(default)]
    pub outside: Vec<OutsideHelper>,
    /// Why there may be more of these, if there may.
    #[serde(default)]
    pub outside_gap: Option<String>,
    /// How many processes the tree had at the newest look, some seconds ago at most; `None` before the first, and when the
    /// daemon cannot see them.
    #[serde(default)]
    pub processes: Option<usize>,
    /// The memory of these, in bytes: as the kernel accounts it to the run's control group, or what is resident of each, with
    /// shared pages in each of them.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// How many processes of the tree's control group the kernel has ended for lack of memory, since the first look.
    #[serde(default)]
    pub oom_kills: u64,
}

/// An agent that ended after the kernel had ended processes of its control group for lack of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OomReport {
    /// The run.
    pub run_id: RunId,
    /// The agent's display name.
    pub name: Option<String>,
    /// The device of the agent.
    pub device_id: DeviceId,
    /// RFC 3339 time of the agent's end.
    pub at: String,
    /// How many processes the kernel ended.
    pub oom_kills: u64,
}

/// Which processes may use an agent's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TokenUse {
    /// Those of the agent's tree: their sockets are made in its control group.
    Tree,
    /// Every process of the agent's user that reads the token: the agent has no control group by which to tell.
    User,
}
