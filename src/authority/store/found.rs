//! What is found about devices, and by which filter.

use jiff::Timestamp;

use super::super::audit::{Record, Verb};
use super::super::org::{HeldKey, Org, OrgId};
use super::super::reports::{HeardDevice, KnownStop};
use super::StoreError;
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

/// What a key opens, as the store holds it. What is in it is given out by [`Self::at`] alone, so that no caller can
/// forget that an old key ends.
#[derive(Clone, Debug)]
pub(in crate::authority) struct Presented(LookUp);

impl Presented {
    pub(super) fn new(key: HeldKey, org: Org, device: Option<KnownDevice>) -> Self {
        Self(LookUp { org, key, device })
    }

    /// What the key opens at `now`; `None` when it is an old one whose time is over, which is then nobody's.
    pub(in crate::authority) fn at(self, now: Timestamp) -> Option<LookUp> {
        self.0.key.good(now).then_some(self.0)
    }
}

/// What one validation needs to know.
#[derive(Clone, Debug)]
pub(in crate::authority) struct LookUp {
    /// Whose key it is.
    pub(in crate::authority) org: Org,
    /// Which of its keys.
    pub(in crate::authority) key: HeldKey,
    /// The device asked about, if that organisation has it.
    pub(in crate::authority) device: Option<KnownDevice>,
}

/// A device as a validation sees it.
#[derive(Clone, Debug)]
pub(in crate::authority) struct KnownDevice {
    /// Its number in the store, never used twice.
    pub(in crate::authority) seq: i64,
    pub(in crate::authority) status: DeviceStatus,
    pub(in crate::authority) revoked_at: Option<Timestamp>,
    /// Why it is revoked, when whoever revoked it said so.
    pub(in crate::authority) revoke_reason: Option<String>,
}

/// One device of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::authority) struct ListedDevice {
    pub(in crate::authority) id: String,
    pub(in crate::authority) created_at: Timestamp,
    pub(in crate::authority) last_seen_at: Option<Timestamp>,
    pub(in crate::authority) revoked_at: Option<Timestamp>,
    pub(in crate::authority) revoke_reason: Option<String>,
    /// Registered as one that is removed when it is not seen for a time.
    pub(in crate::authority) ephemeral: bool,
    /// It asked last with another key than the organisation's current one.
    pub(in crate::authority) old_key: bool,
}

/// An organisation whose key was rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::authority) struct OldKey {
    pub(in crate::authority) org: OrgId,
    /// When the key before the current one ends or ended.
    pub(in crate::authority) ends: Timestamp,
    /// How many devices asked last with another key than the current one.
    pub(in crate::authority) devices: u64,
}

/// Which devices to list, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub(in crate::authority) struct Filter {
    pub(in crate::authority) status: Option<DeviceStatus>,
    /// Only ids that contain this.
    pub(in crate::authority) containing: Option<String>,
    /// Only ids behind this one.
    pub(in crate::authority) after: Option<DeviceId>,
    /// Only these.
    pub(in crate::authority) among: Option<Vec<DeviceId>>,
    /// Only this one.
    pub(in crate::authority) only: Option<DeviceId>,
    /// Only those that asked last with another key than the current one.
    pub(in crate::authority) old_key: bool,
    /// Only those revoked by the call of this time.
    pub(in crate::authority) revoked_at: Option<Timestamp>,
    /// At most so many; `None` for all.
    pub(in crate::authority) limit: Option<u32>,
    /// Of a fleet: count the sidecars and agents of the whole organisation too, which takes longer the more there are.
    pub(in crate::authority) counted: bool,
}

impl Filter {
    /// How many rows to fetch: one more than asked for tells whether there are more.
    pub(super) fn fetch(&self) -> i64 {
        self.limit.map_or(i64::MAX, |limit| i64::from(limit) + 1)
    }

    /// The page that so many fetched rows make.
    pub(super) fn page(&self, mut devices: Vec<ListedDevice>) -> Page {
        let wanted = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let more = devices.len() > wanted;
        devices.truncate(wanted);
        Page { devices, more }
    }
}

/// A page of devices.
#[derive(Clone, Debug)]
pub(in crate::authority) struct Page {
    pub(in crate::authority) devices: Vec<ListedDevice>,
    /// Whether there are more behind the last one.
    pub(in crate::authority) more: bool,
}

/// Sidecars remembered for one device: a device is one agent's or one host's, so more are a mistake or mischief.
pub(super) const KEPT_SIDECARS: i64 = 64;

/// Stops remembered for one device.
pub(super) const KEPT_STOPS: i64 = 20;

/// Events remembered for one device.
pub(super) const KEPT_EVENTS: i64 = 200;

/// A table of what sidecars reported, of which old rows are forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    Reports,
    Stops,
    Timeline,
}

impl Kept {
    pub(super) const ALL: [Self; 3] = [Self::Reports, Self::Stops, Self::Timeline];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reports => "reports",
            Self::Stops => "stops",
            Self::Timeline => "timeline",
        }
    }

    /// The column that says how old a row is.
    pub(super) fn time(self) -> &'static str {
        match self {
            Self::Reports => "heard_at",
            Self::Stops => "began_at",
            Self::Timeline => "at",
        }
    }
}

/// A page of the fleet.
#[derive(Clone, Debug)]
pub(in crate::authority) struct FleetRows {
    pub(in crate::authority) devices: Vec<FleetRow>,
    /// Whether there are more behind the last one.
    pub(in crate::authority) more: bool,
    /// How many sidecars of the whole organisation report; 0 when they were not to be counted.
    pub(in crate::authority) sidecars: u64,
    /// How many agents those have, each once; as `sidecars`, on the first page.
    pub(in crate::authority) agents: u64,
}

/// A device with what its sidecars said.
#[derive(Clone, Debug)]
pub(in crate::authority) struct FleetRow {
    pub(in crate::authority) device: ListedDevice,
    /// Those heard from last first.
    pub(in crate::authority) heard: Vec<HeardDevice>,
    pub(in crate::authority) last_stop: Option<KnownStop>,
}

/// What a stop of many has led to so far.
#[derive(Clone, Debug)]
pub(in crate::authority) struct Aftermath {
    /// Devices that are revoked by it.
    pub(in crate::authority) devices: u64,
    pub(in crate::authority) reason: Option<String>,
    /// What each sidecar says about each of them, by device.
    pub(in crate::authority) heard: Vec<HeardOf>,
    /// Stops of their agents that began since.
    pub(in crate::authority) stops: Vec<KnownStop>,
}

/// What a sidecar said about a device.
#[derive(Clone, Debug)]
pub(in crate::authority) struct HeardOf {
    pub(in crate::authority) device: String,
    pub(in crate::authority) last_seen_at: Option<Timestamp>,
    pub(in crate::authority) heard: HeardDevice,
}

/// A row of what a sidecar said about a device.
pub(super) struct Heard {
    pub(super) sidecar: String,
    pub(super) at: Timestamp,
    pub(super) body: String,
}

impl Heard {
    pub(super) fn read(&self) -> Result<HeardDevice, StoreError> {
        Ok(HeardDevice::read(&self.sidecar, self.at, &self.body)?)
    }
}

/// What became of `all_revoked`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::authority) struct RestoredAll {
    /// The restored ids, newest revoke first.
    pub(in crate::authority) restored: Vec<String>,
    /// Revoked devices that found no place.
    pub(in crate::authority) left: u64,
}

impl RestoredAll {
    /// What the audit says about it.
    pub(super) fn record(&self, org: OrgId) -> Record {
        let done = Record::ok(org, Verb::UnrevokeBatch).with("scope", "all_revoked");
        done.with("unrevoked", self.restored.len()).with("left", self.left)
    }
}

impl FleetRow {
    /// A device with the rows about it. What was said about an earlier device of that name is not said about this one.
    pub(super) fn read(
        device: ListedDevice,
        heard: &[Heard],
        last_stop: Option<(Timestamp, String)>,
    ) -> Result<Self, StoreError> {
        let since = device.created_at;
        let heard = heard.iter().filter(|heard| heard.at >= since).map(Heard::read).collect::<Result<_, _>>()?;
        let last_stop = last_stop.filter(|(began_at, _)| *began_at >= since);
        let last_stop = last_stop.map(|(began_at, body)| KnownStop::read(began_at, &body)).transpose()?;
        Ok(Self { device, heard, last_stop })
    }
}
