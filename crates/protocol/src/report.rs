//! What a sidecar tells its authority about its devices, and what the authority tells of it: an extension of our own
//! authority, announced by it. Nothing here decides anything.
//!
//! Spans are durations, not times: the clocks of a fleet need not agree.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::status::StandingKind;
use super::{Code, DeviceId, RequestId, RunId};

/// The most stops one report tells of.
pub const MOST_STOPS: usize = 64;

/// The most survivors of one stop that are named.
pub const MOST_SURVIVORS: usize = 16;

/// The most events one report tells of.
pub const MOST_EVENTS: usize = 256;

/// The largest report, in bytes.
pub const LARGEST_REPORT: usize = 2 * 1024 * 1024;

/// Which sidecar it is: 128 random bits in hex, the same until its host boots again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SidecarId(u128);

/// The text is not the id of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SidecarIdError;

impl fmt::Display for SidecarIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 32 lower-case hex digits")
    }
}

impl std::error::Error for SidecarIdError {}

/// `POST /devices/report`: everything the sidecar now holds. A device that is not in it is used by it no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whose report.
    pub sidecar_id: SidecarId,
    /// Grows from each report of a sidecar to its next: one that comes late is no news.
    pub sequence: u64,
    /// Its version.
    pub version: String,
    /// Its host's device.
    pub host_device_id: DeviceId,
    /// How long a stop can take there at the worst.
    pub stop_bound: Bound,
    /// Whether it is told of changes at once.
    pub push: bool,
    /// Its agents, each once, those that are being stopped too.
    pub agents: u32,
    /// Its devices, at most [`super::api::LARGEST_WATCH`].
    pub devices: Vec<ReportedDevice>,
    /// Stops that are over, or have survivors, and that the authority may not know of, at most [`MOST_STOPS`].
    #[serde(default)]
    pub stops: Vec<ReportedStop>,
    /// What happened since the last report, at most [`MOST_EVENTS`], the oldest first.
    #[serde(default)]
    pub events: Vec<ReportedEvent>,
}

/// The worst time from a revoke to the last process gone, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// While the authority answers.
    pub connected_ms: u64,
    /// While it does not: at the end of the lease the agents are stopped without it.
    pub cut_off_ms: u64,
}

/// A device as a sidecar holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedDevice {
    /// Its id.
    pub device_id: DeviceId,
    /// What is held about it.
    pub standing: StandingKind,
    /// The code of the deny, while it is denied.
    #[serde(default)]
    pub code: Option<Code>,
    /// The stamp that came with the deny: which revoke it is that the sidecar knows of.
    #[serde(default)]
    pub revoked_at: Option<String>,
    /// What is left of the lease, in milliseconds.
    #[serde(default)]
    pub lease_left_ms: Option<u64>,
    /// Agents that run on it.
    pub agents: u32,
    /// Agents that are being stopped and are not gone yet.
    pub stopping: u32,
}

/// A stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedStop {
    /// The device of the agent.
    pub device_id: DeviceId,
    /// The run.
    pub run_id: RunId,
    /// Its name for people.
    #[serde(default)]
    pub name: Option<String>,
    /// Why it was stopped.
    pub code: Code,
    /// The authority's name for the deny, when it was one of its.
    #[serde(default)]
    pub request_id: Option<RequestId>,
    /// How long ago it began, in milliseconds.
    pub ago_ms: u64,
    /// How long it took to the last look at it, in milliseconds.
    pub took_ms: u64,
    /// Processes that got the stop signal.
    pub signalled: u64,
    /// Processes that got SIGKILL.
    pub killed: u64,
    /// Whether nothing is left of it.
    pub confirmed: bool,
    /// Who outlived SIGKILL, at most [`MOST_SURVIVORS`].
    #[serde(default)]
    pub survivors: Vec<ReportedSurvivor>,
}

/// A process that outlived SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedSurvivor {
    /// Its number there.
    pub pid: i32,
    /// Why, in words.
    pub reason: String,
}

/// What an event is about: the word of the sidecar's own event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// What the sidecar holds about the device has changed.
    Decision,
    /// An agent was allowed to start.
    AgentStarted,
    /// An agent's stop was requested.
    AgentStopping,
    /// Somebody outlived SIGKILL; the sidecar goes on trying.
    AgentSurvived,
    /// An agent's stop is confirmed: nothing of it is left.
    AgentStopped,
    /// An agent ended by itself.
    AgentEnded,
    /// The device is denied on that host until it is released there.
    DeviceHeld,
    /// It no longer is.
    DeviceReleased,
}

/// Something that happened on a device. What its kind has no use for is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedEvent {
    /// Its id in the sidecar's own event stream.
    pub id: EventId,
    /// The device.
    pub device_id: DeviceId,
    /// How long ago it happened, in milliseconds.
    pub ago_ms: u64,
    /// What it is.
    pub event: EventKind,
    /// What the sidecar holds since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<StandingKind>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The authority's name for the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The agent's name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long the stop took to the last look at it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Processes that got SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<u64>,
    /// Processes that outlived it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survivors: Option<u64>,
}

/// The name of an event: which life of the sidecar, and its number therein.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Another one after each start of the sidecar.
    pub life: u32,
    /// The first is 1.
    pub number: u64,
}

/// The text is not the name of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventIdError;

impl fmt::Display for EventIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 8 hex digits, a dash and a number")
    }
}

impl std::error::Error for EventIdError {}

/// `GET /org/timeline`: what happened on one device, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timeline {
    /// The newest events.
    pub events: Vec<TimelineEvent>,
}

/// An event as the authority remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TimelineEvent {
    /// RFC 3339 time at which it happened, by the authority's clock.
    pub at: String,
    /// Which sidecar told.
    pub sidecar_id: SidecarId,
    /// The event; its `agoMs` counts from the report that told of it.
    #[serde(flatten)]
    pub event: ReportedEvent,
}

/// `GET /org/fleet`: a page of devices with what their sidecars told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FleetPage {
    /// The devices, in the order of their ids.
    pub devices: Vec<FleetDevice>,
    /// Where to go on; `None` at the end.
    #[serde(default)]
    pub next_cursor: Option<String>,
    /// How many sidecars of the whole organisation report; on the first page, 0 on every later one.
    #[serde(default)]
    pub sidecars: u64,
    /// How many agents those have, each once; as `sidecars`, on the first page.
    #[serde(default)]
    pub agents: u64,
}

/// One device of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FleetDevice {
    /// Its id.
    pub device_id: String,
    /// Active or revoked.
    pub status: super::api::DeviceStatus,
    /// RFC 3339 time of its last validation.
    #[serde(default)]
    pub last_seen_at: Option<String>,
    /// How long ago that was, in milliseconds, by the authority's clock.
    #[serde(default)]
    pub last_seen_ago_ms: Option<u64>,
    /// RFC 3339 time of the revoke, while revoked.
    #[serde(default)]
    pub revoked_at: Option<String>,
    /// The operator's words for it.
    #[serde(default)]
    pub revoke_reason: Option<String>,
    /// The sidecars that use it, those heard from last first.
    pub sidecars: Vec<FleetSidecar>,
    /// Its newest stop.
    #[serde(default)]
    pub last_stop: Option<FleetStop>,
}

/// What one sidecar told about one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FleetSidecar {
    /// Which.
    pub sidecar_id: SidecarId,
    /// Its host's device.
    pub host_device_id: String,
    /// Its version.
    pub version: String,
    /// Whether it is told of changes at once.
    pub push: bool,
    /// RFC 3339 time of its last report.
    pub heard_at: String,
    /// How long ago that was, in milliseconds.
    pub heard_ago_ms: u64,
    /// What it then held.
    pub standing: StandingKind,
    /// The code of its deny.
    #[serde(default)]
    pub code: Option<Code>,
    /// What is left of its lease by now, if nothing prolonged it since, in milliseconds.
    #[serde(default)]
    pub lease_left_ms: Option<u64>,
    /// Agents that ran.
    pub agents: u32,
    /// Agents that were being stopped.
    pub stopping: u32,
    /// How long a stop can take there.
    pub stop_bound: Bound,
    /// How far the stop is that the device's revoke asks for; `None` while it is not revoked.
    #[serde(default)]
    pub stop: Option<StopProgress>,
}

/// How far a sidecar is with the stop that a revoke asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StopProgress {
    /// How far.
    pub state: StopState,
    /// RFC 3339 time by which the lease alone has stopped every agent, whatever failed.
    pub by: String,
    /// The same from now on, in milliseconds; 0 when it is past.
    pub in_ms: u64,
}

/// How far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StopState {
    /// It knows of this revoke, and nothing runs.
    Confirmed,
    /// It knows of this revoke and is stopping agents.
    Stopping,
    /// It has not said that it knows of this revoke.
    Pending,
    /// It has not, and by now its lease has stopped its agents.
    Lapsed,
}

/// A stop as the authority remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FleetStop {
    /// RFC 3339 time at which it began, by the authority's clock.
    pub began_at: String,
    /// Which sidecar told.
    pub sidecar_id: SidecarId,
    /// The stop.
    #[serde(flatten)]
    pub stop: ReportedStop,
}

/// `GET /org/stops`: the newest stops of one device, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopList {
    /// The stops.
    pub stops: Vec<FleetStop>,
}

impl SidecarId {
    /// One from the kernel's randomness, or the next best.
    #[must_use]
    pub fn random(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.life, self.number)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('-').filter(|(life, number)| {
            life.len() == 8
                && life.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let id = parts.and_then(|(life, number)| {
            Some(Self { life: u32::from_str_radix(life, 16).ok()?, number: number.parse().ok()? })
        });
        id.ok_or(EventIdError)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for SidecarId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SidecarId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SidecarId({self})")
    }
}

impl FromStr for SidecarId {
    type Err = SidecarIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fit = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        fit.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self).ok_or(SidecarIdError)
    }
}

impl Serialize for SidecarId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SidecarId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_s_id_survives_the_wire_and_nothing_else_is_one() {
        let id = SidecarId::random(0xab);
        assert_eq!(id.to_string(), "000000000000000000000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "ab", "000000000000000000000000000000AB", "+00000000000000000000000000000ab"] {
            assert!(text.parse::<SidecarId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_events_id_survives_the_wire_and_nothing_else_is_one() {
        let id = EventId { life: 0x1a, number: 17 };
        assert_eq!(id.to_string(), "0000001a-17");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "-", "0000001a", "0000001a-", "1a-17", "0000001A-17", "0000001a-+7", "0000001a-1-1"] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }
}
