//! The events of a host, as the event stream and the audit file contain them.

use serde::{Deserialize, Serialize};

use super::local::Killer;
use super::outside::OutsideHelper;
use super::status::{StandingKind, StopReport};
use super::{Code, Containment, DeviceId, HoldsAgainst, RequestId, RunId};

/// One event with its time. The event stream adds an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// RFC 3339 time.
    pub time: String,
    /// The event.
    #[serde(flatten)]
    pub what: Happening,
}

/// An event of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// The daemon's standing of a device has changed.
    Decision(DecisionChange),
    /// An agent was allowed to start.
    AgentStarted(AgentStart),
    /// An agent's stop was requested. Its end is another event.
    AgentStopping(StopRequested),
    /// Processes of an agent have survived SIGKILL; the daemon keeps trying to end them.
    AgentSurvived(AgentStop),
    /// An agent's stop is confirmed: none of its processes is left.
    AgentStopped(AgentStop),
    /// An agent ended by itself, and none of its processes is left.
    AgentEnded(AgentEnd),
    /// An agent uses a process outside its tree, which is no ordinary service.
    OutsideHelper(OutsideFound),
    /// The authority answers: for the first time, or again.
    AuthorityUp(AuthorityUp),
    /// The authority no longer gives usable answers.
    AuthorityDown(AuthorityDown),
    /// The configuration was read again.
    ConfigReloaded(Reload),
    /// A device is denied on this host until it is released.
    DeviceHeld(Hold),
    /// A device is no longer denied on this host.
    DeviceReleased(Hold),
    /// Files that the daemon keeps, such as its socket, were missing and were made again.
    FilesRestored(Restored),
}

/// Files of the daemon that were missing and were made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restored {
    /// The kinds of these files: `socket`, `lock`, `record`, `marker`, `holds`, `device`, `sidecar_id`.
    pub files: Vec<String>,
}

/// Which side made a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The authority.
    Authority,
    /// This host: by the kill file, by a hold, or because there is no answer of the authority.
    Local,
}

/// A change of the daemon's standing of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecisionChange {
    /// The device.
    pub device_id: DeviceId,
    /// The new standing: allowed, denied or unavailable.
    pub standing: StandingKind,
    /// The side that decided.
    pub source: Source,
    /// The reason, as a code.
    pub code: Code,
    /// The authority's id of the answer, if there is one.
    pub request_id: Option<RequestId>,
    /// The reason, as text.
    pub reason: Option<String>,
}

/// An agent that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentName {
    /// The run of the agent.
    pub run_id: RunId,
    /// The device of the agent.
    pub device_id: DeviceId,
    /// The agent's display name.
    pub name: Option<String>,
    /// The leader's pid, as the daemon sees it; `None` when the daemon cannot see the leader.
    pub pid: Option<u32>,
    /// The user that the agent runs as.
    pub uid: u32,
}

/// An agent that ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentEnd {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentName,
    /// How many processes of its control group the kernel ended for lack of memory while the agent ran; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An agent that was allowed to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentStart {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentName,
    /// The code of the ALLOW.
    pub code: Code,
    /// The authority's id of the ALLOW.
    pub request_id: Option<RequestId>,
    /// The command line, shortened for display; empty in the event stream of a caller that may not see it.
    pub command: Vec<String>,
    /// How the process tree is held together.
    pub containment: Containment,
    /// Which agents that containment holds without a survivor.
    pub holds_against: HoldsAgainst,
    /// Which side ends the tree when it must end.
    pub killer: Killer,
    /// Whether the agent ran already, and was put under supervision then (`machineid adopt`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

/// An agent whose stop has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopRequested {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentName,
    /// The reason, as a code.
    pub code: Code,
    /// The authority's id of the deny, if the authority denied.
    pub request_id: Option<RequestId>,
    /// The reason, as text.
    pub reason: Option<String>,
}

/// The result of a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentStop {
    /// The user that the agent ran as.
    pub uid: u32,
    /// The stop.
    #[serde(flatten)]
    pub report: StopReport,
}

/// A process outside an agent's tree that the agent uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutsideFound {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentName,
    /// The process outside.
    pub helper: OutsideHelper,
}

/// The authority answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityUp {
    /// The authority's base URL.
    pub url: String,
}

/// The authority does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityDown {
    /// The authority's base URL.
    pub url: String,
    /// The last error.
    pub reason: String,
}

/// The result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReloadResult {
    /// The new values are in force.
    Applied,
    /// No value has changed.
    Unchanged,
    /// Some of the new values are in force; others are invalid or wait for a restart, and keep their old value.
    Partial,
    /// The configuration is invalid; all values stay as they were.
    Refused,
}

impl ReloadResult {
    /// The result as text, in the log and the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Partial => "partial",
            Self::Refused => "refused",
        }
    }
}

/// A reload of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reload {
    /// The result.
    pub result: ReloadResult,
    /// The settings that changed, such as `enforcement.interval`.
    pub changed: Vec<String>,
    /// Why the configuration was refused, or which values wait for a restart.
    pub reason: Option<String>,
}

/// A device that is denied on this host, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hold {
    /// The device.
    pub device_id: DeviceId,
    /// The user who asked for that.
    pub by_uid: u32,
}

/// The process that sent a request to the daemon, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Caller {
    /// The process id, as the daemon sees it; `None` when the daemon cannot see the process.
    pub pid: Option<u32>,
    /// The user of the process.
    pub uid: u32,
    /// The program of the process; `None` when the daemon may not read that.
    pub exe: Option<String>,
}

impl Happening {
    /// The event's name, as it is sent.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Decision(_) => "decision",
            Self::AgentStarted(_) => "agent-started",
            Self::AgentStopping(_) => "agent-stopping",
            Self::AgentSurvived(_) => "agent-survived",
            Self::AgentStopped(_) => "agent-stopped",
            Self::AgentEnded(_) => "agent-ended",
            Self::OutsideHelper(_) => "outside-helper",
            Self::AuthorityUp(_) => "authority-up",
            Self::AuthorityDown(_) => "authority-down",
            Self::ConfigReloaded(_) => "config-reloaded",
            Self::DeviceHeld(_) => "device-held",
            Self::DeviceReleased(_) => "device-released",
            Self::FilesRestored(_) => "files-restored",
        }
    }

    /// The user whose agent the event is about; `None` when it is about no agent.
    #[must_use]
    pub const fn agent_of(&self) -> Option<u32> {
        match self {
            Self::AgentStarted(start) => Some(start.agent.uid),
            Self::AgentStopping(stop) => Some(stop.agent.uid),
            Self::AgentSurvived(stop) | Self::AgentStopped(stop) => Some(stop.uid),
            Self::AgentEnded(end) => Some(end.agent.uid),
            Self::OutsideHelper(found) => Some(found.agent.uid),
            Self::Decision(_)
            | Self::AuthorityUp(_)
            | Self::AuthorityDown(_)
            | Self::ConfigReloaded(_)
            | Self::DeviceHeld(_)
            | Self::DeviceReleased(_)
            | Self::FilesRestored(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_and_is_read_back() {
        let agent = AgentName {
            run_id: "0".repeat(32).parse().unwrap(),
            device_id: "host:1".parse().unwrap(),
            name: Some("scraper".to_owned()),
            pid: Some(7),
            uid: 1000,
        };
        let requested =
            StopRequested { agent: agent.clone(), code: Code::DeviceRevoked, request_id: None, reason: None };
        let end = AgentEnd { agent, oom_kills: 0 };
        for what in [Happening::AgentEnded(end), Happening::AgentStopping(requested)] {
            let event = Event { time: "2026-11-24T00:00:00Z".to_owned(), what };
            let text = serde_json::to_value(&event).unwrap();
            assert_eq!(text["event"], event.what.name());
            assert_eq!((&text["device_id"], &text["uid"]), (&"host:1".into(), &1000.into()), "{text}");
            assert_eq!(serde_json::from_value::<Event>(text).unwrap(), event);
        }
    }
}
