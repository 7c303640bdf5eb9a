//! What an authority returns of the reports: a fleet's devices, their stops and their events.

use serde::{Deserialize, Serialize};

use super::{Bound, ReportedEvent, ReportedHelper, ReportedStop, SidecarId};
use crate::Code;
use crate::status::StandingKind;

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
    pub status: crate::api::DeviceStatus,
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
