//! `GET /v1/status`: what the daemon holds, knows and promises. No secret is in it.

use serde::{Deserialize, Serialize};

use super::local::Killer;
use super::{Code, Containment, DeviceId, HoldsAgainst, KeyRole, RequestId, RunId};

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// RFC 3339 time of its start.
    pub started_at: String,
    /// Its socket.
    pub socket: String,
    /// Whom it asks.
    pub authority: AuthorityStatus,
    /// How long a stop can take at the worst.
    pub stop_bound: StopBound,
    /// Where its settings came from.
    pub configuration: ConfigurationStatus,
    /// One entry for each device it asks about, the host's first.
    pub devices: Vec<DeviceReport>,
    /// The supervised agents this caller may see.
    pub agents: Vec<AgentReport>,
    /// The newest stops this caller may see, the newest last: those that are over, and those with survivors.
    #[serde(default)]
    pub recent_stops: Vec<StopReport>,
    /// Devices that are denied on this host until they are released.
    #[serde(default)]
    pub holds: Vec<HoldReport>,
    /// How far the audit file is, when there is one.
    #[serde(default)]
    pub audit: Option<AuditStatus>,
    /// How it is with the files that the daemon keeps for itself.
    #[serde(default)]
    pub files: FilesStatus,
}

/// The files that the daemon keeps for itself: its socket, its lock, the records of runs, and what outlives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilesStatus {
    /// What is wrong with them now, and what to do; `None` when all are in place.
    pub problem: Option<String>,
    /// RFC 3339 time at which some were gone and were made again, the last time.
    pub restored_at: Option<String>,
    /// What these were: `socket`, `lock`, `record`, `marker`, `holds`, `device`, `sidecar_id`.
    pub restored: Vec<String>,
}

/// A device that is denied on this host until it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldReport {
    /// The device.
    pub device_id: DeviceId,
    /// RFC 3339 time since which it is held.
    pub since: String,
    /// The user who asked for it.
    pub by_uid: u32,
}

/// How far the audit file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditStatus {
    /// Its path.
    pub file: String,
    /// The SHA-256 of its last record, in hex: `machineid audit verify FILE --expect HASH`.
    pub last_hash: Option<String>,
    /// Records that could not be written since the daemon's start.
    pub dropped: u64,
    /// Why it cannot be written now, when it cannot.
    pub problem: Option<String>,
}

/// What a stop came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopReport {
    /// The run.
    pub run_id: RunId,
    /// Its name for people.
    pub name: Option<String>,
    /// Its device.
    pub device_id: DeviceId,
    /// Why it was stopped.
    pub code: Code,
    /// The authority's name for the deny, when it was one of the authority's.
    pub request_id: Option<RequestId>,
    /// RFC 3339 time at which it began.
    pub began_at: String,
    /// How the tree was held together, and so how it was ended.
    pub mechanism: Containment,
    /// Against whom that leaves no survivor.
    pub holds_against: HoldsAgainst,
    /// Processes the daemon sent the stop signal.
    pub signalled: usize,
    /// Processes the daemon sent SIGKILL.
    pub killed: usize,
    /// Milliseconds from its beginning to the last look at it.
    pub took_ms: u64,
    /// Whether nothing of the tree is left, as far as anybody can tell.
    pub confirmed: bool,
    /// Who outlived SIGKILL. The daemon goes on trying.
    pub survivors: Vec<SurvivorReport>,
}

/// A process that outlived SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SurvivorReport {
    /// Its number, as the daemon sees it.
    pub pid: i32,
    /// Why, in words.
    pub reason: String,
}

/// Whom the daemon asks, and whether it gets answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityStatus {
    /// Its base URL.
    pub url: String,
    /// Whether the newest request to it brought a usable answer; `None` before the first.
    pub reachable: Option<bool>,
    /// RFC 3339 time of the last usable answer.
    pub last_answer_at: Option<String>,
    /// What went wrong with the newest request, when something did.
    pub last_error: Option<String>,
    /// Whether it says by itself when to validate, over a connection that stands now.
    #[serde(default)]
    pub push: bool,
    /// RFC 3339 time at which the org key in use ends, if another key has taken its place or it ends within a week.
    #[serde(default)]
    pub key_ends: Option<String>,
    /// The role of the org key in use, if the authority tells: a host needs no more than `host`.
    #[serde(default)]
    pub key_role: Option<KeyRole>,
}

/// The worst time from a revoke to the last process gone, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopBound {
    /// While the authority answers: `interval` + `timeout` + `stop_grace` + 1 s.
    pub connected_ms: u64,
    /// While it does not: `lease` + `stop_grace` + 1 s.
    pub cut_off_ms: u64,
}

/// Where the settings came from, and what protects the org key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigurationStatus {
    /// The configuration file, when one was read.
    pub file: Option<String>,
    /// Where the org key came from.
    pub key_source: String,
    /// What keeps the key from agents on this host, in a sentence.
    pub key_protection: String,
    /// RFC 3339 time of the start, or of the last reload that changed something.
    #[serde(default)]
    pub loaded_at: Option<String>,
    /// What the files say and is not in force, each with its place and what would be right.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The kill file, when one is configured.
    #[serde(default)]
    pub kill_file: Option<KillFileStatus>,
}

/// The file that denies everything while it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KillFileStatus {
    /// Its path.
    pub path: String,
    /// Why it is in force, in a sentence; `None` while it is not.
    pub in_force: Option<String>,
}

/// What the daemon now holds about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StandingKind {
    /// No answer yet.
    Unknown,
    /// The newest answer is an ALLOW.
    Allowed,
    /// The newest answer is a deny.
    Denied,
    /// The newest attempt brought no answer.
    Unavailable,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceReport {
    /// Its id.
    pub device_id: DeviceId,
    /// Whether it is the host's own, which rules all.
    pub host: bool,
    /// What the daemon holds.
    pub standing: StandingKind,
    /// RFC 3339 time since which it holds that.
    pub since: String,
    /// The last decision, whenever it came.
    pub last_decision: Option<LastDecision>,
    /// What went wrong with the newest attempt, when something did.
    pub last_error: Option<String>,
    /// Milliseconds to the next validation; `None` while one is due or under way.
    pub next_validation_ms: Option<u64>,
    /// What is left of the lease, in milliseconds; `None` without one.
    pub lease_left_ms: Option<u64>,
    /// Agents that run on it.
    pub agents: usize,
}

/// A decision with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastDecision {
    /// RFC 3339 time at which its validation began.
    pub at: String,
    /// Yes or no.
    pub allowed: bool,
    /// Why.
    pub code: Code,
    /// The authority's name for it.
    pub request_id: Option<RequestId>,
    /// The authority's words.
    pub reason: Option<String>,
}

/// How far an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// It runs on a lease.
    Running,
    /// Its stop has begun.
    Stopping,
}

/// One supervised run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentReport {
    /// The run.
    pub run_id: RunId,
    /// The leader's pid, as the daemon sees it; `None` when it cannot.
    pub pid: Option<u32>,
    /// Its name for people.
    pub name: Option<String>,
    /// Its command line.
    pub command: Vec<String>,
    /// Its device.
    pub device_id: DeviceId,
    /// The user it runs as.
    pub uid: u32,
    /// RFC 3339 time at which it was allowed.
    pub started_at: String,
    /// Milliseconds since then.
    pub uptime_ms: u64,
    /// What is left of its lease, in milliseconds.
    pub lease_left_ms: u64,
    /// Running or stopping.
    pub state: AgentState,
    /// Why it is being stopped, while it is.
    pub stop_code: Option<Code>,
    /// How its tree is held together.
    pub containment: Containment,
    /// Against whom that leaves no survivor.
    pub holds_against: HoldsAgainst,
    /// In a line: what holds it, and why not something stronger.
    pub containment_reason: Option<String>,
    /// Whether it is frozen until its device is decided again.
    pub frozen: bool,
    /// Who ends the tree when it must end.
    pub killer: Killer,
}
