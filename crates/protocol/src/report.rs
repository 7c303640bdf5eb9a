//! A sidecar's reports to its authority about its devices, and what the authority returns of them: an extension of the
//! self-hosted authority, which announces it. Nothing here decides anything.
//!
//! Spans are durations, not times: the clocks of a fleet need not agree.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::outside::OutsideKind;
use super::status::StandingKind;
use super::{Code, DeviceId, RequestId, RunId};

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

/// The id of a sidecar: 128 bits in hex, made of its secret, the same until its host boots again. Older sidecars have random
/// ones.
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

/// The id of an event: the sidecar's start, and a number that counts from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Another number after each start of the sidecar.
    pub life: u32,
    /// The number of the event; the first is 1.
    pub number: u64,
}

/// The text is not the id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventIdError;

impl fmt::Display for EventIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 8 hex digits, a dash and a number")
    }
}

impl std::error::Error for EventIdError {}

/// The answer to `GET /org/timeline`: the events of one device, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timeline {
    /// The newest events.
    pub events: Vec<TimelineEvent>,
}

/// An event as the authority stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TimelineEvent {
    /// RFC 3339 time at which it happened, by the authority's clock.
    pub at: String,
    /// The sidecar that reported the event.
    pub sidecar_id: SidecarId,
    /// The event; its `agoMs` counts from the report that contained it.
    #[serde(flatten)]
    pub event: ReportedEvent,
}

/// The answer to `GET /org/fleet`: a page of devices with what their sidecars reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FleetPage {
    /// The devices, sorted by their ids.
    pub devices: Vec<FleetDevice>,
    /// The cursor of the next page; `None` at the end.
    #[serde(default)]
    pub next_cursor: Option<String>,
    /// How many sidecars of the whole organisation report; only on the first page, 0 on later ones.
    #[serde(default)]
    pub sidecars: u64,
    /// How many agents those sidecars have, each counted once; only on the first page.
    #[serde(default)]
    pub agents: u64,
}

/// One device of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FleetDevice {
    /// The device id.
    pub device_id: String,
    /// Whether the device is active or revoked.
    pub status: super::api::DeviceStatus,
    /// RFC 3339 time of the last validation.
    #[serde(default)]
    pub last_seen_at: Option<String>,
    /// How long ago that was, in milliseconds, by the authority's clock.
    #[serde(default)]
    pub last_seen_ago_ms: Option<u64>,
    /// RFC 3339 time of the revoke, while revoked.
    #[serde(default)]
    pub revoked_at: Option<String>,
    /// The operator's reason for the revoke.
    #[serde(default)]
    pub revoke_reason: Option<String>,
    /// The sidecars that use the device, sorted by their last report, the latest first.
    pub sidecars: Vec<FleetSidecar>,
    /// The newest stop of the device.
    #[serde(default)]
    pub last_stop: Option<FleetStop>,
}

/// What one sidecar reported about one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FleetSidecar {
    /// The sidecar.
    pub sidecar_id: SidecarId,
    /// The device of the sidecar's host.
    pub host_device_id: String,
    /// The sidecar's version.
    pub version: String,
    /// Whether the authority pushes changes to the sidecar.
    pub push: bool,
    /// RFC 3339 time of the sidecar's last report.
    pub heard_at: String,
    /// How long ago that was, in milliseconds.
    pub heard_ago_ms: u64,
    /// The sidecar's standing of the device.
    pub standing: StandingKind,
    /// The code of the deny, while the device is denied.
    #[serde(default)]
    pub code: Option<Code>,
    /// The remaining time of the lease, in milliseconds, if nothing has prolonged it since the report.
    #[serde(default)]
    pub lease_left_ms: Option<u64>,
    /// The number of agents that ran.
    pub agents: u32,
    /// The number of agents that were being stopped.
    pub stopping: u32,
    /// The longest time that a stop can take on that host.
    pub stop_bound: Bound,
    /// The progress of the stop that the device's revoke asks for; `None` while the device is not revoked.
    #[serde(default)]
    pub stop: Option<StopProgress>,
    /// Processes outside the trees that stopped agents of the device used and that ran on at the last report.
    #[serde(default)]
    pub outside: Vec<ReportedHelper>,
}

/// The progress of the stop that a revoke asks of one sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StopProgress {
    /// The state of the stop.
    pub state: StopState,
    /// RFC 3339 time by which the end of the lease has stopped every agent, even if everything else failed.
    pub by: String,
    /// The time until then, in milliseconds; 0 when it has passed.
    pub in_ms: u64,
    /// Why the sidecar's confirmation does not count; `None` when it counts, or there is none. The state is then `pending` or
    /// `lapsed`, so that a client that does not know this field does not take the stop for confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
}

/// Why a sidecar's confirmation of a stop does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Doubt {
    /// The reporting process has not proved that it is a sidecar which validated the device since the revoke, and another one
    /// that uses the device has.
    Unproven,
    /// Another sidecar says that agents run.
    Contradictory,
}

impl Doubt {
    /// Every doubt.
    pub const ALL: [Self; 2] = [Self::Unproven, Self::Contradictory];

    /// Its word in JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Contradictory => "contradictory",
        }
    }
}

/// The state of a stop that a revoke asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StopState {
    /// The sidecar knows of this revoke, and no agent runs.
    Confirmed,
    /// The sidecar knows of this revoke and is stopping agents.
    Stopping,
    /// The sidecar has not confirmed that it knows of this revoke.
    Pending,
    /// The sidecar has not confirmed that, and by now its lease has stopped its agents.
    Lapsed,
}

/// A stop as the authority stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FleetStop {
    /// RFC 3339 time at which the stop began, by the authority's clock.
    pub began_at: String,
    /// The sidecar that reported the stop.
    pub sidecar_id: SidecarId,
    /// The stop.
    #[serde(flatten)]
    pub stop: ReportedStop,
}

/// The answer to `GET /org/stops`: the newest stops of one device, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopList {
    /// The stops.
    pub stops: Vec<FleetStop>,
}

impl SidecarId {
    /// Makes an id of these bits.
    #[must_use]
    pub const fn random(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits of the id.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
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
