//! A sidecar's reports to its authority about its devices, and what the authority returns of them: an extension of the
//! self-hosted authority, which announces it. Nothing here decides anything.
//!
//! Spans are durations, not times: the clocks of a fleet need not agree.
//!
//! | file | concept |
//! |---|---|
//! | `mod` | what a sidecar sends |
//! | `fleet` | what an authority returns of it |
//! | `ids` | the ids of sidecars and of events |

mod fleet;
mod ids;

use serde::{Deserialize, Serialize};

pub use self::fleet::{
    Doubt, FleetDevice, FleetPage, FleetSidecar, FleetStop, StopList, StopProgress, StopState, Timeline, TimelineEvent,
};
pub use self::ids::{EventId, EventIdError, SidecarId, SidecarIdError};
use crate::outside::OutsideKind;
use crate::status::StandingKind;
use crate::{Code, DeviceId, RequestId, RunId};

/// The most stops in one report.
pub const MOST_STOPS: usize = 64;

/// The most survivors that are named for one stop.
pub const MOST_SURVIVORS: usize = 16;

/// The most outside helpers that are named for one device or stop.
pub const MOST_OUTSIDE: usize = 8;

/// The most events in one report.
pub const MOST_EVENTS: usize = 256;

/// The largest report, in bytes.
pub const LARGEST_REPORT: usize = 2 * 1024 * 1024;

/// The body of `POST /devices/report`: the whole state of a sidecar. A device that is missing is no longer used by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The sidecar that reports.
    pub sidecar_id: SidecarId,
    /// Grows with each report of a sidecar; the authority ignores a report that comes after a later one.
    pub sequence: u64,
    /// The sidecar's version.
    pub version: String,
    /// The device of the sidecar's host.
    pub host_device_id: DeviceId,
    /// The longest time that a stop can take on that host.
    pub stop_bound: Bound,
    /// Whether the authority pushes changes to the sidecar at this time.
    pub push: bool,
    /// The number of agents, each counted once, including those that are being stopped.
    pub agents: u32,
    /// The devices that the sidecar uses, at most [`super::api::LARGEST_WATCH`].
    pub devices: Vec<ReportedDevice>,
    /// Stops that have ended, or have survivors, and that the authority may not know of, at most [`MOST_STOPS`].
    #[serde(default)]
    pub stops: Vec<ReportedStop>,
    /// Events since the last report, at most [`MOST_EVENTS`], the oldest first.
    #[serde(default)]
    pub events: Vec<ReportedEvent>,
}

/// The longest time from a revoke to the end of the last process, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// While the authority answers.
    pub connected_ms: u64,
    /// While it does not: at the end of the lease the agents are stopped without it.
    pub cut_off_ms: u64,
}

/// The state of one device on a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedDevice {
    /// The device id.
    pub device_id: DeviceId,
    /// The sidecar's standing of the device.
    pub standing: StandingKind,
    /// The code of the deny, while the device is denied.
    #[serde(default)]
    pub code: Option<Code>,
    /// The stamp that came with the deny, which tells the revoke that the sidecar knows of.
    #[serde(default)]
    pub revoked_at: Option<String>,
    /// The remaining time of the lease, in milliseconds.
    #[serde(default)]
    pub lease_left_ms: Option<u64>,
    /// The number of agents that run on the device.
    pub agents: u32,
    /// The number of agents that are being stopped and have not ended.
    pub stopping: u32,
    /// Processes outside the trees that stopped agents of the device used and that run on, at most [`MOST_OUTSIDE`]; while the
    /// device is denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<ReportedHelper>,
}

/// A process outside an agent's tree that the agent used, and that is no ordinary service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedHelper {
    /// The process in a few words.
    pub name: String,
    /// The process id on its host, if the sidecar can see the process.
    #[serde(default)]
    pub pid: Option<u32>,
    /// What kind of process it is.
    pub kind: OutsideKind,
    /// Whether the sidecar is ending it.
    #[serde(default)]
    pub ending: bool,
}

impl ReportedHelper {
    /// The process for people, such as `codex app-server (pid 4711)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        self.pid.map_or_else(|| self.name.clone(), |pid| format!("{} (pid {pid})", self.name))
    }

    /// Whether it goes on with the agent's work for certain: nothing ends it, and it runs tools for agents.
    #[must_use]
    pub fn defies_the_stop(&self) -> bool {
        self.kind == OutsideKind::AgentDaemon && !self.ending
    }
}

/// A stop, as a sidecar reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedStop {
    /// The device of the agent.
    pub device_id: DeviceId,
    /// The run that was stopped.
    pub run_id: RunId,
    /// The agent's display name.
    #[serde(default)]
    pub name: Option<String>,
    /// The reason of the stop, as a code.
    pub code: Code,
    /// The authority's id of the deny, if the authority denied.
    #[serde(default)]
    pub request_id: Option<RequestId>,
    /// How long ago the stop began, in milliseconds.
    pub ago_ms: u64,
    /// How long the stop took up to the last look at it, in milliseconds.
    pub took_ms: u64,
    /// Processes that got the stop signal.
    pub signalled: u64,
    /// Processes that got SIGKILL.
    pub killed: u64,
    /// Whether no process is left.
    pub confirmed: bool,
    /// Processes that survived SIGKILL, at most [`MOST_SURVIVORS`].
    #[serde(default)]
    pub survivors: Vec<ReportedSurvivor>,
    /// Processes outside the tree that the agent used and that ran on, at most [`MOST_OUTSIDE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<ReportedHelper>,
}

/// A process that survived SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedSurvivor {
    /// The process id on its host.
    pub pid: i32,
    /// The reason, as text.
    pub reason: String,
}

/// The kind of an event, named as in the sidecar's own event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The sidecar's standing of the device has changed.
    Decision,
    /// An agent was allowed to start.
    AgentStarted,
    /// An agent's stop was requested.
    AgentStopping,
    /// Processes of an agent have survived SIGKILL; the sidecar keeps trying to end them.
    AgentSurvived,
    /// An agent's stop is confirmed: none of its processes is left.
    AgentStopped,
    /// An agent ended by itself.
    AgentEnded,
    /// The device is denied on that host until it is released there.
    DeviceHeld,
    /// The device is no longer denied on that host.
    DeviceReleased,
}

/// An event of a device. Fields that its kind does not use are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedEvent {
    /// The event's id in the sidecar's own event stream.
    pub id: EventId,
    /// The device.
    pub device_id: DeviceId,
    /// How long ago the event happened, in milliseconds.
    pub ago_ms: u64,
    /// The kind of the event.
    pub event: EventKind,
    /// The sidecar's standing of the device since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<StandingKind>,
    /// The reason, as a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The authority's id of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The reason, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The run of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The agent's display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long the stop took up to the last look at it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The number of processes that got SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<u64>,
    /// The number of processes that survived SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survivors: Option<u64>,
    /// Processes outside the tree that the agent used and that ran on, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<String>,
}
