//! What happens on a host, as the event stream and the audit file tell it.

use serde::{Deserialize, Serialize};

use super::local::Killer;
use super::status::{StandingKind, StopReport};
use super::{Code, Containment, DeviceId, HoldsAgainst, RequestId, RunId};

/// One event with its time. Its id is the event stream's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// RFC 3339 time.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// What the daemon holds about a device has changed.
    Decision(DecisionChange),
    /// An agent was allowed to start.
    AgentStarted(AgentStart),
    /// An agent's stop was requested. That it is gone is another event.
    AgentStopping(StopRequested),
    /// Somebody outlived SIGKILL; the daemon goes on trying.
    AgentSurvived(AgentStop),
    /// An agent's stop is confirmed: nothing of it is left.
    AgentStopped(AgentStop),
    /// An agent ended by itself, and nothing of it is left.
    AgentEnded(AgentName),
    /// The authority answers: for the first time, or again.
    AuthorityUp(AuthorityUp),
    /// The authority gives no usable answer any more.
    AuthorityDown(AuthorityDown),
    /// The configuration was read again.
    ConfigReloaded(Reload),
    /// A device is denied on this host until it is released.
    DeviceHeld(Hold),
    /// A device is no longer denied on this host.
    DeviceReleased(Hold),
    /// Files that the daemon keeps for itself were gone, such as its socket, and were made again.
    FilesRestored(Restored),
}

/// Files of the daemon's own that were made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restored {
    /// What they are: `socket`, `lock`, `record`, `marker`, `holds`, `device`, `sidecar_id`.
    pub files: Vec<String>,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The authority.
    Authority,
    /// This host: a kill file, a hold, no answer to be had.
    Local,
}

/// What the daemon now holds about a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecisionChange {
    /// The device.
    pub device_id: DeviceId,
    /// Allowed, denied or unavailable.
    pub standing: StandingKind,
    /// Who decided.
    pub source: Source,
    /// Why.
    pub code: Code,
    /// The authority's name for the answer, when one came.
    pub request_id: Option<RequestId>,
    /// The reason in words.
    pub reason: Option<String>,
}

/// Which agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentName {
    /// The run.
    pub run_id: RunId,
    /// Its device.
    pub device_id: DeviceId,
    /// Its name for people.
    pub name: Option<String>,
    /// The leader's pid, as the daemon sees it; `None` when it cannot.
    pub pid: Option<u32>,
    /// The user it runs as.
    pub uid: u32,
}

/// An agent that was allowed to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentStart {
    /// Which.
    #[serde(flatten)]
    pub agent: AgentName,
    /// The ALLOW's code.
    pub code: Code,
    /// The ALLOW's name.
    pub request_id: Option<RequestId>,
    /// Its command line, cut for people.
    pub command: Vec<String>,
    /// How its tree is held together.
    pub containment: Containment,
    /// Against whom that leaves no survivor.
    pub holds_against: HoldsAgainst,
    /// Who ends the tree when it must end.
    pub killer: Killer,
}

/// An agent whose stop has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopRequested {
    /// Which.
    #[serde(flatten)]
    pub agent: AgentName,
    /// Why.
    pub code: Code,
    /// The deny's name, when it was one of the authority's.
    pub request_id: Option<RequestId>,
    /// The reason in words.
    pub reason: Option<String>,
}

/// What a stop came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentStop {
    /// The user it ran as.
    pub uid: u32,
    /// How it went.
    #[serde(flatten)]
    pub report: StopReport,
}

/// An authority that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityUp {
    /// Its base URL.
    pub url: String,
}

/// An authority that does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityDown {
    /// Its base URL.
    pub url: String,
    /// What went wrong.
    pub reason: String,
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReloadResult {
    /// Its values are in force.
    Applied,
    /// Nothing in it was new.
    Unchanged,
    /// Some of its values are in force; some are wrong, or wait for a restart, and keep their old ones.
    Partial,
    /// It is wrong; the values of before stay in force.
    Refused,
}

impl ReloadResult {
    /// Its word in the log and the metrics.
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

/// A configuration that was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reload {
    /// What became of it.
    pub result: ReloadResult,
    /// The settings that changed, such as `enforcement.interval`.
    pub changed: Vec<String>,
    /// Why it was refused, or what of it waits for a restart.
    pub reason: Option<String>,
}

/// A device that is held, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hold {
    /// The device.
    pub device_id: DeviceId,
    /// The user who asked for it.
    pub by_uid: u32,
}

/// Who asked the daemon for something, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Caller {
    /// Its pid, as the daemon sees it; `None` when it cannot.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
    /// Its program; `None` when the daemon may not look.
    pub exe: Option<String>,
}

impl Happening {
    /// The word on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Decision(_) => "decision",
            Self::AgentStarted(_) => "agent-started",
            Self::AgentStopping(_) => "agent-stopping",
            Self::AgentSurvived(_) => "agent-survived",
            Self::AgentStopped(_) => "agent-stopped",
            Self::AgentEnded(_) => "agent-ended",
            Self::AuthorityUp(_) => "authority-up",
            Self::AuthorityDown(_) => "authority-down",
            Self::ConfigReloaded(_) => "config-reloaded",
            Self::DeviceHeld(_) => "device-held",
            Self::DeviceReleased(_) => "device-released",
            Self::FilesRestored(_) => "files-restored",
        }
    }

    /// The user whose agent it is about; `None` when it is about no agent.
    #[must_use]
    pub const fn agent_of(&self) -> Option<u32> {
        match self {
            Self::AgentStarted(start) => Some(start.agent.uid),
            Self::AgentStopping(stop) => Some(stop.agent.uid),
            Self::AgentSurvived(stop) | Self::AgentStopped(stop) => Some(stop.uid),
            Self::AgentEnded(agent) => Some(agent.uid),
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
        for what in [Happening::AgentEnded(agent), Happening::AgentStopping(requested)] {
            let event = Event { time: "2026-11-24T00:00:00Z".to_owned(), what };
            let text = serde_json::to_value(&event).unwrap();
            assert_eq!(text["event"], event.what.name());
            assert_eq!((&text["device_id"], &text["uid"]), (&"host:1".into(), &1000.into()), "{text}");
            assert_eq!(serde_json::from_value::<Event>(text).unwrap(), event);
        }
    }
}
