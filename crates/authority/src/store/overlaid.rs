//! The store's answers with the stops that are not written: what look-ups and lists say is what is in force.

use std::sync::Arc;

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::super::keys::SecretHash;
use super::super::org::OrgId;
use super::super::plan::Account;
use super::super::unwritten::{OrgOverlay, Overlay};
use super::{Aftermath, Filter, FleetRow, FleetRows, HeardOf, KeyRow, ListedDevice, Page, Presented};

/// A look-up, with the stops.
pub(super) fn presented(overlay: &Overlay, found: Presented, key: SecretHash, device: Option<&DeviceId>) -> Presented {
    found.changed(|found| {
        let Some(stops) = overlay.of(found.org.id) else { return };
        stops.on_org(&mut found.org);
        stops.on_key(key.mark(), &mut found.key);
        let Some((known, id)) = found.device.as_mut().zip(device) else { return };
        let Some(revoke) = stops.revoke_of(id, known.seq) else { return };
        if known.status == DeviceStatus::Active {
            known.status = DeviceStatus::Revoked;
            (known.revoked_at, known.revoke_reason) = (Some(revoke.at), revoke.reason.clone());
        }
    })
}

/// The keys of an organisation, with the stops.
pub(super) fn keys(overlay: &Overlay, org: OrgId, mut rows: Vec<KeyRow>) -> Vec<KeyRow> {
    if let Some(stops) = overlay.of(org) {
        for row in &mut rows {
            stops.on_key(row.mark, &mut row.held);
        }
    }
    rows
}

/// The stops of an organisation, for its lists.
#[derive(Debug)]
pub(super) struct OverlaidListing {
    overlay: Arc<Overlay>,
    org: OrgId,
}

impl OverlaidListing {
    /// `None` when there are no stops of this organisation: a list is then what the store says.
    pub(super) fn of(overlay: Arc<Overlay>, org: OrgId) -> Option<Self> {
        overlay.of(org).is_some().then_some(Self { overlay, org })
    }

    fn stops(&self) -> Option<&OrgOverlay> {
        self.overlay.of(self.org)
    }

    pub(super) fn account(&self, account: Account) -> Account {
        self.overlay.account(account)
    }

    /// The filter for the store: what depends on a revoke is filtered here, and so is the length of a page of it.
    pub(super) fn widened(filter: &Filter) -> Filter {
        if filter.status.is_none() && filter.revoked_at.is_none() {
            return filter.clone();
        }
        Filter { status: None, revoked_at: None, limit: None, ..filter.clone() }
    }

    /// The device with the stops; `None` when the filter leaves it out.
    fn device(&self, mut device: ListedDevice, filter: &Filter) -> Option<ListedDevice> {
        if device.revoked_at.is_none()
            && let Some(revoke) = device.id.parse().ok().and_then(|id| self.stops()?.revoke_of(&id, device.seq))
        {
            (device.revoked_at, device.revoke_reason) = (Some(revoke.at), revoke.reason.clone());
            device.unwritten = true;
        }
        let status = match filter.status {
            Some(DeviceStatus::Active) => device.revoked_at.is_none(),
            Some(DeviceStatus::Revoked) => device.revoked_at.is_some(),
            None => true,
        };
        let at = filter.revoked_at.is_none_or(|at| device.revoked_at == Some(at));
        (status && at).then_some(device)
    }

    pub(super) fn page(&self, page: Page, filter: &Filter) -> Page {
        let before = page.more;
        let devices: Vec<_> = page.devices.into_iter().filter_map(|device| self.device(device, filter)).collect();
        let mut page = filter.page(devices);
        page.more |= before;
        page
    }

    pub(super) fn fleet(&self, mut rows: FleetRows, filter: &Filter) -> FleetRows {
        let one = |row: FleetRow| Some(FleetRow { device: self.device(row.device, filter)?, ..row });
        rows.devices = rows.devices.into_iter().filter_map(one).collect();
        let wanted = filter.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        rows.more |= rows.devices.len() > wanted;
        rows.devices.truncate(wanted);
        rows
    }

    /// Adds what became of the stop of this time, of the devices that it revoked.
    pub(super) fn aftermath(rows: FleetRows, at: Timestamp, after: &mut Aftermath) {
        for row in rows.devices {
            after.devices += 1;
            after.reason = after.reason.take().or(row.device.revoke_reason);
            let (device, last_seen_at) = (row.device.id, row.device.last_seen_at);
            let heard = row.heard.into_iter();
            after.heard.extend(heard.map(|heard| HeardOf { device: device.clone(), last_seen_at, heard }));
            after.stops.extend(row.last_stop.filter(|stop| stop.began_at >= at));
        }
    }
}
