//! The results of look-ups and lists of devices, and the filter of a list.

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::super::audit::{Record, Verb};
use super::super::org::{HeldKey, Org, OrgId};
use super::super::reports::{FULL, HeardDevice, KnownStop};
use super::StoreError;
use super::values::{Value, values};

/// An organisation found by a key. Its content is accessible only through [`Self::at`], so that no caller can forget
/// that an old key expires.
#[derive(Clone, Debug)]
pub(crate) struct Presented(LookUp);

impl Presented {
    pub(super) fn new(key: HeldKey, org: Org, device: Option<KnownDevice>) -> Self {
        Self(LookUp { org, key, device })
    }

    /// The look-up result at `now`; `None` when the key is an old key that has expired.
    pub(crate) fn at(self, now: Timestamp) -> Option<LookUp> {
        self.0.key.good(now).then_some(self.0)
    }

    /// The look-up result with what `change` makes of it.
    pub(super) fn changed(mut self, change: impl FnOnce(&mut LookUp)) -> Self {
        change(&mut self.0);
        self
    }
}

/// The data that one validation needs.
#[derive(Clone, Debug)]
pub(crate) struct LookUp {
    /// The organisation that the key belongs to.
    pub(crate) org: Org,
    /// Which of the organisation's keys was used.
    pub(crate) key: HeldKey,
    /// The device asked about, if the organisation has it.
    pub(crate) device: Option<KnownDevice>,
}

/// A device as a validation sees it.
#[derive(Clone, Debug)]
pub(crate) struct KnownDevice {
    /// The device's number in the store; numbers are never reused.
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
    /// The device's number in the store; numbers are never reused.
    pub(crate) seq: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
    pub(crate) revoke_reason: Option<String>,
    /// The device registered as ephemeral: it is removed when it has not been seen for a while.
    pub(crate) ephemeral: bool,
    /// The device's last request used another key than the organisation's current one.
    pub(crate) old_key: bool,
    /// The revoke is in force and not in the database.
    pub(crate) unwritten: bool,
}

/// An organisation whose key was rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OldKey {
    pub(crate) org: OrgId,
    /// When the previous key ends or ended.
    pub(crate) ends: Timestamp,
    /// How many devices used another key than the current one in their last request.
    pub(crate) devices: u64,
}

/// Which devices to list, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) status: Option<DeviceStatus>,
    /// Only ids that contain this text.
    pub(crate) containing: Option<String>,
    /// Only ids after this one.
    pub(crate) after: Option<DeviceId>,
    /// Only these devices.
    pub(crate) among: Option<Vec<DeviceId>>,
    /// Only this device.
    pub(crate) only: Option<DeviceId>,
    /// Only devices whose last request used another key than the current one.
    pub(crate) old_key: bool,
    /// Only devices revoked by the call of this time.
    pub(crate) revoked_at: Option<Timestamp>,
    /// At most this many; `None` for all.
    pub(crate) limit: Option<u32>,
    /// For a page of the fleet: also count the sidecars and agents of the whole organisation, which takes longer the
    /// more there are.
    pub(crate) counted: bool,
}

impl Filter {
    /// How many rows to fetch: one more than the limit shows whether there are more.
    pub(super) fn fetch(&self) -> i64 {
        self.limit.map_or(i64::MAX, |limit| i64::from(limit) + 1)
    }

    /// The page made from the fetched rows.
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
    /// Whether there are more devices after the last one.
    pub(crate) more: bool,
}

/// The size of what sidecars told, in bytes, after which a page of the fleet ends, however few devices it has.
pub(super) const FLEET_PAGE: usize = 1024 * 1024;

/// How many devices are read at a time for a page of the fleet.
pub(super) const FLEET_STEP: usize = 50;

/// The same for the audit: the size of a page's texts, and how many entries are read at a time.
pub(super) const AUDIT_PAGE: usize = 1024 * 1024;
pub(super) const AUDIT_STEP: u32 = 50;

/// Sidecars stored for one device. A device belongs to one agent or one host, so more are an error or abuse.
pub(super) const KEPT_SIDECARS: i64 = 64;
const _: () = assert!(KEPT_SIDECARS.unsigned_abs() == FULL as u64, "a device is full when no more is stored");

/// Stops stored for one device of one sidecar.
pub(super) const KEPT_STOPS: i64 = 20;

/// Events stored for one device.
pub(super) const KEPT_EVENTS: i64 = 200;

/// A table whose rows are deleted when they are old or too many. No decision depends on any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Reports,
    Stops,
    Timeline,
    Validators,
    Audit,
}

/// Rows of such a table to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surplus {
    /// The rows from before this time, of all organisations.
    Before(Timestamp),
    /// The rows of one organisation up to this place in the table's order.
    UpTo(OrgId, i64),
}

impl Kept {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reports => "reports",
            Self::Stops => "stops",
            Self::Timeline => "timeline",
            Self::Validators => "validators",
            Self::Audit => "audit",
        }
    }

    /// The column with a row's age.
    fn time(self) -> &'static str {
        match self {
            Self::Reports => "heard_at",
            Self::Stops => "began_at",
            Self::Timeline | Self::Validators | Self::Audit => "at",
        }
    }

    /// The column by which the oldest rows of an organisation are found.
    pub(super) fn place(self) -> &'static str {
        match self {
            Self::Reports => "heard_at",
            Self::Validators => "at",
            Self::Stops | Self::Timeline | Self::Audit => "seq",
        }
    }
}

impl Surplus {
    /// The rows as a condition on the table, with the values of `$1` and on.
    pub(super) fn condition(self, table: Kept) -> (String, Vec<Value>) {
        match self {
            Self::Before(time) => (format!("{} < $1", table.time()), values![time]),
            Self::UpTo(org, place) => (format!("{} <= $1 AND org_id = $2", table.place()), values![place, org]),
        }
    }
}

/// A page of the fleet.
#[derive(Clone, Debug)]
pub(crate) struct FleetRows {
    pub(crate) devices: Vec<FleetRow>,
    /// Whether there are more devices after the last one.
    pub(crate) more: bool,
    /// How many sidecars report in the whole organisation; 0 when the query did not ask for the count.
    pub(crate) sidecars: u64,
    /// How many agents these sidecars have, each counted once; only on the first page, like `sidecars`.
    pub(crate) agents: u64,
}

/// A device with what its sidecars reported.
#[derive(Clone, Debug)]
pub(crate) struct FleetRow {
    pub(crate) device: ListedDevice,
    /// The sidecars' reports, the latest first.
    pub(crate) heard: Vec<HeardDevice>,
    pub(crate) last_stop: Option<KnownStop>,
}

/// The progress of a stop of many devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aftermath {
    /// Devices that are revoked by this stop.
    pub(crate) devices: u64,
    pub(crate) reason: Option<String>,
    /// What each sidecar reports about each of these devices, by device.
    pub(crate) heard: Vec<HeardOf>,
    /// Stops of their agents that began since.
    pub(crate) stops: Vec<KnownStop>,
}

/// A device that was revoked lately, and what its sidecars report.
#[derive(Clone, Debug)]
pub(crate) struct LatelyRevoked {
    pub(crate) revoked_at: Timestamp,
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) heard: Vec<HeardDevice>,
}

/// A sidecar's report about a device.
#[derive(Clone, Debug)]
pub(crate) struct HeardOf {
    pub(crate) device: String,
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) heard: HeardDevice,
}

/// A database row with a sidecar's report about a device.
pub(super) struct Heard {
    pub(super) sidecar: String,
    pub(super) at: Timestamp,
    pub(super) body: String,
    pub(super) validated_at: Option<Timestamp>,
}

impl Heard {
    pub(super) fn read(&self) -> Result<HeardDevice, StoreError> {
        let heard = HeardDevice::read(&self.sidecar, self.at, &self.body)?;
        Ok(HeardDevice { validated_at: self.validated_at, ..heard })
    }
}

/// The result of restoring all revoked devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestoredAll {
    /// The restored ids, the newest revoke first.
    pub(crate) restored: Vec<String>,
    /// Revoked devices for which the plan had no place.
    pub(crate) left: u64,
}

impl RestoredAll {
    /// The audit record of this result.
    pub(super) fn record(&self, org: OrgId) -> Record {
        let done = Record::ok(org, Verb::UnrevokeBatch).with("scope", "all_revoked");
        done.with("unrevoked", self.restored.len()).with("left", self.left)
    }
}

impl FleetRow {
    /// A device with the rows about it. Rows about an earlier device with the same id are left out.
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
