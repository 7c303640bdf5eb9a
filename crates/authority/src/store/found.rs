//! What is found about devices, and by which filter.

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::super::audit::{Record, Verb};
use super::super::org::{HeldKey, Org, OrgId};
use super::super::reports::{HeardDevice, KnownStop};
use super::StoreError;

/// What a key opens, as the store holds it. What is in it is given out by [`Self::at`] alone, so that no caller can
/// forget that an old key ends.
#[derive(Clone, Debug)]
pub(crate) struct Presented(LookUp);

impl Presented {
    pub(super) fn new(key: HeldKey, org: Org, device: Option<KnownDevice>) -> Self {
        Self(LookUp { org, key, device })
    }

    /// What the key opens at `now`; `None` when it is an old key that has expired.
    pub(crate) fn at(self, now: Timestamp) -> Option<LookUp> {
        self.0.key.good(now).then_some(self.0)
    }
}

/// What one validation needs to know.
#[derive(Clone, Debug)]
pub(crate) struct LookUp {
    /// Whose key it is.
    pub(crate) org: Org,
    /// Which of its keys.
    pub(crate) key: HeldKey,
    /// The device asked about, if that organisation has it.
    pub(crate) device: Option<KnownDevice>,
}

/// A device as a validation sees it.
#[derive(Clone, Debug)]
pub(crate) struct KnownDevice {
    /// Its number in the store, never used twice.
    pub(crate) seq: i64,
    pub(crate) status: DeviceStatus,
    pub(crate) revoked_at: Option<Timestamp>,
    /// The reason of the revoke, if one was given.
    pub(crate) revoke_reason: Option<String>,
}

/// One device of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedDevice {
    pub(crate) id: String,
    pub(crate) created_at: Timestamp,
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
    pub(crate) revoke_reason: Option<String>,
    /// Registered as one that is removed when it is not seen for a time.
    pub(crate) ephemeral: bool,
    /// It asked last with another key than the organisation's current one.
    pub(crate) old_key: bool,
}

/// An organisation whose key was rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OldKey {
    pub(crate) org: OrgId,
    /// When the key before the current one ends or ended.
    pub(crate) ends: Timestamp,
    /// How many devices asked last with another key than the current one.
    pub(crate) devices: u64,
}

/// Which devices to list, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) status: Option<DeviceStatus>,
    /// Only ids that contain this.
    pub(crate) containing: Option<String>,
    /// Only ids behind this one.
    pub(crate) after: Option<DeviceId>,
    /// Only these.
    pub(crate) among: Option<Vec<DeviceId>>,
    /// Only this one.
    pub(crate) only: Option<DeviceId>,
    /// Only those that asked last with another key than the current one.
    pub(crate) old_key: bool,
    /// Only those revoked by the call of this time.
    pub(crate) revoked_at: Option<Timestamp>,
    /// At most so many; `None` for all.
    pub(crate) limit: Option<u32>,
    /// Of a fleet: count the sidecars and agents of the whole organisation too, which takes longer the more there are.
    pub(crate) counted: bool,
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
pub(crate) struct Page {
    pub(crate) devices: Vec<ListedDevice>,
    /// Whether there are more behind the last one.
    pub(crate) more: bool,
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
pub(crate) struct FleetRows {
    pub(crate) devices: Vec<FleetRow>,
    /// Whether there are more behind the last one.
    pub(crate) more: bool,
    /// How many sidecars of the whole organisation report; 0 when they were not to be counted.
    pub(crate) sidecars: u64,
    /// How many agents those have, each once; as `sidecars`, on the first page.
    pub(crate) agents: u64,
}

/// A device with what its sidecars said.
#[derive(Clone, Debug)]
pub(crate) struct FleetRow {
    pub(crate) device: ListedDevice,
    /// Those heard from last first.
    pub(crate) heard: Vec<HeardDevice>,
    pub(crate) last_stop: Option<KnownStop>,
}

/// What a stop of many has led to so far.
#[derive(Clone, Debug)]
pub(crate) struct Aftermath {
    /// Devices that are revoked by it.
    pub(crate) devices: u64,
    pub(crate) reason: Option<String>,
    /// What each sidecar says about each of them, by device.
    pub(crate) heard: Vec<HeardOf>,
    /// Stops of their agents that began since.
    pub(crate) stops: Vec<KnownStop>,
}

/// What a sidecar said about a device.
#[derive(Clone, Debug)]
pub(crate) struct HeardOf {
    pub(crate) device: String,
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) heard: HeardDevice,
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
pub(crate) struct RestoredAll {
    /// The restored ids, newest revoke first.
    pub(crate) restored: Vec<String>,
    /// Revoked devices that found no place.
    pub(crate) left: u64,
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
